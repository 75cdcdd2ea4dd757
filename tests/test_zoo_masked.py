"""Masked autoencoders: what is hidden, what is learned of it, and how near filled cells come to the best guess there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits, load_iris

from diabolo import AnomalyDetector, Autoencoder, MaskedAutoencoder
from diabolo.checks import ParameterError
from diabolo.objectives import elbo
from diabolo.records import Batch
from diabolo.seeding import seeded
from diabolo.zoo.masked import Hiding

X = load_iris().data
DIGITS = load_digits().images
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}


def hide(shape, level=0.5, patch=1, n=2000, seed=0):
    with seeded(seed):
        return 1 - Hiding(shape, level, patch, seen_weight=0.5).seen(torch.zeros(n, *shape))


# what is hidden -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.1, 0.5, 0.75])
@pytest.mark.parametrize(("shape", "patch"), [((6,), 1), ((1, 8, 8), 2), ((3, 7, 10), 3), ((2, 12), 4), ((1, 1, 1), 1)])
def test_the_expected_share_is_hidden_from_nothing_to_all(shape, patch, level):
    hidden = hide(shape, level, patch)
    assert hidden.shape == (2000, *shape)
    assert set(hidden.unique().tolist()) == {0.0, 1.0}
    shares = hidden.flatten(1).mean(1)
    # five standard errors of the mean of a share between 0 and 1
    assert shares.mean().item() == pytest.approx(level, abs=5 * float(shares.std()) / 2000**0.5)
    cells = hidden.mean(0)
    assert ((cells - level).abs() < 5 * 0.5 / 2000**0.5).all()  # every cell as often as any other
    assert shares.min() < 0.02
    assert shares.max() > 0.85


def test_at_one_half_the_share_is_uniform():
    shares = hide((1000,), 0.5).mean(1)
    counts, _ = torch.histogram(shares, bins=5, range=(0.0, 1.0))
    assert ((counts / 2000 - 0.2).abs() < 5 * (0.16 / 2000) ** 0.5).all()  # five standard errors of each bin


def test_patches_are_square_and_reach_over_all_channels():
    hidden = hide((3, 8, 10), 0.5, 4)
    assert torch.equal(hidden[:, 0], hidden[:, 2])
    for rows in (slice(0, 4), slice(4, 8)):
        for columns in (slice(0, 4), slice(4, 8), slice(8, 10)):  # the last is cut by the border
            patch = hidden[:, 0, rows, columns].flatten(1)
            assert ((patch.mean(1) == 0) | (patch.mean(1) == 1)).all()


@pytest.mark.parametrize(
    ("shape", "patch"), [((1,), 1), ((5,), 1), ((30,), 1), ((2, 8, 8), 2), ((1, 5, 9), 2), ((1, 30), 5)]
)
def test_scores_hide_every_cell_once(shape, patch):
    hiding = Hiding(shape, 0.5, patch, seen_weight=0.5)
    folds = hiding.folds(torch.zeros(4, *shape))
    hidden = torch.cat([1 - seen for seen in folds])
    assert torch.equal(hidden.sum(0), torch.ones(shape))
    assert len(folds) <= 8
    if len(shape) == 1:
        assert len(folds) == min(8, shape[0])


# the loss -----------------------------------------------------------------------------------------------------------------------


def fitted(data=X, **more):
    model = MaskedAutoencoder(3, **QUICK | more).fit(data)
    table = model.codec_.encode(model._read(data, reset=False))
    return model, model.module_, table.slice(0, 50)


@pytest.mark.parametrize("network", ["auto", "mlp", "residual_mlp"])
def test_hidden_cells_cannot_influence_the_code(network):
    for data in (X, DIGITS[:60]):
        _, module, batch = fitted(data, network=network)
        x = batch.x.clone().requires_grad_()
        with seeded(0):
            trace = module.trace(Batch(x, batch.mask), sample=False, corrupt=True)
        hidden = trace.batch.mask == 1
        assert hidden.any()
        assert not hidden.all()
        trace.code.z.sum().backward()
        assert (x.grad[hidden] == 0).all()
        assert (x.grad[~hidden] != 0).any()


def test_convolutions_too():
    _, module, batch = fitted(DIGITS[:60], network="conv", hidden=(4,))
    x = batch.x.clone().requires_grad_()
    with seeded(0):
        trace = module.trace(Batch(x), sample=False, corrupt=True)
    trace.code.z.sum().backward()
    assert (x.grad[trace.batch.mask == 1] == 0).all()


@pytest.mark.parametrize("seen_weight", [0.0, 0.5, 1.0])
def test_the_loss_is_the_weighted_sum_over_observed_cells(seen_weight):
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    _, module, batch = fitted(holes, seen_weight=seen_weight)
    with seeded(3), torch.no_grad():
        loss = elbo(module, batch, 1.0)
    with seeded(3), torch.no_grad():
        seen = module.corruption.seen(batch.x)
        both = torch.cat([batch.x * batch.mask * seen, 1 - batch.mask * seen], dim=1)
        mean = module.decode(module.bottleneck(module.encoder.body(both), sample=False).z)[:, 0]
    cells = 0.5 * (batch.x - mean) ** 2 + 0.5 * np.log(2 * np.pi)
    weights = batch.mask * ((1 - seen) + seen_weight * seen)
    # float32 sums of a few hundred terms
    assert loss.total.item() == pytest.approx(float((weights * cells).sum(1).mean()), rel=1e-5)


def test_a_hidden_cell_is_a_missing_cell():
    """Training and inference are one path: hiding cells gives the code of rows in which they are NaN."""
    _, module, batch = fitted()
    with seeded(0), torch.no_grad():
        trace = module.trace(batch, sample=False, corrupt=True)
    mask = (trace.batch.mask < 1).float()
    with torch.no_grad():
        again = module.trace(Batch(batch.x * mask, mask), sample=False)
    assert torch.equal(trace.code.z, again.code.z)
    assert torch.equal(trace.raw, again.raw)


def test_missing_and_mean_are_different_things():
    holes = X.copy()
    holes[::2, 2] = np.nan
    model = MaskedAutoencoder(3, **QUICK | {"max_epochs": 20}).fit(holes)
    at_mean = X[:10].copy()
    at_mean[:, 2] = np.nanmean(holes[:, 2])
    unknown = X[:10].copy()
    unknown[:, 2] = np.nan
    assert not np.allclose(model.transform(at_mean), model.transform(unknown), atol=1e-3)


def test_the_learned_scale_is_that_of_hidden_cells():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 6))  # nothing can be predicted, and everything that is seen can be copied
    model = MaskedAutoencoder(
        12,
        likelihood="learned_gaussian",
        seen_weight=1.0,
        hidden=(32,),
        max_epochs=60,
        validation_fraction=0,
        random_state=0,
    ).fit(noise)
    assert model.module_.likelihood.log_scale.exp().mean().item() > 0.8


# scores -------------------------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_each_cell_given_the_others():
    model, module, _ = fitted()
    cells = model.score_features(X)
    for j in range(4):
        without = X.copy()
        without[:, j] = np.nan
        predicted = model.reconstruct(without)[:, j]
        scale = X[:, j].std()
        want = -0.5 * ((X[:, j] - predicted) / scale) ** 2 - 0.5 * np.log(2 * np.pi)
        np.testing.assert_allclose(cells[:, j], want, rtol=1e-4, atol=1e-4)  # the scale was learned in float64, as here
    np.testing.assert_allclose(model.score_samples(X), cells.sum(1) - np.log(X.std(0)).sum(), rtol=1e-5)
    np.testing.assert_array_equal(model.score_samples(X), model.score_samples(X))
    holes = X.copy()
    holes[:, 1] = np.nan
    assert (model.score_features(holes)[:, 1] == 0).all()
    assert model.module_.training is False
    assert module is model.module_


def test_rows_whose_cells_do_not_go_together_are_anomalous():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 2))
    rows = z @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(600, 8))
    detector = AnomalyDetector(MaskedAutoencoder(16, max_epochs=40, random_state=0), contamination=0.02, random_state=0)
    detector.fit(rows[:500])
    odd = rows[500:].copy()
    odd[:, 3] = rng.permutation(odd[:, 3])  # each column as before, column by column
    scores = detector.score_samples(rows[500:]), detector.score_samples(odd)
    assert (scores[0] > scores[1]).mean() > 0.85
    blame = detector.explain(odd[scores[1] < np.quantile(scores[0], 0.02)])
    assert np.asarray(blame).mean(0).argmax() == 3


# filling ------------------------------------------------------------------------------------------------------------------------


def low_rank(n, d, rank, noise, seed=0):
    rng = np.random.default_rng(seed)
    W, mean = rng.normal(size=(rank, d)), rng.normal(size=d)
    rows = rng.normal(size=(n, rank)) @ W + noise * rng.normal(size=(n, d)) + mean
    return rows, mean, W.T @ W + noise**2 * np.eye(d)


def conditional_mean(holes, mean, covariance):
    """The best guess of each missing cell, by the true distribution."""
    filled = holes.copy()
    for row in filled:
        gone = np.isnan(row)
        known = ~gone
        row[gone] = mean[gone]
        if known.any() and gone.any():
            gain = covariance[np.ix_(gone, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
            row[gone] += gain @ (row[known] - mean[known])
    return filled


def test_filled_cells_come_near_the_conditional_expectation():
    rows, mean, covariance = low_rank(3000, 10, 2, 0.3)
    gone = np.random.default_rng(1).random(rows.shape) < 0.3
    holes = np.where(gone, np.nan, rows)

    def rmse(filled):
        return np.sqrt(np.mean((filled - rows)[gone] ** 2))

    common = {
        "hidden": (64,),
        "max_epochs": 30,
        "batch_size": 100,
        "learning_rate": 5e-3,
        "patience": None,
        "random_state": 0,
    }
    best = rmse(conditional_mean(holes, mean, covariance))
    masked = rmse(MaskedAutoencoder(**common).fit(holes).reconstruct(holes))
    plain = rmse(Autoencoder(3, **common).fit(holes).reconstruct(holes))
    column_means = rmse(np.broadcast_to(np.nanmean(holes, axis=0), rows.shape))
    assert best < masked  # nothing is better than the true distribution: 0.41
    assert masked < 1.2 * best  # 0.46 here; 3000 rows and 30 epochs leave some
    assert masked < 0.85 * plain  # 0.59
    assert masked < 0.4 * column_means  # 1.29


def test_the_pseudo_likelihood_comes_near_the_exact_conditionals():
    rows, mean, covariance = low_rank(2000, 6, 2, 0.5)
    model = MaskedAutoencoder(16, likelihood="learned_gaussian", max_epochs=30, batch_size=64, random_state=0).fit(
        rows[:1500]
    )
    precision = np.linalg.inv(covariance)
    variance = 1 / np.diag(precision)
    test = rows[1500:]
    deviations = (test - mean) @ precision * variance  # of each cell from its expectation given the others
    exact = (-0.5 * deviations**2 / variance - 0.5 * np.log(2 * np.pi * variance)).sum(1).mean()
    marginal = sum(multivariate_normal(mean[j], covariance[j, j]).logpdf(test[:, j]).mean() for j in range(6))
    found = model.score(test)
    assert found < exact + 0.1  # the exact one cannot be beaten but by chance
    # The one scale of a column in training is that of every share hidden, so something is lost; most is gained.
    assert found > marginal + 0.4 * (exact - marginal)


def neighbours(holes):
    """Fill each missing pixel with the mean of the nearest observed ones."""
    filled = holes.copy()
    for image, given in zip(filled, holes, strict=True):
        for i, j in zip(*np.nonzero(np.isnan(given)), strict=True):
            for w in range(1, 9):
                window = given[max(0, i - w) : i + w + 1, max(0, j - w) : j + w + 1]
                if np.isfinite(window).any():
                    image[i, j] = np.nanmean(window)
                    break
    return filled


def test_patches_of_images_are_painted_in():
    order = np.random.default_rng(0).permutation(len(DIGITS))
    train, test = DIGITS[order[:600]], DIGITS[order[-100:]]
    gone = (np.random.default_rng(1).random((100, 4, 4)) < 0.4).repeat(2, axis=1).repeat(2, axis=2)
    gone[:, 0, 0] = False  # something is seen of every image
    holes = np.where(gone, np.nan, test)
    model = MaskedAutoencoder(hidden=(64,), max_epochs=20, random_state=0).fit(train)
    error = np.mean((model.reconstruct(holes) - test)[gone] ** 2)
    assert error < 0.4 * np.mean((neighbours(holes) - test)[gone] ** 2)
    assert error < 0.7 * np.mean((train.mean(0) - test)[gone] ** 2)
    whole = np.mean((model.reconstruct(test) - test) ** 2)  # without holes it is a sound autoencoder too
    assert whole < 0.3 * test.var(axis=0).mean()
    assert model.choices_["patch_size"] == 2


# input --------------------------------------------------------------------------------------------------------------------------


def test_patch_sizes():
    for images, patch in (
        (DIGITS[:20], 2),
        (np.zeros((4, 28, 20)) + np.eye(28, 20), 3),
        (np.eye(3)[None].repeat(5, 0), 1),
    ):
        assert MaskedAutoencoder(2, **QUICK).fit(images).choices_["patch_size"] == patch
    assert MaskedAutoencoder(2, patch_size=5, **QUICK).fit(DIGITS[:20]).choices_["patch_size"] == 5
    with pytest.raises(ParameterError, match=r"patch_size=2 cuts images into patches; X has rows of shape \(4,\)"):
        MaskedAutoencoder(2, patch_size=2, **QUICK).fit(X)
    with pytest.raises(ParameterError, match=r"mask_fraction=1\.0: expected float > 0 and < 1"):
        MaskedAutoencoder(2, mask_fraction=1.0, **QUICK).fit(X)


def test_colour_one_pixel_and_series():
    colour = np.random.default_rng(0).random((30, 3, 9, 7))
    colour[0, 0, 0, 0] = np.nan
    assert np.isfinite(MaskedAutoencoder(2, network="conv", **QUICK).fit(colour).reconstruct(colour)).all()
    single = np.arange(12.0).reshape(12, 1, 1)
    assert np.isfinite(MaskedAutoencoder(1, **QUICK).fit(single).score_samples(single)).all()
    series = np.random.default_rng(0).normal(size=(30, 20))
    model = MaskedAutoencoder(2, kind="series", **QUICK).fit(series)
    assert model.schema_.kind == "series"
    assert np.isfinite(model.score_samples(series)).all()
