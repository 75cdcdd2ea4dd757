"""The report: its numbers against independent computations, its page against every kind of model and data."""

from __future__ import annotations

import base64
import copy
import json
import math
import re
import struct
import zlib
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from torch import nn

from diabolo import (
    VAE,
    AnomalyDetector,
    Autoencoder,
    ConditionalVAE,
    CustomAutoencoder,
    PosteriorCollapseWarning,
    SparseAutoencoder,
)
from diabolo.records import History
from diabolo.report import build_report, write_report
from diabolo.report import facts as facts_module
from diabolo.report.advice import advise, error_ratio
from diabolo.report.colours import MOST_GROUPS, by_label, by_number, label_text, read_labels
from diabolo.report.draw import DASH, MINUS, number, percent, ticks
from diabolo.report.facts import gather
from diabolo.report.png import LARGEST_SIDE, Painter, encode_png, heat
from rows import MODELS, QUICK, build, identify

IRIS = load_iris().data
WINE = load_wine(as_frame=True).data
DIGITS = load_digits().data[:200]


class Page(HTMLParser):
    """Reads a page as a browser would: its elements, its attributes, its text."""

    VOID = {"meta", "img", "br", "link", "input", "hr"}

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.data = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.data = data if data.startswith("{") else self.data
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def read_page(html: str) -> Page:
    """Read a page and check what holds of every one of them."""
    page = Page(html)
    assert page.open == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#"))
            if target is not None and target.startswith("#"):
                assert target[1:] in ids
        assert tag != "img" or attributes.get("alt")
    assert sum(tag == "script" for tag, _ in page.elements) == 2  # the data of the map, and the code that draws it
    assert "http" not in html.replace('http-equiv="Content', "")
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page.words)
    points = json.loads(page.data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert len(points["x"]) == len(points["y"]) == len(points["level"]) == len(points["row"])
    return page


def decode_png(data: bytes) -> np.ndarray:
    """Decode a PNG of 8-bit grey or RGB without filters, checking each checksum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + length
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    channels = {0: 1, 2: 3}[colour]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert (lines[:, 0] == 0).all()
    pixels = lines[:, 1:].reshape(height, width, channels)
    return pixels[:, :, 0] if channels == 1 else pixels


@pytest.fixture(scope="module")
def fitted() -> Autoencoder:
    return Autoencoder(2, **QUICK | {"max_epochs": 20}).fit(WINE)


@pytest.fixture(scope="module")
def collapsed() -> VAE:
    with pytest.warns(PosteriorCollapseWarning, match="the code is the same for every row"):
        return VAE(4, beta=1e4, kl_warmup=0.0, **QUICK | {"max_epochs": 40, "learning_rate": 0.02}).fit(WINE)


# numbers ----------------------------------------------------------------------------------------------------------------


def test_errors_equal_an_independent_computation(fitted):
    facts = gather(fitted, WINE)
    X, rebuilt = WINE.to_numpy(), fitted.reconstruct(WINE).to_numpy()
    np.testing.assert_allclose(facts.mse, ((X - rebuilt) ** 2).mean(), rtol=1e-9)  # the same sums in float64
    width = X.std(axis=0)
    wrong, spread = ((X - rebuilt) / width) ** 2, ((X - X.mean(axis=0)) / width) ** 2
    np.testing.assert_allclose(facts.explained, 1 - wrong.sum() / spread.sum(), rtol=1e-9)
    np.testing.assert_allclose(facts.row_error, wrong.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(facts.features.mse, ((X - rebuilt) ** 2).mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(facts.features.ratio, ((X - rebuilt) ** 2).mean(axis=0) / X.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(facts.features.loss_share, wrong.sum(axis=0) / wrong.sum(), rtol=1e-9)
    np.testing.assert_allclose(facts.scores, fitted.score_samples(WINE), rtol=1e-12)
    page = read_page(build_report(fitted, WINE))
    assert number(facts.mse) in page.words
    assert percent(facts.explained) in page.words


def test_missing_cells_are_left_out_of_every_error(fitted):
    X = WINE.to_numpy(copy=True)
    X[::3, 1] = np.nan
    X[5] = np.nan  # nothing known of this row
    facts = gather(fitted, pd.DataFrame(X, columns=WINE.columns))
    seen = ~np.isnan(X)
    error = (fitted.reconstruct(pd.DataFrame(X, columns=WINE.columns)).to_numpy() - X) ** 2
    np.testing.assert_allclose(facts.mse, error[seen].mean(), rtol=1e-9)
    np.testing.assert_allclose(facts.features.mse, np.nanmean(error, axis=0), rtol=1e-9)
    np.testing.assert_allclose(facts.features.variance, np.nanvar(X, axis=0), rtol=1e-9)
    assert facts.missing == pytest.approx(1 - seen.mean())
    assert facts.yardstick.explained is None
    assert "missing" in facts.yardstick.note
    read_page(build_report(fitted, pd.DataFrame(X, columns=WINE.columns)))


def test_the_yardstick_is_pca_on_the_scale_of_training(fitted):
    facts = gather(fitted, WINE)
    scaled = (WINE.to_numpy() - WINE.to_numpy().mean(axis=0)) / WINE.to_numpy().std(axis=0)
    pca = PCA(2).fit(scaled)
    assert facts.yardstick.explained == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-6)
    back = pca.inverse_transform(pca.transform(scaled)) * WINE.to_numpy().std(axis=0) + WINE.to_numpy().mean(axis=0)
    assert facts.yardstick.mse == pytest.approx(((back - WINE.to_numpy()) ** 2).mean(), rel=1e-6)
    # a code as wide as the data leaves nothing to compare
    assert gather(Autoencoder(13, **QUICK).fit(WINE), WINE).yardstick.explained is None


def test_no_linear_model_beats_pca_on_the_rows_that_it_saw():
    facts = gather(Autoencoder(2, **QUICK | {"hidden": ()}).fit(IRIS), IRIS)
    assert facts.explained <= facts.yardstick.explained + 1e-6  # the optimum, up to training in float32


def test_use_of_units_equals_torch(fitted):
    vae = VAE(3, **QUICK | {"max_epochs": 10}).fit(WINE)
    units = gather(vae, WINE).units
    codes = vae.transform(WINE)
    np.testing.assert_allclose(units.variance, codes.var(axis=0), rtol=1e-9)
    assert units.active.tolist() == (codes.var(axis=0) > 0.01).tolist()
    with torch.no_grad():
        scaled = torch.tensor((WINE.to_numpy() - vae.codec_.scaling.center) / vae.codec_.scaling.width)
        aux = vae.module_.double().encode(scaled).aux
        vae.module_.float()
    posterior = torch.distributions.Normal(aux["mu"], (0.5 * aux["logvar"]).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean(dim=0)
    np.testing.assert_allclose(units.kl, kl.numpy(), rtol=1e-6)  # float64, but of weights trained in float32
    assert gather(fitted, WINE).units.kl is None


def test_collapse_is_seen_and_said(collapsed):
    facts = gather(collapsed, WINE)
    assert facts.units.n_active == 0
    assert advise(facts)[0].title == "The code has collapsed"
    page = read_page(build_report(collapsed, WINE))
    assert "Collapse: every unit is inactive." in page.words
    assert "free_bits" in page.words
    assert any(a.get("class") == "warning" for _, a in page.elements)


def test_dead_units_of_a_sparse_code():
    sparse = SparseAutoencoder(6, **QUICK | {"max_epochs": 5}).fit(IRIS)
    with torch.no_grad():  # three units that can never fire
        last = [m for m in sparse.module_.encoder.modules() if isinstance(m, nn.Linear)][-1]
        last.weight[:3] = 0
        last.bias[:3] = -1
    units = gather(sparse, IRIS).units
    codes = sparse.transform(IRIS)
    assert not units.active[:3].any()
    assert units.nonzero == pytest.approx((codes != 0).sum(axis=1).mean())


def test_blame_names_the_odd_cell(fitted):
    X = WINE.copy()
    X.loc[17, "ash"] = 40.0
    facts = gather(fitted, X)
    assert facts.scores.argmin() == 17
    assert facts.names[int(facts.blame(np.array([17]))[0].argmax())] == "ash"
    page = read_page(build_report(fitted, X))
    assert "ash 40, rebuilt as" in page.words


def test_a_detector_shows_its_threshold_and_what_it_flags():
    detector = AnomalyDetector(Autoencoder(2, **QUICK), contamination=0.1, random_state=0).fit(WINE)
    facts = gather(detector, WINE)
    np.testing.assert_allclose(facts.blame(np.arange(4)), detector.explain(WINE[:4]).to_numpy(), rtol=1e-9)
    flagged = int((detector.predict(WINE) == -1).sum())
    page = read_page(build_report(detector, WINE))
    assert number(detector.offset_) in page.words
    assert f"flagged: {flagged} of 178 rows" in page.words
    assert page.words.count("flagged (") + sum(a.get("class") == "left flag" for _, a in page.elements) == 10
    assert "A large share of the rows is flagged" in [a.title for a in advise(gather(detector, WINE * 3))]


# advice -----------------------------------------------------------------------------------------------------------------


def titles(model: Any, X: Any) -> list[str]:
    return [advice.title for advice in advise(gather(model, X))]


def fade(model: Autoencoder, factor: float) -> None:
    """Weaken a decoder; at 0 it answers the centre of the data, whatever the code."""
    with torch.no_grad():
        for weights in model.module_.decoder.parameters():
            weights *= factor


def test_nothing_wrong_is_said_when_nothing_is():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(200, 6))
    model = Autoencoder(2, hidden=(), max_epochs=60, learning_rate=0.02, random_state=0, device="cpu").fit(X)
    assert titles(model, X) == []
    assert "Nothing looks wrong" in read_page(build_report(model, X)).words


def with_history(model: Autoencoder, rows: list[dict[str, float]], reason: str, best: int = 0) -> Autoencoder:
    """Return a copy of a fitted model that trained as told."""
    model = copy.deepcopy(model)
    rows = [{"epoch": i + 1, "seconds": float(i), **row} for i, row in enumerate(rows)]
    model.history_ = History(rows=rows, stop_reason=reason, best_epoch=best or len(rows))
    return model


@pytest.mark.parametrize(
    ("likelihood", "perfect"),
    [("gaussian", 13 * 0.5 * math.log(2 * math.pi)), ("laplace", 13 * math.log(2)), ("bernoulli", 0.0)],
)
def test_advice_on_overfitting_compares_errors_not_losses(fitted, likelihood, perfect):
    # the loss of a perfect reconstruction of 13 columns, and on top of it an error of 2 in training and 5 in validation
    rows = [
        {"reconstruction": perfect + 2.0, "val_reconstruction": perfect + 5.0},
        {"reconstruction": perfect + 1.0, "val_reconstruction": perfect + 9.0},
    ]
    model = with_history(fitted, rows, "stopped by a callback", best=1)
    model.choices_ = {**model.choices_, "likelihood": likelihood}
    assert error_ratio(gather(model, WINE)) == pytest.approx(2.5)
    assert "Overfitting" in titles(model, WINE)
    rows[0]["val_reconstruction"] = perfect + 2.5
    assert "Overfitting" not in titles(with_history(model, rows, "stopped by a callback", best=1), WINE)
    assert error_ratio(gather(with_history(fitted, [{"reconstruction": 1.0}], "interrupted"), WINE)) is None


def test_overfitting_under_a_learned_scale(fitted):
    # under a scale learned in training the squared error is one a column there: 6.5 nats more is an error of 2 a column
    model = with_history(fitted, [{"reconstruction": -4.0, "val_reconstruction": 2.5}], "stopped by a callback")
    model.choices_ = {**model.choices_, "likelihood": "learned_gaussian"}
    assert error_ratio(gather(model, WINE)) == pytest.approx(2.0)


def test_advice_on_training_that_ended_early(fitted):
    falling = [{"val_mse": v} for v in (9.0, 7.0, 5.0, 4.0, 3.0, 2.0)]
    assert "Training was cut short" in titles(with_history(fitted, falling, "reached max_epochs=6"), WINE)
    short = advise(gather(with_history(fitted, falling, "reached max_time=3 s"), WINE))[0]
    assert "brought it down by 60%" in short.text
    assert "Raise max_time." in short.text
    level = [{"val_mse": v} for v in (9.0, 7.0, 5.0, 4.9, 4.9, 4.9)]
    assert "Training was cut short" not in titles(with_history(fitted, level, "reached max_epochs=6"), WINE)
    model = with_history(fitted, level, "interrupted")
    model.history_.events.append("epoch 2: the loss was not finite; went back to the last good weights")
    found = titles(model, WINE)
    assert "Training was interrupted" in found
    assert "The loss was not finite at times" in found
    assert "epoch 2: the loss was not finite" in read_page(build_report(model, WINE)).words


def test_advice_on_the_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 12))
    X[:, 3] = 7.0
    X[rng.random(X.shape) < 0.4] = np.nan
    found = titles(Autoencoder(2, **QUICK).fit(X), X)
    assert "Many cells are missing" in found
    assert "Some columns are constant" in found
    Y = np.where(np.arange(12) == 4, 50.0, 1.0) * rng.normal(size=(80, 12))
    model = Autoencoder(2, scale=None, **QUICK).fit(Y)
    fade(model, 0.0)
    assert "A few columns make most of the error" in titles(model, Y)


def test_advice_when_the_reconstruction_is_poor():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6))  # two components rebuild it without error
    model = Autoencoder(2, **QUICK).fit(X)
    fade(model, 0.8)
    assert "Principal components rebuild these rows better" in titles(model, X)
    noise = rng.normal(size=(100, 20))
    assert "The code keeps less than half of the variance" in titles(Autoencoder(2, **QUICK).fit(noise), noise)
    fade(model, 0.0)
    facts = gather(model, X)
    assert facts.explained == pytest.approx(0.0, abs=1e-9)  # the mean of each column is all that is left
    assert "The reconstruction is no better than the mean" in titles(model, X)


# the page ---------------------------------------------------------------------------------------------------------------

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }}", "</script><b>"]


@pytest.mark.parametrize("model", [VAE(2, **QUICK), AnomalyDetector(Autoencoder(2, **QUICK))], ids=identify)
def test_hostile_names_are_shown_and_do_nothing(model):
    X = pd.DataFrame(IRIS, columns=HOSTILE, index=[f"</script><i>{i}" for i in range(len(IRIS))])
    labels = [HOSTILE[t] for t in load_iris().target]
    html = build_report(model.fit(X), X, labels=labels, title=HOSTILE[0])
    page = read_page(html)  # counts scripts, refuses handlers and addresses
    for name in HOSTILE:
        assert name in page.words
    assert "alert(1)</script>" not in html
    assert not any(tag in ("b", "i") and "alert" in str(a) for tag, a in page.elements)
    assert json.loads(page.data)["label"][0] in HOSTILE


@pytest.mark.parametrize("row", MODELS, ids=identify)
@pytest.mark.parametrize("kind", ["table", "images"])
def test_every_model_makes_a_page(row, kind):
    X = IRIS if kind == "table" else DIGITS.reshape(-1, 8, 8)
    kinds = np.arange(len(X)) % 3  # the condition of models that have one
    model = clone(row.estimator).fit(X, kinds)
    page = read_page(build_report(model, X, labels=kinds))
    assert ("Generated rows" in page.words) == model.module_.bottleneck.generative
    assert sum(tag == "img" for tag, _ in page.elements) > (40 if kind == "images" else -1)


def test_a_report_without_the_condition_says_so():
    kinds = np.arange(len(IRIS)) % 3
    model = ConditionalVAE(2, max_epochs=2, hidden=(16,), random_state=0).fit(IRIS, kinds)
    assert "The condition is not known" not in read_page(build_report(model, IRIS, condition=kinds)).words
    words = read_page(build_report(model, IRIS)).words
    assert "The condition is not known" in words
    assert "100% of these rows came without it" in words


TABLES = {
    "numpy": IRIS,
    "float32": IRIS.astype(np.float32),
    "integers": (IRIS * 10).astype(np.int64),
    "binary": np.greater(IRIS, 3),
    "list": IRIS[:20].tolist(),
    "pandas": pd.DataFrame(IRIS, columns=list("abcd"), index=np.arange(150) * 7),
    "polars": pl.DataFrame({"a": IRIS[:, 0], "b": [None, *range(149)]}),
    "pyarrow": pa.table({"a": IRIS[:, 0], "b": IRIS[:, 1], "c": IRIS[:, 2]}),
    "torch": torch.tensor(IRIS),
    "missing": np.where(np.random.default_rng(0).random(IRIS.shape) < 0.3, np.nan, IRIS),
    "one row": IRIS[:1],
    "two rows": IRIS[:2],
    "one column": IRIS[:, :1],
    "constant column": np.column_stack([IRIS, np.full(150, 0.1)]),
    "all constant": np.full((30, 3), 2.5),
    "huge numbers": IRIS * 1e12 + 1e15,
    "wide": np.random.default_rng(0).normal(size=(30, 90)),
    "images": DIGITS.reshape(-1, 8, 8),
    "image tensor": torch.tensor(DIGITS.reshape(-1, 1, 8, 8), dtype=torch.float32),
    "colour images": np.random.default_rng(0).integers(0, 255, (20, 3, 6, 9)).astype(np.uint8),
    "two channels": np.random.default_rng(0).normal(size=(20, 2, 5, 4)),
    "missing pixels": np.where(np.arange(64).reshape(8, 8) == 9, np.nan, DIGITS[:30].reshape(-1, 8, 8)),
    "one image": DIGITS[:1].reshape(1, 8, 8),
    "large images": np.random.default_rng(0).random((6, 130, 70)).astype(np.float32),
    "square table": DIGITS,
}


PICTURES = {name for name in TABLES if "image" in name} | {"two channels", "missing pixels", "square table"}
HARD = ("missing", "one row", "one column", "all constant", "one image")


@pytest.mark.parametrize(
    ("model", "name"),
    [(VAE(3, **QUICK), name) for name in TABLES] + [(Autoencoder(2, **QUICK), name) for name in HARD],
    ids=identify,
)
@pytest.mark.filterwarnings("ignore:posterior collapse")  # some of the data have nothing to encode
def test_every_kind_of_data_makes_a_page(model, name):
    X = TABLES[name]
    html = build_report(clone(model).fit(X), X)
    page = read_page(html)
    assert len(html) < 700_000
    assert any(tag == "img" for tag, _ in page.elements) == (name in PICTURES)
    if name == "pandas":  # rows go by their own labels
        assert sorted(int(row) for row in json.loads(page.data)["row"]) == list(range(0, 1050, 7))


def test_a_detector_of_images_and_a_custom_model():
    images = DIGITS.reshape(-1, 8, 8)
    read_page(build_report(AnomalyDetector(VAE(2, **QUICK), random_state=0).fit(images), images))
    custom = CustomAutoencoder(build=build, max_epochs=2, random_state=0).fit(IRIS)
    assert gather(custom, IRIS).n_parameters == sum(p.numel() for p in custom.module_.parameters())
    read_page(build_report(custom, IRIS))


def test_the_map_of_a_code_of_one_two_or_three_units():
    for size, words in ((1, "The code has one unit"), (2, "The code itself"), (3, "by principal components")):
        model = Autoencoder(size, **QUICK).fit(IRIS)
        page = read_page(build_report(model, IRIS))
        assert words in page.words
        points = json.loads(page.data)
        codes = model.transform(IRIS) if size < 3 else PCA(2).fit_transform(model.transform(IRIS))
        order = [int(row) for row in points["row"]]
        assert sorted(order) == list(range(150))
        # written to five digits; the sign of a principal component is a matter of taste
        np.testing.assert_allclose(np.abs(points["x"]), np.abs(codes[order, 0]), rtol=1e-4)


def test_many_rows_are_sampled_and_the_page_says_so(fitted, monkeypatch):
    monkeypatch.setattr(facts_module, "MAX_ROWS", 50)
    facts = gather(fitted, WINE)
    assert len(facts.index) == 50
    assert len(facts.scores) == 178
    np.testing.assert_allclose(facts.values, WINE.to_numpy()[facts.index])
    page = read_page(build_report(fitted, WINE, labels=np.arange(178.0)))
    assert "a fixed random sample of 50 rows" in page.words
    assert len(json.loads(page.data)["x"]) == 50
    assert str(int(np.argmin(facts.scores))) in page.words  # anomalies are sought among all rows


def test_the_model_and_the_generators_are_left_alone(fitted):
    vae = VAE(2, **QUICK).fit(IRIS)
    weights = {k: v.clone() for k, v in vae.module_.state_dict().items()}
    history, choices = json.dumps(vae.history_.to_json()), dict(vae.choices_)
    torch_state = torch.get_rng_state()
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    X = IRIS.copy()
    first = build_report(vae, X, labels=X[:, 0])
    assert first == build_report(vae, X, labels=X[:, 0])
    assert all(torch.equal(v, weights[k]) for k, v in vae.module_.state_dict().items())
    assert not vae.module_.training
    assert (json.dumps(vae.history_.to_json()), vae.choices_) == (history, choices)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.random(3) == expected).all()  # noqa: NPY002
    assert (X == IRIS).all()


def test_the_file_is_written(fitted, tmp_path):
    path = write_report(fitted, WINE, tmp_path / "deep" / "report.html", title="Wine & more")
    assert path == tmp_path / "deep" / "report.html"
    assert path.read_text(encoding="utf-8") == build_report(fitted, WINE, title="Wine & more")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert write_report(fitted, WINE, str(path)).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_what_cannot_be_reported_is_refused(fitted):
    for model in (Autoencoder(), AnomalyDetector()):
        with pytest.raises(NotFittedError):
            build_report(model, WINE)
    with pytest.raises(TypeError, match="fitted autoencoder or AnomalyDetector; got PCA"):
        build_report(PCA(), WINE)
    with pytest.raises(ValueError, match="one label for each of the 178 rows"):
        build_report(fitted, WINE, labels=[1, 2, 3])


# drawing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 5, 3)])
def test_png_round_trip(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(decode_png(encode_png(pixels)), pixels)


def decode_uri(uri: str) -> np.ndarray:
    return decode_png(base64.b64decode(uri.removeprefix("data:image/png;base64,")))


def test_pictures_share_one_scale():
    rows = np.array([[0.0, 5.0, 10.0, np.nan], [20.0, -3.0, 10.0, 0.0]])
    painter = Painter((1, 2, 2), rows[:1])
    np.testing.assert_array_equal(decode_uri(painter.paint(rows[0])), [[0, 128], [255, 0]])
    np.testing.assert_array_equal(decode_uri(painter.paint(rows[1])), [[255, 0], [255, 0]])  # clipped
    colour = np.arange(12.0).reshape(1, 12)
    expected = np.rint(colour.reshape(3, 2, 2).transpose(1, 2, 0) / 11 * 255)
    np.testing.assert_array_equal(decode_uri(Painter((3, 2, 2), colour).paint(colour[0])), expected)


def test_large_pictures_are_averaged_down():
    image = np.zeros((1, 130, 66))
    image[:, :3, :3] = 1.0  # one block of three by three pixels, as 130 / 48 rounds up to three
    small = decode_uri(Painter((1, 130, 66), image).paint(image.ravel()))
    assert max(small.shape) <= LARGEST_SIDE
    assert small[0, 0] == 255
    assert small.sum() == 255


def test_heat_runs_from_zero_to_the_largest():
    uri, top = heat(np.array([[0.0, 4.0], [2.0, np.nan]]))
    assert top == 4.0
    pixels = decode_uri(uri)
    np.testing.assert_array_equal(pixels[0], [[68, 1, 84], [253, 231, 37]])  # the ends of viridis
    np.testing.assert_array_equal(pixels[1, 1], [128, 128, 128])
    assert heat(np.zeros((2, 2)))[1] == 0.0


def test_labels_become_groups_or_a_scale():
    words = by_label(np.array(["b", "a", None, "b"], dtype=object))
    assert [label_text(v) for v in (None, np.nan, pd.NA, pd.NaT, 2.0, 2.5, "x")] == ["missing"] * 4 + ["2", "2.5", "x"]
    assert [(g.name, g.count) for g in words.groups] == [("a", 1), ("b", 2), ("missing", 1)]
    assert words.level.tolist() == [1, 0, 2, 1]
    digits = by_label(np.array([10.0, 2.0, np.nan, 2.0]))
    assert [g.name for g in digits.groups] == ["2", "10", "missing"]
    assert len({(g.colour, g.shape) for g in by_label(np.arange(MOST_GROUPS)).groups}) == MOST_GROUPS
    many = by_label(np.array([f"name {i // 2 if i < 50 else i}" for i in range(60)]))
    assert len(many.groups) == MOST_GROUPS + 1
    assert many.groups[-1].name == "other"
    assert sum(g.count for g in many.groups) == 60
    assert by_label(np.linspace(0, 1, 50)).groups == ()
    flat = by_number(np.array([3.0, 3.0, np.nan]))
    assert flat.level[0] == flat.level[1] != flat.level[2]
    assert read_labels(np.ones((3, 1)), 3).shape == (3,)
    assert read_labels(None, 3) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12345.0, "12,345"),
        (-1.5, f"{MINUS}1.5"),
        (0.123456, "0.1235"),
        (1234.567, "1,235"),
        (1.5e-7, f"1.50e{MINUS}7"),
        (math.nan, DASH),
        (None, DASH),
        (-math.inf, f"{MINUS}∞"),
    ],
)
def test_numbers_are_written_for_reading(value, text):
    assert number(value) == text


def test_shares_and_ticks():
    assert [percent(v) for v in (0.0, 0.5, 1.0, 0.99996, 0.1234, None)] == [
        "0%",
        "50%",
        "100%",
        "99.996%",
        "12.3%",
        DASH,
    ]
    assert ticks(0, 10) == [0, 2.5, 5, 7.5, 10]
    assert ticks(-1, 1) == [-1, -0.5, 0, 0.5, 1]
    assert ticks(3, 3) == [3]
    for low, high in ((0.013, 0.91), (-3e6, 1e9), (1e-9, 3e-9)):
        marks = ticks(low, high)
        assert 2 <= len(marks) <= 6
        assert low <= marks[0] + 1e-15
        assert marks[-1] <= high * (1 + 1e-9)


def test_a_start_that_no_epoch_bettered_is_not_called_an_epoch():
    X = load_iris().data
    model = Autoencoder(2, hidden=(8,), max_epochs=3, random_state=0).fit(X)
    model.history_.best_epoch = 0
    page = build_report(model, X)
    assert "no epoch was better than the start" in page
    assert "best epoch, " not in page
    assert "last epoch: " in page
    model.history_.best_epoch = 2
    page = build_report(model, X)
    assert "no epoch was better than the start" not in page
    assert "best epoch, 2" in page
