"""The demonstration: two models on handwritten digits, measured beside principal components."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from diabolo.cli.fit import INTERRUPTED, Quiet

__all__ = ["demo"]

LATENT_DIM = 16

Measured = tuple[str, float | None, float, float | None]  # what, squared error, accuracy, seconds


def demo(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Folder for models and reports.")] = Path(
        "diabolo-demo"
    ),
    seed: Annotated[int, Parameter(help="Seed of the split and of training.")] = 0,
    max_epochs: Annotated[
        int | None, Parameter(help="Train for fewer epochs than the models plan.", show_default=False)
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Train two models on handwritten digits, measure them beside PCA, and write reports. Takes less than a minute.

    A quarter of the 1797 images is kept for the measurements. Needs no network.
    """
    from diabolo.cli.output import check_place

    check_place(output)

    from sklearn.model_selection import train_test_split

    import diabolo
    from diabolo import datasets
    from diabolo.cli.data import say
    from diabolo.report import write_report

    digits = datasets.load("digits")
    train, test, y_train, y_test = train_test_split(
        digits.X, digits.y, test_size=0.25, random_state=seed, stratify=digits.y
    )
    rows = _baselines(train, test, y_train, y_test)
    pages = []
    for cls in (diabolo.Autoencoder, diabolo.VAE):
        name = cls.__name__
        if not quiet:
            say(f"training {name}({LATENT_DIM}) on {len(train)} images")
        epochs: int | Literal["auto"] = "auto" if max_epochs is None else max_epochs
        model = cls(LATENT_DIM, max_epochs=epochs, random_state=seed, verbose=0 if quiet else 1)
        began = time.perf_counter()
        model.fit(train)
        seconds = time.perf_counter() - began
        if model.history_.stop_reason == "interrupted":
            say("interrupted")
            return INTERRUPTED
        model.set_params(verbose=0)
        accuracy = _accuracy(model.transform(train), y_train, model.transform(test), y_test)
        rows.append((f"{name}, {LATENT_DIM} numbers", _mse(model.reconstruct(test), test), accuracy, seconds))
        model.save(output / name.lower())
        pages.append(output / f"{name.lower()}.html")
        write_report(model, test, pages[-1], labels=y_test, title=f"{name} on handwritten digits")
    _show(rows, len(test))
    print(f"models:  {output / 'autoencoder'}  {output / 'vae'}")
    print(f"reports: {pages[0]}  {pages[1]}")
    return 0


def _baselines(train: Any, test: Any, y_train: Any, y_test: Any) -> list[Measured]:
    """Measure raw pixels and principal components."""
    from sklearn.decomposition import PCA

    flat, flat_test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    raw = _accuracy(flat, y_train, flat_test, y_test)
    began = time.perf_counter()
    pca = PCA(LATENT_DIM, svd_solver="full").fit(flat)
    seconds = time.perf_counter() - began
    codes = pca.transform(flat_test)
    accuracy = _accuracy(pca.transform(flat), y_train, codes, y_test)
    return [
        ("raw pixels, 64 numbers", None, raw, None),
        (f"PCA, {LATENT_DIM} numbers", _mse(pca.inverse_transform(codes), flat_test), accuracy, seconds),
    ]


def _mse(rebuilt: Any, there: Any) -> float:
    return float(((rebuilt - there) ** 2).mean())


def _accuracy(train: Any, y_train: Any, test: Any, y_test: Any) -> float:
    """Share of test rows whose nearest training row has their label."""
    from sklearn.neighbors import KNeighborsClassifier

    return float(KNeighborsClassifier(1).fit(train, y_train).score(test, y_test))


def _show(rows: list[Measured], n: int) -> None:
    from rich.table import Table

    from diabolo.cli.info import make_console

    title = f"{n} test images of handwritten digits that no model saw"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("each image as")
    for column in ("squared error of the rebuilt pixel", "digits recognised (1-NN)", "seconds to fit"):
        table.add_column(column, justify="right")
    for name, error, accuracy, seconds in rows:
        measured = (
            "-" if error is None else f"{error:.3f}",
            f"{accuracy:.1%}",
            "-" if seconds is None else f"{seconds:.1f}",
        )
        table.add_row(name, *measured)
    make_console().print(table)
    sys.stdout.write("\n")
