"""The results of speed.py as a page."""

from __future__ import annotations

HEAD = """# Speed

Written by `python benchmarks/speed.py --render` from [benchmarks/results/speed.json](../benchmarks/results/speed.json); the
script says how everything is measured. All figures are of one machine ({processor}, {cores} cores, {threads} threads, torch
{torch}, Python {python}), the two sides of a ratio taking turns; medians, with the smallest and the largest in brackets.
"""


def told(value, digits=2):
    """A median and its extremes."""
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f} to {value['max']:.{digits}f})"


def table(head, rows):
    """A table in Markdown, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def overhead(found):
    rows = [
        [name, f"{case['steps per second']:.0f}", told(case["loop"]), told(case["fit"])] for name, case in found.items()
    ]
    return (
        "## Against a loop by hand\n\nSteps a second of `fit` over those of a hand-written loop over resident tensors, "
        "with the same network, loss and fused AdamW: of the epochs alone, and of all that `fit` does, from reading and "
        "checking the rows to the fitted model, in a few passes over the rows. Above 1 is faster.\n\n"
        + table(["network", "steps per second", "epochs", "all of fit"], rows)
    )


def profile(found):
    parts = list(next(iter(found.values())))
    rows = [[name, *(f"{case[part]['median']:,.0f}" for part in parts)] for name, case in found.items()]
    return (
        "## Where the time of a step goes\n\nMicroseconds; a step of the loop, taken apart.\n\n"
        + table(["", *parts], rows)
        + "\nAt batches of 32 over a fifth of a step goes into the optimiser, whose work does not depend on the batch: it reads "
        "and writes each weight, its gradient and two moments. What would come next is one pass over all of them, in one "
        "tensor, as soon as a gradient is there.\n"
    )


def peers(found):
    packages = list(dict.fromkeys(p for case in found.values() for p in case["times ours"]))
    names = {"loader": "PyTorch, DataLoader", "sklearn": "scikit-learn, MLPRegressor(X, X)"}
    rows = [
        [names.get(p, p), *(told(c["times ours"][p], 1) if p in c["times ours"] else "-" for c in found.values())]
        for p in packages
    ]
    seconds = "; ".join(
        f"{name}: {case['rows']} rows, {case['epochs']} epochs, ours {told(case['ours, seconds'])} s"
        for name, case in found.items()
    )
    return (
        "## Against other packages\n\nThe same network (784-64-784, ReLU and sigmoid), batch size, optimiser (Adam, "
        f"1e-3) and epochs: how many times as long as ours a fit takes. {seconds}. Imports are not counted; what a "
        "package does besides training is (PyOD scores the rows, Lightning sets up its trainer).\n\n"
        + table(["package", *found], rows)
    )


def quality(found):
    parts = ["## Time to a quality\n"]
    for name, case in found.items():
        if "by hand" in case:
            continue
        mine = case["ours"]
        rows = [["Diabolo", told(mine["seconds"]), told(mine["mse"], 5), "1", ""]]
        for package in ("loader", "keras"):
            if package in case:
                c = case[package]
                label = "PyTorch, DataLoader" if package == "loader" else "Keras (torch)"
                rows.append(
                    [label, f"{c['seconds']:.1f}", f"{c['mse']:.5f}", str(c["epochs"]), f"{c['times ours']:.0f}"]
                )
        parts.append(
            f"{name}, MNIST: seconds from `fit` on, and the error of the test rows then. The others have the recipe of tutorials "
            "(Adam, 1e-3, batches of 32), and stop after 12 epochs where they have not come to 0.0040. Ours: "
            '`Autoencoder(64, hidden=(), code_activation="relu", likelihood="sigmoid_gaussian", scale=None, optimizer="soap", '
            "batch_size=256, max_epochs=1, learning_rate=0.015)`.\n"
        )
        parts.append(table(["", "seconds", "test MSE", "epochs", "times ours"], rows))
    rows = []
    for name, case in found.items():
        if "by hand" in case:
            hand, mine = case["by hand"], case["ours"]
            rows.append(
                [
                    name,
                    f"{hand['value']['median']:.5g} in {hand['epochs']} epochs, {hand['seconds']['median']:.1f} s",
                    f"{mine['value']['median']:.5g} in {mine['epochs']} epochs, {mine['seconds']['median']:.1f} s",
                    "yes" if case["reached"] else "no",
                    told(case["by hand over ours"], 1),
                ]
            )
    parts.append(
        "What a loop by hand with Adam (1e-3, resident tensors) reaches, and how long ours takes to be as good on test rows "
        "(squared error; for the VAE the negative bound in nats):\n"
    )
    parts.append(table(["network", "by hand", "ours", "as good", "times ours"], rows))
    return "\n".join(parts)


def roofline(found):
    rows = [
        [
            p,
            told(c["products, GFLOP/s"], 0),
            told(c["fit, GFLOP/s"], 0),
            told(c["fit over products"]),
            told(c["loop by hand over products"]),
        ]
        for p, c in found.items()
    ]
    return (
        "## Against the machine\n\n784-1024-1024-64, batches of 512: floating-point operations of the matrix products of a step "
        "over its seconds, and over those of the bare products of the same shapes.\n\n"
        + table(["precision", "products, GFLOP/s", "fit, GFLOP/s", "fit over products", "loop by hand"], rows)
    )


def inference(found):
    rows = [
        [f"{name}, `{method}`", f"{c['rows per second']:,.0f}", told(c["of the bare module"])]
        for name, case in found.items()
        for method, c in case.items()
    ]
    return "## Inference\n\nOver the bare module on the same batches, in inference mode.\n\n" + table(
        ["", "rows per second", "of the bare module"], rows
    )


def memory(found):
    rows = [[name, *(f"{v:.0f}" for v in case.values())] for name, case in found.items()]
    head = ["", *next(iter(found.values()))]
    return (
        "## Memory\n\nPeak of a process, in MiB, beyond one that holds the rows and has fitted a small model: `fit` of rows "
        "that need no scaling, `fit` of rows that are scaled (into a copy), and `score_samples`. What `fit` adds to rows that "
        "need no scaling is what the allocator keeps of batches that were freed: it does not grow with rows or epochs, and "
        "stayed below 250 MiB.\n\n" + table(head, rows)
    )


def start(found):
    return "## Start\n\n" + table(["fresh process", "seconds"], [[k, told(v, 3)] for k, v in found.items()])


def render(results):
    """Return the page."""
    sections = (overhead, profile, peers, quality, roofline, inference, memory, start)
    written = [section(results[section.__name__]) for section in sections if section.__name__ in results]
    return "\n".join([HEAD.format(**results["machine"]), *written])
