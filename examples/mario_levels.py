"""Game levels: learn the levels of a platform game from text files, make new ones, and see whether they can be played.

The Video Game Level Corpus (github.com/TheVGLC/TheVGLC) has the levels of Super Mario Bros. as text, one character a tile:

    python examples/mario_levels.py --data "TheVGLC/Super Mario Bros/Processed"

Without a folder, levels of that alphabet are made up. Whether a level can be played is found by following every walk, jump and
fall from its left edge to its right one. New levels go to levels.txt and levels.png, steps from one level to another to way.png.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diabolo import SequenceVAE
from diabolo.latent import interpolate

WIDTH, STRIDE, EPOCHS = 16, 2, 25
SOLID = frozenset("XSQ?Bb[]<>")
RISE = {  # the way of a jump's first half, in tiles right and up; then it falls
    "up": ((0, 1), (0, 2), (0, 3), (0, 4)),
    "steep": ((0, 1), (1, 2), (1, 3), (2, 4)),
    "long": ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4), (5, 4)),
}
COLOURS = {"-": 0x6B8CFF, "X": 0x9C4A00, "S": 0xC84C0C, "Q": 0xE0A030, "?": 0xFCB838, "E": 0xA00000, "o": 0xFFF080}
COLOURS |= dict.fromkeys("<>", 0x00C800) | dict.fromkeys("[]", 0x00A000) | dict.fromkeys("Bb", 0x303030)


def reach(level: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield every place, as column and row, that can be reached from the left edge.

    A player one tile large walks, jumps up to four tiles high, and in the air moves up to one tile aside for each tile of
    falling, five columns of rise included. Places above the level are open; who falls below it is lost.
    """
    height, width = len(level), len(level[0])

    def free(x: int, y: int) -> bool:
        return 0 <= x < width and y < height and (y < 0 or level[y][x] not in SOLID)

    def stands(x: int, y: int) -> bool:
        return free(x, y) and y + 1 < height and not free(x, y + 1)

    begin = [(0, y) for y in range(height) if stands(0, y)]
    queue, seen = deque(begin), set(begin)
    while queue:
        x, y = queue.popleft()
        yield x, y
        found = [(x + side, y + 1) for side in (-1, 0, 1)] if not stands(x, y) else [(x - 1, y), (x + 1, y)]
        if stands(x, y):
            for side in (-1, 1):
                for way in RISE.values():
                    for right, up in way:
                        if not free(x + side * right, y - up):
                            break  # a blow to the head or against a wall; the fall begins at the last free tile
                        found.append((x + side * right, y - up))
        elif free(x, y + 1):  # falling past a corner needs the tile aside to be free
            found = [(a, b) for a, b in found if free(a, y)]
        for place in found:
            if place not in seen and free(*place):
                seen.add(place)
                queue.append(place)


def playable(level: Sequence[str]) -> bool:
    """Tell whether the right edge of a level can be reached from its left edge."""
    return any(x == len(level[0]) - 1 for x, _ in reach(level))


def read(folder: Path | None, n: int) -> np.ndarray:
    """Return windows of levels as single characters (n, rows, WIDTH); without a folder of ``n`` levels that are made up."""
    if folder is None:
        levels = [invented(np.random.default_rng(seed)) for seed in range(n)]
    else:
        levels = [file.read_text().split() for file in sorted(folder.glob("*.txt"))]
    tall = min(len(level) for level in levels)
    cut = [
        [list(row[x : x + WIDTH]) for row in level[-tall:]]
        for level in levels
        for x in range(0, len(level[0]) - WIDTH + 1, STRIDE)
    ]
    return np.array(cut)


def invented(rng: np.random.Generator, width: int = 120) -> list[str]:
    """Make up a level: ground with gaps, pipes, blocks and enemies."""
    level = np.full((14, width), "-")
    level[13:] = "X"
    for x in range(8, width - 8, 8):
        what, x = rng.integers(4), x + rng.integers(3)
        if what == 0:
            level[13, x : x + rng.integers(2, 5)] = "-"
        elif what == 1:
            high = rng.integers(2, 5)
            level[13 - high : 13, x : x + 2] = ("[", "]")
            level[13 - high, x : x + 2] = ("<", ">")
        elif what == 2:
            level[9, x : x + 3] = ("S", rng.choice(["?", "S"]), "S")
        else:
            level[12, x] = "E"
    return ["".join(row) for row in level]


def picture(levels: np.ndarray, across: int = 6, scale: int = 6) -> Image.Image:
    """Draw levels side by side, a coloured square for each tile."""
    n, high, wide = levels.shape
    lines = -(-n // across)
    page = np.full((lines, across, high + 1, wide + 1, 3), 255, np.uint8)
    for i, level in enumerate(levels):
        colours = np.vectorize(COLOURS.get, otypes=[np.uint32])(level, 0xFF00FF)
        page[i // across, i % across, :-1, :-1] = np.stack([colours >> 16 & 255, colours >> 8 & 255, colours & 255], -1)
    flat = page.transpose(0, 2, 1, 3, 4).reshape(lines * (high + 1), across * (wide + 1), 3)
    return Image.fromarray(flat.repeat(scale, 0).repeat(scale, 1))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Levels of a platform game.")
    parser.add_argument("--data", type=Path, help="folder of levels as text")
    parser.add_argument("--levels", type=int, default=12, help="to make up, without a folder")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--folder", type=Path, default=Path("levels"))
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)

    levels = read(options.data, options.levels)
    columns = levels.transpose(0, 2, 1)  # a level is written from left to right, column by column
    model = SequenceVAE(32, width=96, batch_size=32, max_epochs=options.epochs, random_state=0).fit(columns)
    made = model.sample(60, temperature=0.8, random_state=0).transpose(0, 2, 1)
    way = interpolate(model, columns[:1], columns[-1:], n=6).transpose(0, 2, 1)
    picture(made[:24]).save(options.folder / "levels.png")
    picture(way).save(options.folder / "way.png")
    texts = ["\n".join("".join(row) for row in level) for level in made]
    (options.folder / "levels.txt").write_text("\n\n".join(texts) + "\n")

    known = {level.tobytes() for level in levels}
    results = {
        "playable": float(np.mean([playable(text.split()) for text in texts])),
        "playable_real": float(np.mean([playable(["".join(row) for row in level]) for level in levels])),
        "copied": float(np.mean([level.astype(levels.dtype).tobytes() in known for level in made])),
    }
    print(
        f"{results['playable']:.0%} of new levels can be played, and {results['playable_real']:.0%} of those learned from"
    )
    print(f"{results['copied']:.0%} are copies; see {options.folder}")
    return results


if __name__ == "__main__":
    main()
