"""Bad input: each kind gets correct behaviour, or an error that says what came and what to do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

from diabolo import VAE, AnomalyDetector, Autoencoder, BetaVAE, CustomAutoencoder, DenoisingAutoencoder

X = load_iris().data
FRAME = pd.DataFrame(X, columns=["a", "b", "c", "d"])
QUICK = {"hidden": (8,), "max_epochs": 2, "random_state": 0}


def model(**parameters):
    return Autoencoder(2, **QUICK | parameters)


@pytest.fixture(scope="module")
def fitted():
    return model().fit(FRAME)


# data ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["array", "frame", "tensor", "images"])
def test_infinity_is_refused(value, kind):
    bad = X.copy()
    bad[3, 1] = value
    data = {
        "array": bad,
        "frame": pd.DataFrame(bad, columns=["a", "b", "c", "d"]),
        "tensor": torch.from_numpy(bad),
        "images": bad[:, None, :],
    }[kind]
    with pytest.raises(ValueError, match="infinity"):
        model().fit(data)


def test_nan_is_a_missing_cell_in_data_and_an_error_in_codes(fitted):
    holes = FRAME.copy()
    holes.loc[3, "b"] = np.nan
    assert np.isfinite(model().fit(holes).reconstruct(holes).to_numpy()).all()
    assert np.isfinite(VAE(2, **QUICK).fit(holes).sample(3).to_numpy()).all()
    with pytest.raises(ValueError, match="NaN"):
        fitted.inverse_transform([[np.nan, 0.0]])


def test_the_value_under_a_missing_cell_does_not_matter():
    rows = X[:20].copy()
    rows[0, 0] = np.nan
    other = np.where(np.isnan(rows), np.nan, rows)
    np.testing.assert_array_equal(model().fit(rows).score_samples(rows), model().fit(other).score_samples(other))


def test_a_row_of_holes_and_a_column_of_holes():
    rows = X.copy()
    rows[5] = np.nan
    assert np.isfinite(model().fit(rows).transform(rows)).all()
    rows[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 column.* no observed value: '2'\. Drop"):
        model().fit(rows)


def test_constant_columns_stay_what_they_are():
    rows = np.column_stack([X, np.full(len(X), 7.0), np.zeros(len(X))])
    for estimator in (model(max_epochs=30), VAE(2, **QUICK), model(scale="minmax"), model(scale="quantile")):
        rebuilt = estimator.fit(rows).reconstruct(rows)
        assert np.isfinite(rebuilt).all()
    rebuilt = model(max_epochs=30).fit(rows).reconstruct(rows)
    np.testing.assert_allclose(rebuilt[:, 4], 7.0, atol=0.2)  # thirty short epochs
    constant = model().fit(np.full((20, 3), 5.0))
    np.testing.assert_allclose(constant.reconstruct(np.full((2, 3), 5.0)), 5.0, atol=1e-3)


@pytest.mark.filterwarnings("ignore:posterior collapse")  # rightly said of noise without structure
@pytest.mark.parametrize("n", [1, 2, 3, 31, 33])
@pytest.mark.parametrize("d", [1, 4])
def test_few_rows_and_one_column(n, d):
    rows = np.random.default_rng(0).normal(size=(n, d))
    for estimator in (model(), VAE(3, **QUICK), DenoisingAutoencoder(2, noise="swap", **QUICK), model(norm="batch")):
        fitted = estimator.fit(rows)
        assert fitted.reconstruct(rows).shape == (n, d)
        assert np.isfinite(fitted.score(rows))


@pytest.mark.parametrize("empty", [X[:0], FRAME[:0], torch.zeros(0, 4), np.zeros((0, 3, 3)), pl.DataFrame({"a": []})])
def test_zero_rows(empty):
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        model().fit(empty)


@pytest.mark.parametrize("empty", [X[:, :0], np.zeros((4, 0, 3)), torch.zeros(3, 0)])
def test_zero_columns(empty):
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        model().fit(empty)


def test_wrong_width(fitted):
    with pytest.raises(ValueError, match="X has 3 features, but Autoencoder is expecting 4 features"):
        model().fit(X).transform(X[:, :3])
    with pytest.raises(ValueError, match="X has 5 features"):
        model().fit(torch.from_numpy(X)).transform(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="Z has 3 columns, expected the 2 of the code"):
        fitted.inverse_transform(np.zeros((1, 3)))
    images = np.random.default_rng(0).random((10, 4, 4))
    with pytest.raises(ValueError, match=r"rows of shape \(1, 5, 5\), expected \(1, 4, 4\)"):
        model().fit(images).transform(np.zeros((2, 5, 5)))
    with pytest.raises(ValueError, match=r"expected \(1, 4, 4\)"):
        model().fit(images).transform(np.zeros((2, 16)))


def test_renamed_reordered_and_missing_columns(fitted):
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- z"):
        fitted.transform(FRAME.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="must be in the same order"):
        fitted.transform(FRAME[["b", "a", "c", "d"]])
    with pytest.raises(ValueError, match="yet now missing:\n- d"):
        fitted.transform(FRAME[["a", "b", "c"]])


def test_text_where_numbers_were_is_named(fitted):
    frame = FRAME.assign(a="Rome", b=pd.Timestamp("2020-01-01"))
    with pytest.raises(ValueError, match=r"2 of 4 are not: 'a' \(String\), 'b' .*encode them"):
        fitted.transform(frame)
    with pytest.raises(ValueError, match=r"could not convert string to float|numeric"):
        model().fit(np.array([["a", "b"], ["c", "d"]]))


def test_complex_numbers():
    for data in (X + 1j, torch.from_numpy(X + 1j), (X + 1j)[:, None]):
        with pytest.raises(ValueError, match="Complex data not supported"):
            model().fit(data)


def test_values_outside_the_support_name_column_and_value():
    frame = FRAME / 10
    frame.loc[4, "c"] = 37.0
    for likelihood, name in (("bernoulli", "Bernoulli"), ("sigmoid_gaussian", "SigmoidGaussian")):
        with pytest.raises(
            ValueError, match=rf"{name} needs values in \[0, 1\]; column 'c' has 37.*likelihood='gaussian'"
        ):
            model(likelihood=likelihood, scale=None).fit(frame)
        model(likelihood=likelihood).fit(frame)  # scale="auto" brings the data into range
    fitted = model(likelihood="bernoulli").fit(FRAME)
    with pytest.raises(ValueError, match="column 'a' has 99 in X"):
        fitted.score_samples(FRAME.assign(a=99.0))


def test_extreme_values():
    rows = X.copy()
    rows[3, 0] = 1e30
    fitted = model().fit(rows)
    assert np.isfinite(fitted.reconstruct(rows)).all()
    scores = model().fit(X).score_samples(rows)
    assert scores.argmin() == 3
    assert np.isfinite(scores).all()
    rows[3, 0] = 1e300
    with pytest.raises(ValueError, match=r"column '0' has values as large as 1e\+300, too large to scale"):
        model().fit(rows)
    assert np.isfinite(model(scale="quantile").fit(rows).score(rows))


def test_integers_do_not_overflow():
    bytes_ = np.random.default_rng(0).integers(200, 256, size=(50, 4, 4), dtype=np.uint8)
    assert abs(model(max_epochs=20).fit(bytes_).reconstruct(bytes_).mean() - bytes_.mean()) < 5
    large = np.random.default_rng(0).integers(2**61, 2**62, size=(50, 3))
    fitted = model().fit(large)
    assert fitted.reconstruct(large).min() > 2**60


def test_the_callers_data_are_not_changed(tmp_path):
    file = tmp_path / "x.npy"
    np.save(file, X)
    mapped = np.load(file, mmap_mode="r")
    reversed_ = X[::-1, ::-1]
    holes = np.where(np.arange(600).reshape(150, 4) % 7 == 0, np.nan, X)
    before = holes.copy()
    for data in (mapped, reversed_, np.asfortranarray(X), torch.from_numpy(X)):
        fitted = model().fit(data)
        assert np.isfinite(fitted.score(data))
    model().fit(holes).score(holes)
    np.testing.assert_array_equal(holes, before)
    np.testing.assert_array_equal(model().fit(mapped).transform(mapped), model().fit(X).transform(X))


def test_masked_arrays_and_lazy_frames():
    masked = np.ma.MaskedArray(X, mask=X > 6)
    np.testing.assert_array_equal(
        model().fit(masked).transform(masked),
        model().fit(np.where(X > 6, np.nan, X)).transform(np.where(X > 6, np.nan, X)),
    )
    with pytest.raises(TypeError, match=r"call \.collect\(\) first"):
        model().fit(pl.DataFrame(X).lazy())


def test_samples_keep_the_precision_of_the_data():
    seconds = 1_700_000_000 + np.random.default_rng(0).normal(size=(60, 2))
    sample = VAE(1, **QUICK).fit(seconds).sample(200, random_state=0)
    assert sample.dtype == np.float64
    assert len(np.unique(sample[:, 0])) > 150  # float32 knows one value in 128 here


def test_images_of_mixed_sizes():
    images = [np.zeros((3, 8, 8)), np.zeros((3, 9, 8))]
    with pytest.raises(ValueError, match=r"images of one size; image 0 has shape \(3, 8, 8\), image 1 has \(3, 9, 8\)"):
        Autoencoder(2, kind="image").fit(images)


def test_channels_last_images():
    with pytest.raises(ValueError, match=r"look channels-last \(5, 8, 8, 3\).*X\.transpose\(0, 3, 1, 2\)"):
        model().fit(np.zeros((5, 8, 8, 3)))


# parameters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Autoencoder(latent_dm=3), "no parameter 'latent_dm'. Did you mean 'latent_dim'"),
        (lambda: Autoencoder(loss="mse"), "'gaussian' is MSE, 'bernoulli' is binary cross-entropy"),
        (lambda: Autoencoder(epochs=3), "the number of epochs is max_epochs"),
        (lambda: AnomalyDetector(contaminaton=0.1), "Did you mean 'contamination'"),
        (lambda: VAE().set_params(betta=3), "Did you mean 'beta'"),
    ],
)
def test_a_misspelt_parameter_is_explained(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"latent_dim": 0}, "latent_dim=0: expected int or {'auto', 'search'} >= 1"),
        ({"latent_dim": 2.5}, "latent_dim=2.5: expected int"),
        ({"latent_dim": True}, "latent_dim=True"),
        ({"hidden": (16, 0)}, r"hidden=\(16, 0\)"),
        ({"hidden": 16}, "hidden=16: expected tuple of int or"),
        ({"dropout": 1.0}, "dropout=1.0: expected float >= 0 and < 1"),
        ({"activation": "rellu"}, "Did you mean 'relu'"),
        ({"likelihood": "mse"}, "squared error is likelihood='gaussian'"),
        ({"likelihood": "bce"}, "binary cross-entropy is likelihood='bernoulli'"),
        ({"scale": "none"}, "write None without quotes"),
        ({"max_epochs": 0}, "max_epochs=0: expected int or {'auto'} >= 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"validation_fraction": 1}, "validation_fraction=1"),
        ({"random_state": "zero"}, "random_state='zero'"),
    ],
)
def test_an_impossible_parameter_is_explained(parameters, message):
    with pytest.raises(ValueError, match=message):
        Autoencoder(**parameters).fit(X)


def test_every_problem_is_listed_at_once():
    with pytest.raises(ValueError, match=r"(?s)dropout=2.*norm='bach'.*Did you mean 'batch'"):
        Autoencoder(dropout=2, norm="bach").fit(X)


def test_devices_and_builds():
    with pytest.raises(ValueError, match="device='tpux' is unknown"):
        model(device="tpux").fit(X)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda' is not available on this machine; use device='auto'"):
            model(device="cuda").fit(X)
    with pytest.raises(ValueError, match="needs build="):
        CustomAutoencoder().fit(X)
    with pytest.raises(TypeError, match="build returned int; expected an AutoencoderModule"):
        CustomAutoencoder(build=len_of_columns).fit(X)
    with pytest.raises(ValueError, match="expected a fraction < 1"):
        DenoisingAutoencoder(noise="masking", level=1.0, **QUICK).fit(X)


def len_of_columns(schema):
    return len(schema.columns)


def test_what_a_model_cannot_do(fitted):
    with pytest.raises(TypeError, match="Autoencoder has no prior to sample from; learn one from rows first"):
        fitted.sample(3)
    with pytest.raises(NotFittedError):
        BetaVAE().transform(X)
    with pytest.raises(ValueError, match="n_samples=-1"):
        fitted.score_samples(FRAME, n_samples=-1)
    with pytest.raises(ValueError, match="n=0"):
        VAE(2, **QUICK).fit(X).sample(0)
    with pytest.raises(OSError, match="cannot create the folder"):
        fitted.save("/dev/null/model")
    with pytest.raises(OSError, match="cannot create the folder"):
        model(checkpoint="/dev/null/run").fit(X)
