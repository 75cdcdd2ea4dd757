"""CompressAI's factorised model (Balle et al., 2018) beside ours.

    python compressai_codec.py learn PHOTOS OUT.pt LAMBDA STEPS BATCH
    python compressai_codec.py judge WEIGHTS.pt KODAK OUT.json

It learns from crops of 128 x 128 of the photographs of a folder, turned at random as ours are, with as many to a step and as many
steps: Adam, the learning rate rises to 1e-3 and falls along a cosine, gradients are clipped at 1. Judged are the bytes that its
own range coder writes for whole images, and PSNR.
"""

import json
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from compressai.models import FactorizedPrior
from PIL import Image

SIDE, FILTERS, CODES = 128, 128, 192  # those of its models of the lower rates


def crops(images, n, rng):
    found = []
    for _ in range(n):
        image = rng.choices(images, weights=[a.size for a in images])[0]
        top, left = (rng.randrange(length - SIDE + 1) for length in image.shape[:2])
        crop = np.rot90(image[top : top + SIDE, left : left + SIDE], rng.randrange(4))
        found.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def learn(photos, out, weight, steps, batch):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    rng = random.Random(0)
    paths = sorted(Path(photos).iterdir())
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths[: -max(1, len(paths) // 10)]]
    model = FactorizedPrior(FILTERS, CODES).to(device).train()
    quantiles = [p for name, p in model.named_parameters() if name.endswith("quantiles")]
    others = [p for name, p in model.named_parameters() if not name.endswith("quantiles")]
    optimizer, auxiliary = torch.optim.Adam(others, lr=1e-3), torch.optim.Adam(quantiles, lr=1e-3)
    pool = crops(images, 12_800, rng).to(device)
    began = time.perf_counter()
    for step in range(steps):
        share = step / steps
        rate = share / 0.05 if share < 0.05 else 0.5 * (1 + math.cos(math.pi * (share - 0.05) / 0.95))
        optimizer.param_groups[0]["lr"] = 1e-3 * max(rate, 0.01)
        x = pool[torch.randint(len(pool), (batch,), device=device)].float() / 255
        done = model(x)
        bits = sum(-torch.log2(p).sum() for p in done["likelihoods"].values()) / (batch * SIDE**2)
        loss = bits + weight * 255**2 * (done["x_hat"] - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        optimizer.step()
        auxiliary.zero_grad()
        model.aux_loss().backward()
        auxiliary.step()
        if step % 500 == 0:
            print(step, f"{loss.item():.3f} {time.perf_counter() - began:.0f} s", flush=True)
    torch.save({k: v.half().cpu() if v.is_floating_point() else v.cpu() for k, v in model.state_dict().items()}, out)
    Path(out).with_suffix(".json").write_text(
        json.dumps({"steps": steps, "batch": batch, "lambda": weight, "seconds": time.perf_counter() - began})
    )


@torch.inference_mode()
def judge(weights, kodak, out):
    model = FactorizedPrior(FILTERS, CODES).eval()
    model.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    model.update(force=True)
    rows = []
    for path in sorted(Path(kodak).glob("*.png")):
        image = np.asarray(Image.open(path).convert("RGB"))
        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        began = time.perf_counter()
        written = model.compress(x)
        middle = time.perf_counter()
        back = model.decompress(written["strings"], written["shape"])["x_hat"].clamp(0, 1)
        ended = time.perf_counter()
        off = np.asarray((back[0].permute(1, 2, 0) * 255).round()).astype(np.float64) - image
        size = sum(len(s) for group in written["strings"] for s in group)
        rows.append((size, 10 * math.log10(255**2 / np.square(off).mean()), middle - began, ended - middle))
    Path(out).write_text(json.dumps(rows))


if __name__ == "__main__":
    if sys.argv[1] == "learn":
        learn(*sys.argv[2:4], float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
    else:
        judge(*sys.argv[2:5])
