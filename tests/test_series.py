"""Series: what comes in, what goes back, and that what lies behind the end of a series has no influence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from torch import Tensor, nn

import diabolo
from diabolo import VAE, AnomalyDetector, Autoencoder, AutoencoderModule, CustomAutoencoder
from diabolo.cli import main
from diabolo.data.arrays import ArrayCodec, read
from diabolo.data.series import is_ragged, read_series
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import Gaussian
from diabolo.records import Batch, Schema
from diabolo.report import build_report
from diabolo.report.curves import draw_series
from diabolo.report.facts import gather

RNG = np.random.default_rng(0)
PLAIN = [RNG.normal(size=n) for n in (5, 1, 9, 3, 9, 7, 2, 4)]  # (steps,)
WIDE = [RNG.normal([0.0, 100.0], [1.0, 30.0], size=(n, 2)) for n in (5, 1, 9, 3, 9, 7, 2, 4)]  # (steps, channels)
QUICK = {"hidden": (8,), "max_epochs": 2, "random_state": 0, "device": "cpu"}


def boxed(rows):
    out = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        out[i] = row
    return out


# what comes in ------------------------------------------------------------------------------------------------------------------


def test_lists_are_padded_with_missing_cells():
    raw = read_series(WIDE)
    assert (raw.kind, raw.container, raw.given, raw.drop_channel) == ("series", "numpy", "list", False)
    assert raw.values.shape == (8, 2, 9)
    for row, series in zip(raw.values, WIDE, strict=True):
        np.testing.assert_array_equal(row[:, : len(series)], series.T)
        assert np.isnan(row[:, len(series) :]).all()
    np.testing.assert_array_equal(raw.lengths, [len(series) for series in WIDE])


@pytest.mark.parametrize(
    "rows",
    [
        PLAIN,
        tuple(PLAIN),
        boxed(PLAIN),
        [torch.from_numpy(row) for row in PLAIN],
        [row.tolist() for row in PLAIN],
        [row[:, None] for row in PLAIN],
    ],
    ids=["list", "tuple", "object array", "tensors", "lists", "one channel"],
)
def test_every_container_holds_the_same_series(rows):
    raw = read(rows, "series")
    assert raw is not None
    np.testing.assert_array_equal(raw.values, read_series(PLAIN).values)


def test_arrays_have_time_first():
    X = RNG.normal(size=(4, 6, 2))
    np.testing.assert_array_equal(read_series(X).values, X.transpose(0, 2, 1))
    np.testing.assert_array_equal(read_series(X[:, :, 0]).values[:, 0], X[:, :, 0])
    tensor = read_series(torch.from_numpy(X).to(torch.bfloat16))
    assert (tensor.container, tensor.values.dtype) == ("torch", np.float32)


def test_what_is_taken_for_series_without_being_told():
    assert is_ragged(PLAIN)
    assert is_ragged(boxed(WIDE))
    assert not is_ragged([np.zeros(3), np.zeros(3)])  # rows of numbers
    assert not is_ragged([np.zeros((3, 2)), np.zeros((3, 2))])  # images
    assert not is_ragged([np.zeros((3, 2)), np.zeros((4, 3))])
    assert not is_ragged([[1.0, 2.0], [1.0]])
    assert not is_ragged([])
    assert not is_ragged(np.zeros((3, 2)))


def test_integers_booleans_and_masked_arrays():
    raw = read_series([np.array([1, 2, 3], dtype=np.int8), np.array([True])])
    assert raw.values.dtype == np.float32
    masked = np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])
    np.testing.assert_array_equal(read_series([masked]).values, [[[1.0, np.nan, 3.0]]])
    whole = Autoencoder(1, kind="series", **QUICK).fit(np.arange(40).reshape(10, 4))
    assert whole.reconstruct(np.arange(12).reshape(4, 3)).shape == (4, 3)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "the list is empty"),
        ([np.zeros(3), np.zeros(0)], r"series 1 has no steps; expected at least one\. Leave it out"),
        (np.zeros((3, 0)), "the series have no steps"),
        ([np.zeros((3, 2)), np.zeros((4, 3))], "series 0 has 2 channels, series 1 has 3 channels"),
        ([np.zeros(3), np.zeros((4, 1))], "series 0 has no axis for channels, series 1 has 1 channels"),
        ([np.zeros(3), np.array(["a", "b"])], "series 1 holds <U1 values; expected numbers"),
        ([[1.0, 2.0], [1.0, "b", None]], "series 1"),
        ([np.zeros(3, dtype=complex)], "Complex data not supported"),
        ([1.0, 2.0], r"item 0 of the list has shape \(\)\. A single series is a list of one"),
        (np.zeros(4), r"array of shape \(4,\)\. A single series is a list of one: \[X\]"),
        (np.zeros((2, 3, 3, 3)), r"got an array of shape \(2, 3, 3, 3\)"),
        ([np.zeros((2, 2, 2))], r"item 0 of the list has shape \(2, 2, 2\)"),
        ([np.zeros(3), np.array([1.0, np.inf])], "row 1, channel 0, step 1"),
        ({"a": 1}, "got a dict. A frame becomes an array"),
    ],
)
def test_what_is_no_series_is_refused(X, message):
    with pytest.raises(ValueError, match=message):
        read(X, "series")


def test_a_kind_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="kind='image' expects images"):
        Autoencoder(1, kind="image", **QUICK).fit(np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"kind='vector' expects rows of numbers .* X\.reshape\(len\(X\), -1\)"):
        Autoencoder(1, kind="vector", **QUICK).fit(np.zeros((5, 4, 4)))
    with pytest.raises(ValueError, match="X holds series rows; this model was fitted on rows of kind 'vector'"):
        Autoencoder(1, **QUICK).fit(RNG.normal(size=(8, 3))).transform(PLAIN)
    with pytest.raises(ValueError, match="kind='sequence': expected"):
        Autoencoder(1, kind="sequence", **QUICK).fit(PLAIN)


def test_series_unlike_those_of_fit_are_refused():
    model = Autoencoder(2, **QUICK).fit(PLAIN)
    with pytest.raises(
        ValueError, match=r"11 steps \(series 1\), longer than .* fit, 9\. Cut them into windows of at most 9"
    ):
        model.transform([np.zeros(4), np.zeros(11)])
    with pytest.raises(ValueError, match="2 channel"):
        model.transform(WIDE)
    with pytest.raises(ValueError, match=r"1 channel.s. have no observed value: '1'"):
        Autoencoder(2, **QUICK).fit([np.column_stack([row, np.full(len(row), np.nan)]) for row in PLAIN])
    with pytest.raises(ValueError, match=r"scale='quantile' is for tables; .* for series"):
        Autoencoder(2, scale="quantile", **QUICK).fit(PLAIN)


# what goes back -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [PLAIN, WIDE], ids=["plain", "channels"])
@pytest.mark.parametrize("box", [list, boxed, lambda rows: [torch.from_numpy(row) for row in rows]])
def test_lists_come_back_as_they_were(rows, box):
    X = box(rows)
    model = Autoencoder(2, **QUICK).fit(X)
    rebuilt = model.reconstruct(X)
    assert type(rebuilt) is type(X)
    assert [type(row) for row in rebuilt] == [type(row) for row in X]
    assert [tuple(row.shape) for row in rebuilt] == [row.shape for row in rows]
    Z = model.transform(X)
    assert Z.shape == (8, 2)
    full = model.inverse_transform(Z)
    assert isinstance(full, Tensor if isinstance(X[0], Tensor) else np.ndarray)
    assert tuple(full.shape) == (8, 9, *rows[0].shape[1:])
    for row, whole in zip(rebuilt, full, strict=True):
        np.testing.assert_allclose(row, whole[: len(row)], rtol=1e-9)  # float64 throughout


@pytest.mark.parametrize("shape", [(10, 6), (10, 6, 1), (10, 6, 2)])
def test_arrays_come_back_as_they_were(shape):
    X = RNG.normal(size=shape).astype(np.float32)
    model = VAE(2, kind="series", **QUICK).fit(X)
    assert model.schema_.shape == (shape[2] if len(shape) == 3 else 1, 6)
    assert (model.reconstruct(X).shape, model.reconstruct(X).dtype) == (shape, np.float32)
    assert model.sample(3, random_state=0).shape == (3, *shape[1:])
    assert model.reconstruct(X[:, :4]).shape == (10, 4, *shape[2:])
    assert [row.shape for row in model.reconstruct(list(X))] == [shape[1:]] * 10


def test_series_of_one_length_go_to_a_model_of_series():
    model = Autoencoder(2, **QUICK).fit(PLAIN)
    same = [np.zeros(4), np.ones(4)]  # on their own these would be rows of numbers
    np.testing.assert_array_equal(model.transform(same), model.transform(np.array(same)))
    assert [row.shape for row in model.reconstruct(same)] == [(4,), (4,)]
    assert model.transform([np.zeros(1)]).shape == (1, 2)


def test_scaling_is_by_channel_and_leaves_padding_out():
    raw = read_series(WIDE)
    codec = ArrayCodec.fit(raw, "auto")
    steps = np.concatenate(WIDE)  # (all steps, 2)
    # both are means over the same float64 numbers, in another order
    np.testing.assert_allclose(codec.scaling.center.ravel(), steps.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(codec.scaling.width.ravel(), steps.std(axis=0), rtol=1e-12)
    bounded = ArrayCodec.fit(raw, "minmax").scaling
    np.testing.assert_array_equal(bounded.center.ravel(), steps.min(axis=0))
    assert ArrayCodec.fit(read_series([np.array([0, 1]), np.array([1])]), "auto").schema.values == "binary"


def test_scores_count_observed_cells_and_no_others():
    model = Autoencoder(2, **QUICK).fit(WIDE)
    cells = model.score_features(WIDE)
    assert cells.shape == (8, 2, 9)
    width = np.log(model.codec_.scaling.width).sum()  # of one step
    for series, row, score in zip(WIDE, cells, model.score_samples(WIDE), strict=True):
        assert (row[:, len(series) :] == 0).all()
        # the same sum over other shapes, in float64
        assert score == pytest.approx(row.sum() - len(series) * width, rel=1e-9)


def test_missing_steps_inside_a_series_are_filled():
    holes = [row.copy() for row in PLAIN]
    holes[2][4] = np.nan
    holes[4][-1] = np.nan
    model = Autoencoder(2, **QUICK).fit(holes)
    assert all(np.isfinite(row).all() for row in model.reconstruct(holes))
    assert len(model.reconstruct(holes)[4]) == 9
    assert model.score_features(holes)[2, 0, 4] == 0


def test_learned_scales_are_one_for_each_channel():
    model = Autoencoder(2, likelihood="learned_gaussian", **QUICK).fit(WIDE)
    assert model.module_.likelihood.log_scale.shape == (2, 1)
    assert Autoencoder(2, likelihood="learned_gaussian", **QUICK).fit(PLAIN).module_.likelihood.log_scale.shape == (
        1,
        1,
    )


def test_save_and_load(tmp_path):
    model = Autoencoder(2, network="gru", **QUICK).fit(WIDE)
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    assert again.schema_ == model.schema_
    np.testing.assert_array_equal(again.score_samples(WIDE), model.score_samples(WIDE))
    assert again.reconstruct(WIDE)[0].shape == (5, 2)
    assert again.schema_.feature(10) == "channel 1, step 1"


def test_detectors_explain_steps():
    detector = AnomalyDetector(Autoencoder(1, **QUICK), random_state=0).fit(WIDE * 3)
    blame = detector.explain(WIDE)
    assert [row.shape for row in blame] == [row.shape for row in WIDE]
    assert detector.predict(WIDE).shape == (8,)


def test_frames_are_refused():
    with pytest.raises(ValueError, match=r"got a DataFrame\. A frame becomes an array"):
        Autoencoder(1, kind="series", **QUICK).fit(pd.DataFrame(np.zeros((4, 3))))


# what lies behind the end -------------------------------------------------------------------------------------------------------


NETWORKS = ["mlp", "shortcut_mlp", "conv", "shortcut_conv", "attention", "gru", "lstm"]


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_cannot_change_code_loss_or_gradient(network):
    settings = QUICK | {"hidden": (8, 8)}
    model = Autoencoder(2, network=network, **settings).fit(WIDE)
    module = model.module_.train()
    table = model.codec_.encode(read_series(WIDE))
    outcomes = []
    for garbage in (0.0, 1e3):
        x = torch.where(table.mask > 0, table.x, torch.full_like(table.x, garbage))
        batch = Batch(x, table.mask)
        trace = module.trace(batch, sample=True)
        module.zero_grad()
        loss = -module.log_prob(trace.raw, batch).mean()
        loss.backward()
        outcomes.append([trace.code.z, loss, *(p.grad.clone() for p in module.parameters())])
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("network", NETWORKS)
def test_company_cannot_change_code_or_score(network):
    """A series beside longer ones gives what it gives alone, and so does one with missing cells written after its end."""
    model = Autoencoder(2, network=network, **QUICK).fit(WIDE)
    padded = [np.concatenate([row, np.full((9 - len(row), 2), np.nan)]) for row in WIDE]
    # float64; a batch of another size may add in another order
    for i in (0, 1, 3):
        np.testing.assert_allclose(model.transform([WIDE[i]]), model.transform(WIDE)[[i]], rtol=1e-9)
        np.testing.assert_allclose(model.score_samples([padded[i]]), model.score_samples(WIDE)[[i]], rtol=1e-9)


def test_an_encoder_that_asks_for_the_mask_gets_it():
    class Lengths(nn.Module):
        takes_mask = True

        def forward(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
            return x.new_full((len(x), 1), x.shape[2]) if mask is None else mask[:, 0].sum(dim=1, keepdim=True)

    def build(schema: Schema) -> AutoencoderModule:
        parts = {"bottleneck": Identity(1), "likelihood": Gaussian()}
        return AutoencoderModule(schema, encoder=Lengths(), decoder=nn.Linear(1, schema.size), **parts)

    model = CustomAutoencoder(build=build, max_epochs=1, random_state=0).fit(PLAIN)
    np.testing.assert_array_equal(model.transform(PLAIN).ravel(), [len(row) for row in PLAIN])
    np.testing.assert_array_equal(model.transform([row for row in PLAIN if len(row) == 9]).ravel(), [9, 9])


def test_same_seed_same_codes():
    for network in ("gru", "attention"):
        ae = Autoencoder(2, network=network, dropout=0.1, norm="layer", **QUICK)
        np.testing.assert_array_equal(clone(ae).fit(WIDE).transform(WIDE), clone(ae).fit(WIDE).transform(WIDE))


# the report and the command line ------------------------------------------------------------------------------------------------


def test_the_report_draws_series():
    rows = [row + np.arange(len(row))[:, None] for row in WIDE * 2]
    page = build_report(VAE(2, kl_warmup=0.0, free_bits=0.5, **QUICK).fit(rows), rows)
    assert "16 series of up to 9 steps in 2 channels" in page
    assert "and its reconstruction" in page
    assert "generated series 1" in page
    assert "of whose cells are missing" not in page  # the end of a series is none
    assert "nan" not in page.lower().split("<script")[0]
    detector = AnomalyDetector(Autoencoder(1, **QUICK), random_state=0).fit(PLAIN * 3)
    assert "step 0" in build_report(detector, PLAIN)


def test_what_the_report_measures_of_series():
    rows = [row.copy() for row in WIDE]
    rows[2][4, 0] = np.nan
    facts = gather(Autoencoder(2, **QUICK).fit(rows), rows)
    assert facts.holes == pytest.approx(1 / (2 * sum(map(len, rows))))
    assert facts.names[10] == "channel 1, step 1"
    assert facts.picture_shape is None
    assert facts.yardstick.mse is None


def test_charts_have_gaps_where_cells_are_missing():
    line = np.array([1.0, 2.0, np.nan, 3.0, np.nan, np.nan, 4.0, 5.0, np.nan])
    svg = draw_series((1, 9), [(line, "train")], "a <label>", channels=[0])
    assert svg.count("<polyline") == 2
    assert svg.count("<circle") == 1
    assert "a &lt;label&gt;" in svg
    assert ">7<" in svg  # the last observed step
    long = draw_series((1, 10_000), [(np.arange(10_000.0), "train")], "", channels=[0])
    assert len(long) < 10_000
    assert "nan" not in draw_series((2, 3), [(np.full(6, np.nan), "train")], "", channels=[0, 1], floor=True)


def test_the_command_line_takes_series(tmp_path, capsys):
    X = np.full((20, 9, 2), np.nan)
    for target, row in zip(X, WIDE * 3, strict=False):
        target[: len(row)] = row
    np.save(tmp_path / "wide.npy", X)
    np.savetxt(tmp_path / "plain.csv", X[:, :, 0], delimiter=",")
    quick = ["--kind", "series", "--max-epochs", "1", "--hidden", "8", "--latent-dim", "2", "--quiet"]

    def run(*tokens: object) -> str:
        assert main([str(token) for token in tokens]) == 0
        return capsys.readouterr().out

    for name, network in (("wide.npy", "gru"), ("plain.csv", "conv")):
        model = tmp_path / name.split(".")[0]
        run("fit", tmp_path / name, "-o", model, "--network", network, *quick)
        assert len(run("embed", model, tmp_path / name).splitlines()) == 21
        assert len(run("score", model, tmp_path / name).splitlines()) == 21
        header = run("reconstruct", model, tmp_path / name).splitlines()[0].split(",")
        assert header[:2] == (["step_0_channel_0", "step_0_channel_1"] if name == "wide.npy" else ["step_0", "step_1"])
        assert "step_" in run("anomalies", model, tmp_path / name)
        assert "series of up to 9 steps" in run("info", model)
        run("report", model, tmp_path / name, "-o", tmp_path / "report.html")
    np.save(tmp_path / "short.npy", X[:, :4])
    rebuilt = run("reconstruct", tmp_path / "wide", tmp_path / "short.npy").splitlines()
    assert rebuilt[0].endswith("step_3_channel_1")
    assert "step_" in run("anomalies", tmp_path / "plain.csv", "--kind", "series", "--max-epochs", "1", "--quiet")
