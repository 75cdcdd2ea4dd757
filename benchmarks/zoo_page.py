"""Write docs/benchmarks.md from benchmarks/results/zoo.json: `python benchmarks/zoo.py --render`."""

from __future__ import annotations

TITLES = {"digits": "The digits of scikit-learn", "mnist": "MNIST", "fashion": "Fashion-MNIST"}
NAMES = {
    "diabolo": "**diabolo**",
    "diabolo defaults": "diabolo, defaults",
    "pythae": "pythae",
    "pythae defaults": "pythae, rate 1e-4",
    "autoencoders": "autoencoders",
}
HEAD = "| model | package | MSE x 1000 | NLL, nats | units in use | linear | 1-NN | trust | codes used | CPU s | times ours |"
INTRO = """# Benchmark of the zoo

Written by `python benchmarks/zoo.py --render` from [benchmarks/results/zoo.json](../benchmarks/results/zoo.json); the script
says how to run it. Every package gets the same rows with pixels in [0, 1], the same net ({net}), the same epochs ({epochs}),
batches of {batch} and one thread; a tenth of the rows is for validation. All else is the package's own default: optimiser,
learning rate, likelihood, weights of terms. Three things are not. pythae has the learning rate of its README, 1e-3; its default,
1e-4, which learns far less in so few steps, is a row of its own where it was run. The package autoencoders gets a net with an
activation before the code, which its own `mlp` leaves out. Quantised codes have the same number of bits in every package.
pythae is 0.1.2, autoencoders 0.6.8; decoders of pythae end in a sigmoid, as its own do, the other two are linear. Codes are
deterministic: the centre of the posterior.

Rows of variational models compare defaults as much as methods. Diabolo learns the standard deviation of the pixels; pythae holds
it at 1, and autoencoders adds a squared error averaged over pixels to a divergence summed over the code. Both then weigh the
divergence many times more, and codes of pixels in [0, 1] carry little or nothing.

- **MSE**: of the test rows rebuilt from their codes.
- **NLL**: negative log-likelihood of 1,000 test rows by importance sampling, {draws} draws of the model's own posterior under its
  own prior. So that packages compare, pixels are Gaussian around the decoder's output with one standard deviation for all,
  chosen for each model on training rows. It is an upper bound in nats; lower is better. A dash: the code has no density.
- **units in use**: of codes that are distributions, those that have more than 1 % of their variance from the row (the criterion
  of Burda et al., 2016, for units of variance one); of others, those with a variance above 1 % of the largest.
- **linear**, **1-NN**: test accuracy of logistic regression and of the nearest neighbour on the codes, fitted on those of the
  training rows. **trust**: trustworthiness of 1,000 test codes, 5 neighbours.
- **codes used**: share of a quantiser's codes that occur in the training rows, and the bits of a row's code.
- **CPU s**: processor seconds of the fit; packages take turns in one run. **times ours**: divided by diabolo's, same net.

`diabolo, defaults` has every parameter at its default but the size of the code (16; 256 units for sparse dictionaries): a larger
net, which starts at the principal components, and as many steps as the number of rows asks for.
"""


def number(value, places):
    return "-" if value is None else f"{value:.{places}f}"


def line(name, library, row, base):
    """One row of a table."""
    median = row.get("median") or {}
    if "mse" not in median:
        error = row["runs"][-1]["error"].replace("|", "\\|")
        return f"| {name} | {NAMES[library]} | fails: {error} |" + " |" * 8
    m = median.get
    cells = [number(1000 * m("mse"), 2), number(m("nll"), 1), f"{m('active'):.0f} of {m('width'):.0f}"]
    cells += [number(m(k), 3) for k in ("linear", "knn", "trust")]
    cells.append(f"{m('usage'):.0%}, {m('bits'):.0f} bits" if m("usage") is not None else "-")
    cells.append(number(m("seconds"), 1))
    cells.append(number(m("seconds") / base, 1) if base and library != "diabolo" else "-")
    return f"| {name} | {NAMES[library]} | " + " | ".join(cells) + " |"


def table(rows, libraries):
    """A table of some packages' rows, model by model; the model's name stands at its first row."""
    out = [HEAD, "|---|---|" + "---:|" * 9]
    for name, packages in rows.items():
        base = (packages.get("diabolo", {}).get("median") or {}).get("seconds")
        shown = name
        for library in libraries:
            if library in packages and packages[library]["runs"]:
                out.append(line(shown, library, packages[library], base))
                shown = ""
    return "\n".join(out)


def count(rows):
    """How often packages with the same net and budget are ahead, measure by measure."""
    out = []
    for peer in ("pythae", "autoencoders"):
        pairs = []
        for packages in rows.values():
            ours, theirs = ((packages.get(k) or {}).get("median") or {} for k in ("diabolo", peer))
            if ours and theirs:
                pairs.append((ours, theirs))
        if not pairs:
            continue
        better = []
        for key, title, sign in (("mse", "MSE", -1), ("nll", "NLL", -1), ("linear", "linear", 1), ("knn", "1-NN", 1)):
            both = [(o[key], t[key]) for o, t in pairs if key in o and key in t]
            better.append(f"{title} {sum(sign * (o - t) > 0 for o, t in both)} of {len(both)}")
        ratios = sorted(t["seconds"] / o["seconds"] for o, t in pairs)
        out.append(
            f"diabolo is ahead of {peer} in: {', '.join(better)}; {peer} takes {ratios[len(ratios) // 2]:.1f} times as long "
            f"(median; {ratios[0]:.1f} to {ratios[-1]:.1f})."
        )
    return "\n".join(f"- {text}" for text in out)


def published(cases):
    """The table of what papers report."""
    out = ["| | ours | published | epochs of ours | protocol | source |", "|---|---:|---:|---:|---|---|"]
    for name, c in cases.items():
        cells = (name, f"{c['ours']:.4g}", f"{c['published']:.4g}", c["epochs"], c["protocol"], c["source"])
        out.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(out)


def render(results):
    """Return the page."""
    about = results["machine"]
    parts = [
        INTRO.format(net=about["net"], epochs=about["epochs"], batch=about["batch"], draws=about["draws"]),
        f"Python {about['python']}, torch {about['torch']}, {about['threads']} thread.",
    ]
    for data, title in TITLES.items():
        if data not in results:
            continue
        rows, told = results[data]["rows"], results[data]
        seeds = max(len(r["runs"]) for packages in rows.values() for r in packages.values())
        parts.append(
            f"## {title}\n\n{told['train']:,} training rows, {told['test']:,} test rows; medians of {seeds} seed(s)."
        )
        shared = {k: v for k, v in rows.items() if {"pythae", "autoencoders"} & set(v)}
        alone = {k: v for k, v in rows.items() if k not in shared}
        if shared:
            parts.append("### Models that a peer has too\n\n" + count(shared))
            parts.append(table(shared, NAMES))
        if alone:
            parts.append("### Models that neither has\n\n" + table(alone, NAMES))
    if "published" in results:
        parts.append("## Published figures\n\n" + published(results["published"]))
    return "\n\n".join(part.strip() for part in parts) + "\n"
