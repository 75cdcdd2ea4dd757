"""Music: learn chorales, write new ones to MIDI files, and go from one chorale to another.

Chorales are read from a file of the JSB chorales in sixteenths (github.com/czhuang/JSB-Chorales-dataset, Jsb16thSeparated.json):
pieces of steps of four pitches, one for each voice, -1 for silence.

    python examples/bach_chorales.py --data Jsb16thSeparated.json

Without a file, pieces of four voices are made up from the chords of a cadence. Pieces are cut into windows, and become events:
for each step, the note that each voice begins, or that it holds its note. New pieces go to chorale_1.mid and so on and to a
picture, chorales.png, steps from one chorale to another to way.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diabolo import SequenceVAE

EPOCHS, STEPS, EVERY = 40, 32, 4  # pieces are cut into windows of two bars of eighths
HOLD = "hold"
COLOURS = ((200, 60, 60), (230, 150, 40), (60, 140, 80), (60, 90, 180))  # soprano to bass


def read(path: Path | None) -> list[np.ndarray]:
    """Return pieces as arrays of pitches (steps, 4)."""
    if path is not None:
        found = json.loads(path.read_text())
        return [np.array(piece, dtype=int)[::2] for piece in (*found["train"], *found["valid"])]  # eighths
    rng, pieces = np.random.default_rng(0), []
    chords = {"I": (72, 67, 64, 48), "IV": (72, 69, 65, 53), "V": (71, 67, 62, 55), "vi": (72, 69, 64, 57)}
    for _ in range(160):
        names = [rng.choice(["I", "IV", "V", "vi"]) for _ in range(14)] + ["V", "I"]
        pieces.append(np.repeat([chords[name] for name in names], 2, axis=0) + rng.choice([-2, 0, 3]))
    return pieces


def to_events(piece: np.ndarray) -> np.ndarray:
    """Return what each voice does at each step of a piece (steps, 4): the pitch that it begins, or that it holds its note."""
    held = np.vstack([np.zeros((1, 4), bool), piece[1:] == piece[:-1]])
    return np.where(held, HOLD, piece.astype(str))


def from_events(events: np.ndarray) -> np.ndarray:
    """Return the pitches (steps, 4) of events; a voice that holds before it has sung is silent."""
    piece = np.full(events.shape, -1)
    for step, line in enumerate(events):
        for voice, event in enumerate(line):
            piece[step, voice] = int(event) if event != HOLD else piece[step - 1, voice] if step else -1
    return piece


def midi(piece: np.ndarray, beats_a_minute: int = 80) -> bytes:
    """Return a standard MIDI file of four tracks, of a piece in eighths; -1 is silence."""
    ticks = 240  # of an eighth; a quarter has twice as many

    def length(n: int) -> bytes:  # a whole number, seven bits a byte, the last byte marked by a zero
        parts = [n & 0x7F]
        while n := n >> 7:
            parts.append(n & 0x7F | 0x80)
        return bytes(reversed(parts))

    def track(messages: Sequence[tuple[int, bytes]]) -> bytes:
        body, before = b"", 0
        for when, message in messages:
            body += length(when - before) + message
            before = when
        body += b"\x00\xff\x2f\x00"
        return b"MTrk" + len(body).to_bytes(4) + body

    tracks = [track([(0, b"\xff\x51\x03" + round(60e6 / beats_a_minute).to_bytes(3))])]
    for voice, pitches in enumerate(piece.T.tolist()):
        messages, start = [(0, bytes([0xC0 + voice, 19]))], 0  # a church organ
        for i in range(1, len(pitches) + 1):
            if i == len(pitches) or pitches[i] != pitches[start]:
                if pitches[start] >= 0:
                    messages.append((start * ticks, bytes([0x90 + voice, pitches[start], 80])))
                    messages.append((i * ticks, bytes([0x80 + voice, pitches[start], 0])))
                start = i
        tracks.append(track(messages))
    head = (1).to_bytes(2) + len(tracks).to_bytes(2) + (2 * ticks).to_bytes(2)
    return b"MThd" + len(head).to_bytes(4) + head + b"".join(tracks)


def picture(pieces: Sequence[np.ndarray], scale: int = 4) -> Image.Image:
    """Draw piano rolls one below the other, a colour for each voice."""
    longest, low, high = max(map(len, pieces)), 36, 84
    page = np.full((len(pieces), high - low + 4, longest, 3), 255, np.uint8)
    for roll, piece in zip(page, pieces, strict=True):
        roll[-4:] = 225
        roll[:, len(piece) :] = 225
        for step, pitches in enumerate(piece):
            for pitch, colour in zip(pitches, COLOURS, strict=True):
                if low <= pitch < high:
                    roll[high - 1 - pitch, step] = colour
    return Image.fromarray(page.reshape(-1, longest, 3).repeat(scale, 0).repeat(2 * scale, 1))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Chorales.")
    parser.add_argument("--data", type=Path, help="Jsb16thSeparated.json")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--folder", type=Path, default=Path("chorales"))
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)

    pieces = [piece[i : i + STEPS] for piece in read(options.data) for i in range(0, len(piece) - STEPS + 1, EVERY)]
    rows = np.array([to_events(piece) for piece in pieces])  # (n, steps, 4): grids, whose places the model knows
    model = SequenceVAE(32, width=96, batch_size=16, max_epochs=options.epochs, random_state=0).fit(rows)

    made = [from_events(row) for row in model.sample(6, temperature=0.8, random_state=0)]
    for i, piece in enumerate(made, start=1):
        (options.folder / f"chorale_{i}.mid").write_bytes(midi(piece))
    first, last = model.transform(rows[[0, -1]])
    way = model.inverse_transform(first + np.linspace(0, 1, 5)[:, None] * (last - first))
    picture(made).save(options.folder / "chorales.png")
    picture([from_events(row) for row in way]).save(options.folder / "way.png")

    full = np.concatenate(made)
    seen = {tuple(np.sort(chord % 12)) for piece in pieces for chord in piece}
    results = {
        "voices": float((full >= 0).mean()),
        "known_chords": float(np.mean([tuple(np.sort(chord % 12)) in seen for chord in full])),
        "changes": float(np.mean([np.diff(piece, axis=0) != 0 for piece in made])),
    }
    print(f"{results['known_chords']:.0%} of the chords of new pieces occur in the pieces of training")
    print(f"a voice changes its note at {results['changes']:.0%} of the steps; see {options.folder}")
    return results


if __name__ == "__main__":
    main()
