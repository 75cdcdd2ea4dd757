"""The page of the benchmark of sequences."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "worked.md"
SIZES = {
    "full": "On a GPU, all rows",
    "small": "Some minutes on one core of a CPU, few rows",
}
COLUMNS = {  # of each job: heading, name, format
    "levels": (
        ("nats", "nll", ".1f"),
        ("KL", "kl", ".1f"),
        ("playable", "playable", ".3f"),
        ("copies", "copied", ".3f"),
        ("2x2, new from real", "new_from_real_2", ".2f"),
        ("real from new", "real_from_new_2", ".2f"),
        ("3x3, new from real", "new_from_real_3", ".2f"),
        ("real from new", "real_from_new_3", ".2f"),
        ("seconds", "seconds", ".0f"),
    ),
    "chorales": (
        ("nats a step", "nll", ".2f"),
        ("KL of a piece", "kl", ".1f"),
        ("units in use", "active_units", "d"),
        ("parameters", "parameters", ",d"),
        ("epochs", "epochs", "d"),
        ("seconds", "seconds", ".0f"),
    ),
    "molecules": (
        ("valid", "valid", ".3f"),
        ("unique", "unique", ".3f"),
        ("new", "new", ".3f"),
        ("rebuilt", "rebuilt", ".3f"),
        ("nats", "nll", ".1f"),
        ("KL", "kl", ".1f"),
        ("parameters", "parameters", ",d"),
        ("epochs", "epochs", "d"),
        ("seconds", "seconds", ".0f"),
    ),
    "text": (
        ("nats", "nll", ".1f"),
        ("KL", "kl", ".1f"),
        ("mutual information", "mutual_information", ".2f"),
        ("units in use", "active_units", "d"),
        ("parameters", "parameters", ",d"),
        ("epochs", "epochs", "d"),
        ("seconds", "seconds", ".0f"),
    ),
}
TITLES = {"levels": "Levels", "chorales": "Chorales", "molecules": "Molecules", "text": "Sentences"}
NOTES = {
    "levels": """Nats of a held-out window, lower is better; divergences of tile patterns likewise. `real` is windows of levels
of training beside those held out: what a perfect model would reach.""",
    "chorales": """Published for these pieces, in nats a step of all 88 keys: RNN-RBM 6.27, RNN-NADE 5.56
(Boulanger-Lewandowski et al., 2012); not run again here.""",
    "molecules": """Shares of what was drawn that are molecules to rdkit, of these that differ, of these that are not among
the rows of training; and of held-out molecules that are rebuilt letter by letter.""",
    "text": "Nats of a held-out sentence, lower is better. A language model has no code.",
}


def render(results):
    """Write the page."""
    lines = [
        "# Levels, chorales, molecules, sentences",
        "",
        "Written by `python benchmarks/sequences.py --render` from",
        "[benchmarks/results/sequences.json](../benchmarks/results/sequences.json); the script says how all is measured. A dash:",
        "the method has no such number, or it was not measured. Seconds are of training, on a machine that others used too.",
    ]
    if not any(key.startswith("full") for key in results):
        lines.append(
            "The full size, all rows on a GPU, has not been run yet: what is here is small, and so are the models."
        )
    for size, about in SIZES.items():
        for job, columns in COLUMNS.items():
            rows = {k: v for k, v in results.items() if k.startswith(f"{size} | {job} | ")}
            if not rows:
                continue
            lines += ["", f"## {TITLES[job]}", "", f"{about}.", NOTES[job], ""]
            lines.append("| model | setting | " + " | ".join(heading for heading, _, _ in columns) + " |")
            lines.append("|---|---|" + "---:|" * len(columns))
            for key, found in rows.items():
                cells = [format(found[name], form) if name in found else "-" for _, name, form in columns]
                lines.append("| " + " | ".join([*key.split(" | ")[2:], *cells]) + " |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
