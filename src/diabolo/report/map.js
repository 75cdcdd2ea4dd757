"use strict";
(() => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const canvas = document.getElementById("map"), tip = document.getElementById("tip"), box = document.getElementById("map-box");
  const shapes = data.shapes.map((path) => new Path2D(path));
  const margin = { left: 58, right: 16, top: 14, bottom: 44 };
  const known = data.x.map((x, i) => i).filter((i) => data.x[i] !== null && data.y[i] !== null);

  const extent = (values) => {
    const seen = known.map((i) => values[i]);
    const low = seen.reduce((a, b) => Math.min(a, b), Infinity), high = seen.reduce((a, b) => Math.max(a, b), -Infinity);
    const room = high > low ? 0.05 * (high - low) : Math.max(Math.abs(high) * 0.05, 0.5);
    return seen.length ? [low - room, high + room] : [0, 1];
  };
  const rangeX = extent(data.x), rangeY = extent(data.y);

  const ticks = ([low, high]) => {
    const raw = (high - low) / 5, size = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= raw * 0.999);
    const out = [];
    for (let i = Math.ceil(low / step); i <= Math.floor(high / step); i++) out.push(i * step);
    return out;
  };
  const text = (v) => String(Number(v.toPrecision(3))).replace("-", "\u2212");

  let places = [], hovered = -1;
  const draw = () => {
    const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const x = (v) => margin.left + ((v - rangeX[0]) / (rangeX[1] - rangeX[0])) * (width - margin.left - margin.right);
    const y = (v) => height - margin.bottom - ((v - rangeY[0]) / (rangeY[1] - rangeY[0])) * (height - margin.top - margin.bottom);
    pen.font = "12px system-ui, sans-serif";
    pen.strokeStyle = colour("--grid");
    pen.fillStyle = colour("--soft");
    pen.textAlign = "center";
    for (const v of ticks(rangeX)) {
      pen.beginPath();
      pen.moveTo(x(v), margin.top);
      pen.lineTo(x(v), height - margin.bottom);
      pen.stroke();
      pen.fillText(text(v), x(v), height - margin.bottom + 16);
    }
    pen.fillText(data.axes[0], (margin.left + width - margin.right) / 2, height - 8);
    pen.textAlign = "right";
    for (const v of ticks(rangeY)) {
      pen.beginPath();
      pen.moveTo(margin.left, y(v));
      pen.lineTo(width - margin.right, y(v));
      pen.stroke();
      pen.fillText(text(v), margin.left - 7, y(v) + 4);
    }
    pen.save();
    pen.translate(14, (margin.top + height - margin.bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(data.axes[1], 0, 0);
    pen.restore();

    const radius = known.length > 800 ? 2.6 : known.length > 200 ? 3.4 : 4.4;
    places = known.map((i) => [x(data.x[i]), y(data.y[i]), i]);
    for (const [a, b, i] of places) {
      const size = i === hovered ? radius * 1.9 : radius;
      pen.save();
      pen.translate(a, b);
      pen.scale(size, size);
      pen.fillStyle = data.palette[data.level[i]];
      pen.globalAlpha = 0.85;
      pen.fill(shapes[data.level[i]]);
      pen.globalAlpha = i === hovered ? 1 : 0.25;
      pen.lineWidth = 0.22;
      pen.strokeStyle = colour("--ink");
      pen.stroke(shapes[data.level[i]]);
      pen.restore();
    }
  };

  canvas.addEventListener("pointermove", (event) => {
    const frame = canvas.getBoundingClientRect(), a = event.clientX - frame.left, b = event.clientY - frame.top;
    let nearest = -1, least = 144; // within 12 pixels
    for (const [c, d, i] of places) {
      const distance = (a - c) ** 2 + (b - d) ** 2;
      if (distance < least) [least, nearest] = [distance, i];
    }
    if (nearest !== hovered) {
      hovered = nearest;
      draw();
    }
    tip.hidden = nearest < 0;
    if (nearest >= 0) {
      const lines = [`row ${data.row[nearest]}`];
      if (data.label) lines.push(`label ${data.label[nearest]}`);
      lines.push(`score ${data.score[nearest]} nats`);
      tip.textContent = lines.join("\n");
      tip.style.left = `${Math.min(a + 14, box.clientWidth - tip.offsetWidth)}px`;
      tip.style.top = `${b + 14}px`;
    }
  });
  canvas.addEventListener("pointerleave", () => {
    hovered = -1;
    tip.hidden = true;
    draw();
  });
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.addEventListener("beforeprint", draw);
})();
