"""Distributions of codes: densities against closed forms, choices by held-out codes, and rows drawn through them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits, load_iris

import diabolo
from diabolo import (
    VAE,
    VQVAE,
    Autoencoder,
    CodePrior,
    ConditionalVAE,
    FlowPriorVAE,
    FSQAutoencoder,
    HypersphericalVAE,
    LadderVAE,
    MixturePriorVAE,
    TopKAutoencoder,
    TwoStageVAE,
    VampPriorVAE,
)
from diabolo.checks import ParameterError

X, Y = load_iris(return_X_y=True)
DIGITS = load_digits().images[:200]
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
METHODS = ("normal", "mixture", "kernel", "flow", "two_stage")
RING = np.random.default_rng(0).normal(size=(600, 2))
RING = RING / np.linalg.norm(RING, axis=1, keepdims=True) + 0.05 * np.random.default_rng(1).normal(size=(600, 2))


def prior(method, Z=RING, **options):
    noise = options.pop("noise", None)
    return CodePrior(method, max_epochs=30, random_state=0, **options).fit(Z, noise=noise)


def test_a_normal_is_that_of_scipy():
    found = prior("normal", validation_fraction=0.01)
    kept = RING[np.random.default_rng(np.random.RandomState(0).randint(2**31 - 1)).permutation(600)][:594]
    expected = multivariate_normal(kept.mean(0), np.cov(kept.T, bias=True)).logpdf(RING)
    np.testing.assert_allclose(found.score_samples(RING), expected, atol=1e-3)  # the ridge is 1e-4 of the variance


@pytest.mark.parametrize("method", METHODS[:4])
def test_densities_integrate_to_one_and_draws_follow_them(method):
    found = prior(method)
    assert grid_sum(found) == pytest.approx(1, abs=0.02)  # the grid's own error
    drawn = found.sample(4000, random_state=0)
    # the mean of the log-density over its own draws is minus its entropy, which the grid gives too
    assert found.score_samples(drawn).mean() == pytest.approx(-grid_entropy(found), abs=0.08)


def grid(found):
    axis = np.linspace(-2.5, 2.5, 126)
    Z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_prob = found.score_samples(Z)
    return log_prob, (axis[1] - axis[0]) ** 2


def grid_sum(found):
    log_prob, cell = grid(found)
    return float(np.exp(log_prob).sum() * cell)


def grid_entropy(found):
    log_prob, cell = grid(found)
    return float(-(np.exp(log_prob) * log_prob).sum() * cell)


def test_held_out_codes_choose_a_shape_that_fits():
    found = prior("auto")
    assert set(found.scores_) == {"normal", "mixture", "kernel", "flow"}
    assert found.method_ != "normal"  # a ring has a hole
    assert found.scores_[found.method_] == max(found.scores_.values()) > found.scores_["normal"] + 0.5
    assert np.linalg.norm(found.sample(300, random_state=0), axis=1).mean() == pytest.approx(1, abs=0.1)
    plain = prior("auto", np.random.default_rng(0).normal(size=(500, 3)))
    assert plain.scores_[plain.method_] < plain.scores_["normal"] + 0.05  # nothing beats the truth by more than chance


def test_posteriors_widen_what_is_learned():
    """Codes of variance 1 with noise of variance 3 come from N(0, 4)."""
    Z = np.random.default_rng(0).normal(size=(2000, 2))
    for method in ("normal", "mixture", "kernel", "flow"):
        drawn = prior(method, Z, noise=np.full_like(Z, 3.0)).sample(4000, random_state=0)
        np.testing.assert_allclose(drawn.std(axis=0), 2.0, rtol=0.08)  # of 4000 draws, learned from 1600 codes


@pytest.mark.parametrize("method", METHODS)
def test_temperature_and_seeds(method):
    found = prior(method)
    a, b = (found.sample(500, random_state=1) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, found.sample(500, random_state=2))
    cold = found.sample(500, temperature=0.0, random_state=1)
    assert len(np.unique(cold.round(4), axis=0)) < len(a)  # without noise there are only centres
    if method in METHODS[:3]:
        cool = found.sample(500, temperature=0.5, random_state=1)
        assert found.score_samples(cool).mean() > found.score_samples(a).mean()


def test_any_model_generates_after_fit_prior(tmp_path):
    models = [
        Autoencoder(2, **QUICK),
        TopKAutoencoder(8, k=2, **QUICK | {"hidden": ()}),
        VQVAE(2, n_codes=8, **QUICK),
        FSQAutoencoder(2, levels=(8, 5), **QUICK),
        HypersphericalVAE(3, **QUICK),
        LadderVAE(2, **QUICK),
    ]
    for model in models:
        model.fit(X)
        if not model.module_.bottleneck.generative:
            with pytest.raises(
                TypeError, match=r"no prior to sample from; learn one from rows first, model\.fit_prior"
            ):
                model.sample(2)
        assert model.fit_prior(X, "mixture", random_state=0) is model
        drawn = model.sample(300, random_state=0)
        np.testing.assert_allclose(drawn.mean(axis=0), X.mean(axis=0), atol=0.8)  # three epochs, sparse codes
        model.save(tmp_path / "model")
        again = diabolo.load(tmp_path / "model")
        np.testing.assert_array_equal(again.sample(300, random_state=0), drawn)
        assert again.prior_scores_ == model.prior_scores_
        model.fit(X)
        assert not hasattr(model, "prior_")  # its codes are gone


@pytest.mark.parametrize("method", METHODS)
def test_every_prior_is_saved(method, tmp_path):
    model = Autoencoder(2, **QUICK).fit(X).fit_prior(X, CodePrior(method, max_epochs=3), random_state=0)
    model.save(tmp_path)
    np.testing.assert_array_equal(diabolo.load(tmp_path).sample(9, random_state=0), model.sample(9, random_state=0))


def test_codes_are_brought_to_where_codes_may_lie():
    found = FSQAutoencoder(2, levels=(8, 5), **QUICK).fit(X).fit_prior(X, "normal", random_state=0)
    bottleneck = found.module_.bottleneck
    codes = bottleneck.look_up(torch.arange(40)[:, None])
    torch.testing.assert_close(bottleneck.project(codes + 0.05), codes)
    sphere = HypersphericalVAE(3, **QUICK).fit(X).module_.bottleneck
    torch.testing.assert_close(sphere.project(torch.full((1, 3), 5.0)).norm(), torch.tensor(1.0))
    words = VQVAE(2, n_codes=4, **QUICK).fit(X)
    drawn = words.fit_prior(X, "normal", random_state=0).sample(50, random_state=0)
    assert len(np.unique(drawn.round(6), axis=0)) <= 4  # as many as there are symbols


def test_the_models_own_prior_takes_part():
    vae = VAE(2, **QUICK).fit(X).fit_prior(X, random_state=0)
    assert set(vae.prior_scores_) == {"normal", "mixture", "kernel", "flow", "own"}
    assert vae.prior_scores_["normal"] > vae.prior_scores_["own"] - 0.1
    own = vae.sample(5, prior="own", random_state=0)
    np.testing.assert_array_equal(own, VAE(2, **QUICK).fit(X).sample(5, random_state=0))
    assert not np.array_equal(own, vae.sample(5, random_state=0))
    noise = np.random.default_rng(0).normal(size=(400, 5))
    strict = VAE(2, beta=50.0, **QUICK).fit(noise).fit_prior(noise, random_state=0)
    assert strict.prior_scores_["own"] > max(strict.prior_scores_.values()) - 0.1  # its codes are nearly N(0, I)
    for model in (MixturePriorVAE(2, n_components=3, **QUICK), VampPriorVAE(2, **QUICK), FlowPriorVAE(2, **QUICK)):
        assert "own" in model.fit(X).fit_prior(X, "normal", random_state=0).prior_scores_


@pytest.mark.parametrize("model", [VAE, MixturePriorVAE, VampPriorVAE, FlowPriorVAE, LadderVAE, TwoStageVAE])
def test_temperature_of_own_priors(model):
    fitted = model(2, **QUICK).fit(X)
    spread = [fitted.sample(400, temperature=t, random_state=0).std(axis=0).mean() for t in (0.0, 0.5, 1.0)]
    assert spread[0] < spread[1] < spread[2]
    np.testing.assert_array_equal(fitted.sample(3, random_state=0), fitted.sample(3, temperature=1.0, random_state=0))
    with pytest.raises(ValueError, match="temperature=-1: expected 0 or more"):
        fitted.sample(3, temperature=-1)


def test_a_class_for_each_code():
    rng = np.random.default_rng(0)
    names = np.array(["left", "right", "rare"])
    which = rng.choice(3, 1500, p=[0.6, 0.39, 0.01])
    Z = np.array([[-5.0, 0], [5, 0], [0, 9]])[which] + rng.normal(size=(1500, 2))
    found = CodePrior(random_state=0).fit(Z, labels=names[which])
    assert list(found.classes_) == ["left", "rare", "right"]
    for name, centre in zip(names, [[-5, 0], [5, 0], [0, 9]], strict=True):
        drawn = found.sample(500, labels=name, random_state=0)
        np.testing.assert_allclose(drawn.mean(axis=0), centre, atol=0.6)  # fifteen rare ones know their mean to 0.26
        np.testing.assert_allclose(drawn.std(axis=0), 1, atol=0.35)
    everything = found.sample(3000, random_state=0)
    assert (everything[:, 0] < -2).mean() == pytest.approx(0.6, abs=0.05)
    assert found.score_samples(Z).mean() > CodePrior("normal", random_state=0).fit(Z).score_samples(Z).mean() + 0.5
    with pytest.raises(ValueError, match=r"no class 'lift'. Did you mean 'left'\?"):
        found.sample(2, labels="lift")
    with pytest.raises(ValueError, match="one label for each of 1500"):
        CodePrior().fit(Z, labels=[1, 2])
    with pytest.raises(ValueError, match="expected classes"):
        CodePrior().fit(Z, labels=Z[:, 0])


def test_rows_of_a_class_from_a_model_that_knows_no_classes(tmp_path):
    model = Autoencoder(3, **QUICK | {"max_epochs": 20}).fit(X)
    kinds = np.array(["setosa", "versicolor", "virginica"])[Y]
    model.fit_prior(X, labels=kinds, random_state=0)
    rows = model.sample(200, condition="virginica", random_state=0)
    np.testing.assert_allclose(rows.mean(axis=0), X[Y == 2].mean(axis=0), atol=0.25)
    both = model.sample(4, condition=["setosa", "setosa", "virginica", "virginica"], random_state=0)
    assert both[:2, 2].max() < 2.5 < both[2:, 2].min()  # petals
    model.save(tmp_path)
    np.testing.assert_array_equal(diabolo.load(tmp_path).sample(200, condition="virginica", random_state=0), rows)
    assert model.sample(20, random_state=0).shape == (20, 4)
    with pytest.raises(ValueError, match="no class 'rosa'"):
        model.sample(1, condition="rosa")
    with pytest.raises(ValueError, match="knows no classes"):
        model.fit_prior(X, "normal").prior_.sample(1, labels="setosa")


def test_images_frames_and_conditions():
    images = Autoencoder(4, **QUICK).fit(DIGITS).fit_prior(DIGITS, "normal", random_state=0)
    assert images.sample(3, random_state=0).shape == (3, 8, 8)
    frame = pd.DataFrame({"a": X[:, 0], "kind": np.array(["x", "y", "z"])[Y]})
    drawn = Autoencoder(2, **QUICK).fit(frame).fit_prior(frame, "normal", random_state=0).sample(20, random_state=0)
    assert set(drawn["kind"]) <= {"x", "y", "z"}
    told = ConditionalVAE(2, **QUICK).fit(X, Y).fit_prior(X, "mixture", condition=Y, random_state=0)
    assert told.sample(4, condition=1, random_state=0).shape == (4, 4)


def test_what_is_unknown_in_a_condition_is_drawn_from_rows_that_agree():
    rng = np.random.default_rng(0)
    place = rng.integers(2, size=600)
    table = pd.DataFrame(
        {
            "x": rng.normal(size=600),
            "place": np.array(["hill", "sea"])[place],
            "height": np.where(place == 0, 900.0, 3.0) + rng.normal(size=600),
        }
    )
    model = ConditionalVAE(1, condition=("place", "height"), **QUICK).fit(table)
    drawn = model.sample(200, condition={"place": "sea", "height": None}, random_state=0)
    assert (drawn["place"] == "sea").all()
    assert drawn["height"].max() < 10
    assert drawn["height"].nunique() > 50  # many of them, not one
    high = model.sample(200, condition={"place": None, "height": 880.0}, random_state=0)
    assert set(high["place"]) == {"hill"}
    both = model.sample(400, random_state=0)
    assert abs((both["place"] == "sea").mean() - place.mean()) < 0.1  # four standard errors


def test_blocks_hold_as_many_rows_and_repeat():
    vae = VAE(2, **QUICK).fit(X)
    blocks = list(vae.sample_blocks(25, rows=10, random_state=0))
    assert [len(b) for b in blocks] == [10, 10, 5]
    again = np.concatenate(list(vae.sample_blocks(25, rows=10, random_state=0)))
    np.testing.assert_array_equal(np.concatenate(blocks), again)
    assert len(np.unique(again, axis=0)) == 25
    first = next(vae.sample_blocks(10**12, random_state=0))  # what is not asked for is not made
    assert len(first) == 10_000
    np.testing.assert_array_equal(next(vae.sample_blocks(5, random_state=3)), vae.sample(5, random_state=3))


def test_bad_input():
    model = Autoencoder(2, **QUICK).fit(X)
    with pytest.raises(
        ValueError, match=r"prior='flow': expected 'auto', 'own' or 'fitted'; .* fit_prior\(X, 'flow'\)"
    ):
        model.sample(3, prior="flow")
    with pytest.raises(TypeError, match="has no fitted prior"):
        model.sample(3, prior="fitted")
    with pytest.raises(ValueError, match="at least 2"):
        model.fit_prior(X[:1])
    with pytest.raises(ParameterError, match="method='gmm'"):
        model.fit_prior(X, "gmm")
    model.fit_prior(X, "normal", random_state=0)
    with pytest.raises(ValueError, match="n=0: expected at least 1"):
        model.sample(0)
    with pytest.raises(ValueError, match="n=0"):
        next(model.sample_blocks(0))
    with pytest.raises(ValueError, match="expected a variance"):
        CodePrior("normal").fit(RING, noise=-RING)
    with pytest.raises(ValueError, match="equally likely"):
        HypersphericalVAE(3, **QUICK).fit(X).sample(2, temperature=0.5)


def test_few_codes_and_flat_ones():
    for method in ("normal", "mixture", "kernel"):
        assert np.isfinite(prior(method, RING[:2]).sample(5, random_state=0)).all()
        flat = np.column_stack([RING[:50, 0], np.zeros(50)])  # a unit that says nothing
        drawn = prior(method, flat).sample(50, random_state=0)
        assert np.abs(drawn[:, 1]).max() < 0.1
    assert np.isfinite(prior("flow", RING[:3]).sample(2, random_state=0)).all()
