"""Molecules: learn the language of SMILES, write new molecules, and see how many of them are any.

SMILES are read from a text file, one a line, such as those of ZINC (zinc.docking.org); what follows the first blank of a line
is not read. Without a file, chains with a few groups are made up. With rdkit (``pip install rdkit``) new molecules are checked
for their valences and drawn to molecules.png; without it, only for brackets and rings that are closed.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np

from diabolo import SequenceVAE

EPOCHS = 40
ATOMS = r"Cl|Br|\[.*?\]|."  # an atom is one token


def read(path: Path | None) -> list[str]:
    """Return SMILES."""
    if path is not None:
        return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    rng, made = np.random.default_rng(0), set()
    parts = ["C", "CC", "C(C)", "C(=O)", "O", "N", "c1ccccc1", "C(F)", "C1CCCC1", "C(O)"]
    while len(made) < 1500:
        made.add("C" + "".join(rng.choice(parts, size=rng.integers(2, 7))) + "C")
    return [sorted(made)[i] for i in rng.permutation(len(made))]


def closed(smiles: str) -> bool:
    """Tell whether all brackets and rings of SMILES are closed."""
    depth = 0
    for c in smiles:
        depth += (c == "(") - (c == ")")
        if depth < 0:
            return False
    rings = Counter(c for c in smiles if c.isdigit())
    return (
        bool(smiles)
        and not depth
        and all(n % 2 == 0 for n in rings.values())
        and smiles.count("[") == smiles.count("]")
    )


def valid(smiles: list[str]) -> list[bool]:
    """Tell which are molecules, as far as can be seen."""
    if importlib.util.find_spec("rdkit") is None:
        return [closed(s) for s in smiles]
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    return [bool(s) and Chem.MolFromSmiles(s) is not None for s in smiles]


def draw(smiles: list[str], path: Path) -> None:
    """Draw molecules, where rdkit is there to do it."""
    if importlib.util.find_spec("rdkit") is None:
        return
    from rdkit import Chem
    from rdkit.Chem import Draw

    Draw.MolsToGridImage([Chem.MolFromSmiles(s) for s in smiles], molsPerRow=6, subImgSize=(220, 180)).save(path)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Molecules.")
    parser.add_argument("--data", type=Path, help="SMILES, one a line")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--folder", type=Path, default=Path("molecules"))
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)

    rows = read(options.data)
    train, held_out = rows[:-200], rows[-200:]
    # a small weight of the divergence lets the code say nearly all of a molecule; the prior is learned from the codes
    model = SequenceVAE(48, tokens=ATOMS, width=128, beta=0.1, max_epochs=options.epochs, random_state=0).fit(train)
    model.fit_prior(train, "mixture", random_state=0)
    made = model.sample(300, random_state=0)
    right = [s for s, ok in zip(made, valid(made), strict=True) if ok]
    (options.folder / "molecules.smi").write_text("\n".join(right) + "\n")
    draw(right[:24], options.folder / "molecules.png")

    rebuilt = model.reconstruct(held_out)
    results = {
        "valid": len(right) / len(made),
        "unique": len(set(right)) / max(1, len(right)),
        "new": len(set(right) - set(train)) / max(1, len(set(right))),
        "rebuilt": float(np.mean([a == b for a, b in zip(rebuilt, held_out, strict=True)])),
    }
    print(", ".join(f"{name} {share:.0%}" for name, share in results.items()), f"; see {options.folder}", sep="")
    return results


if __name__ == "__main__":
    main()
