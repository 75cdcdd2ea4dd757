"""The latent space: ways through it, concepts, maps, disentanglement and diagnoses, against what is known."""

from __future__ import annotations

import builtins

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import FactorAnalysis

from diabolo import VAE, VQVAE, Autoencoder, ConditionalVAE, HypersphericalVAE
from diabolo.latent import (
    concept_vector,
    concept_vectors,
    dci,
    diagnose,
    factor_vae_score,
    interpolate,
    latent_map,
    mutual_information_gap,
    nearest,
    separated_attribute_predictability,
    slerp,
    traverse,
)

X, Y = load_iris(return_X_y=True)
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
LINEAR = QUICK | {"hidden": ()}
GRID = np.stack(np.meshgrid(np.arange(4), np.arange(5), np.arange(6)), axis=-1).reshape(-1, 3).repeat(10, axis=0)


@pytest.fixture(scope="module")
def linear():
    return Autoencoder(2, **LINEAR).fit(X)


# ways ---------------------------------------------------------------------------------------------------------------------------


def test_an_arc_keeps_length_and_even_steps():
    a, b = np.array([3.0, 0, 0]), np.array([0.0, 0, 3])
    way = slerp(a, b, np.linspace(0, 1, 7))
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), 3)
    steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0])
    np.testing.assert_allclose(way[[0, -1]], [a, b], atol=1e-12)
    np.testing.assert_allclose(slerp(a, 2 * a, [0.5]), [[4.5, 0, 0]])  # one direction
    np.testing.assert_allclose(slerp(a, -a, [0.25]), [[1.5, 0, 0]])  # opposite ones: a straight line
    np.testing.assert_allclose(slerp(a, 0 * a, [0.5]), a[None] / 2)


def test_a_linear_model_interpolates_rows_linearly(linear):
    way = interpolate(linear, X[:2], X[100:102], 5)
    ends = linear.reconstruct(X[[0, 100]])
    np.testing.assert_allclose(way[:5], np.linspace(ends[0], ends[1], 5), rtol=1e-5)  # float32 weights
    assert way.shape == (10, 4)
    np.testing.assert_allclose(way[[5, 9]], linear.reconstruct(X[[1, 101]]), rtol=1e-5)
    arc = interpolate(linear, X[:1], X[100:101], 5, method="spherical")
    np.testing.assert_allclose(arc[[0, 4]], ends, rtol=1e-5)
    assert not np.allclose(arc[2], way[2])


def test_ways_keep_to_where_codes_may_lie():
    sphere = HypersphericalVAE(3, **QUICK).fit(X)
    middle = interpolate(sphere, X[:1], X[100:101], 3)[1]
    code = sphere.transform(X[[0, 100]]).mean(axis=0)
    np.testing.assert_allclose(middle, sphere.inverse_transform([code / np.linalg.norm(code)])[0], rtol=1e-5)
    words = VQVAE(2, n_codes=4, **QUICK).fit(X)
    assert len(np.unique(interpolate(words, X[:1], X[100:101], 50).round(6), axis=0)) <= 4


def test_frames_images_and_conditions():
    frame = pd.DataFrame({"a": X[:, 0], "kind": np.array(["x", "y", "z"])[Y]})
    assert list(interpolate(Autoencoder(2, **QUICK).fit(frame), frame[:1], frame[149:], 4).columns) == ["a", "kind"]
    digits = load_digits().images[:100]
    model = VAE(3, **QUICK).fit(digits)
    assert interpolate(model, digits[:2], digits[2:4], 4).shape == (8, 8, 8)
    assert traverse(model, digits, n=4).rows.shape == (12, 8, 8)
    told = ConditionalVAE(2, **QUICK).fit(X, Y)
    assert interpolate(told, X[:1], X[1:2], 3, condition=0).shape == (3, 4)


def test_a_traversal_moves_one_unit(linear):
    found = traverse(linear, X, n=5, share=0.9)
    Z = linear.transform(X)
    assert list(found.units) == list(np.argsort(-Z.var(axis=0)))
    np.testing.assert_allclose(found.values[:, [0, -1]].T, np.quantile(Z[:, found.units], [0.05, 0.95], axis=0))
    back = linear.transform(found.rows)
    for i, unit in enumerate(found.units):
        part = back[5 * i : 5 * i + 5]
        np.testing.assert_allclose(part[:, unit], found.values[i], atol=1e-4)  # a linear model reads its own rows back
        np.testing.assert_allclose(part[:, 1 - unit], Z[:, 1 - unit].mean(), atol=1e-4)
    own = traverse(linear, X, base=X[7:8], units=[1], n=3)
    np.testing.assert_allclose(linear.transform(own.rows)[:, 0], Z[7, 0], atol=1e-4)


def test_concepts_are_differences_of_means(linear):
    Z = linear.transform(X)
    v = concept_vector(linear, X[Y == 2], X[Y == 0])
    np.testing.assert_allclose(v, Z[Y == 2].mean(0) - Z[Y == 0].mean(0))
    named = concept_vectors(linear, X, np.array(["a", "b", "c"])[Y])
    np.testing.assert_allclose(named["c"] - named["a"], v)
    np.testing.assert_allclose(sum(named.values()), 0, atol=1e-6)
    changed = linear.inverse_transform(Z[Y == 0] + v)
    np.testing.assert_allclose(changed.mean(0), linear.reconstruct(X)[Y == 2].mean(0), rtol=1e-4)


def test_neighbours(linear):
    index, distance = nearest(linear, X, X[:3], 2)
    assert (distance[:, 0] < 1e-6).all()
    Z = linear.transform(X)
    np.testing.assert_allclose(distance[:, 1], np.linalg.norm(Z[index[:, 1]] - Z[:3], axis=1), atol=1e-6)


# maps ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pca", "tsne", FactorAnalysis(2)], ids=str)
def test_maps_keep_groups_apart(method):
    model = Autoencoder(3, **QUICK).fit(X)
    place = latent_map(model, X[::2], method, random_state=0)
    assert place.shape == (75, 2)
    y = Y[::2]
    setosa, others = place[y == 0], place[y != 0]
    assert (
        np.linalg.norm(setosa - setosa.mean(0), axis=1).mean() < np.linalg.norm(others - setosa.mean(0), axis=1).mean()
    )
    if isinstance(method, str):
        np.testing.assert_array_equal(place, latent_map(model, X[::2], method, random_state=0))


def test_maps_of_small_codes_and_few_rows(linear, monkeypatch):
    assert latent_map(Autoencoder(1, **QUICK).fit(X), X).shape == (150, 2)
    assert latent_map(linear, X[:2]).shape == (2, 2)
    assert latent_map(linear, X[:4], "tsne", random_state=0).shape == (4, 2)
    with pytest.raises(ValueError, match="method='som': expected 'pca'"):
        latent_map(linear, X, "som")
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "umap":
            raise ImportError
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"diabolo\[maps\]"):
        latent_map(linear, X, "umap")


# disentanglement ----------------------------------------------------------------------------------------------------------------


def test_units_that_are_factors_score_one_and_mixed_ones_do_not():
    rng = np.random.default_rng(0)
    apart = GRID * [1.0, -2.0, 0.5] + 0.01 * rng.normal(size=GRID.shape)
    turn = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3  # every unit tells of every factor
    mixed = (GRID / GRID.std(0)) @ turn
    order = rng.permutation(len(GRID))
    a, m, v = apart[order], mixed[order], GRID[order]
    assert mutual_information_gap(a, v) > 0.95
    assert mutual_information_gap(m, v) < 0.35
    assert factor_vae_score(a, v) == 1.0
    assert factor_vae_score(m, v) < 0.9
    assert separated_attribute_predictability(a, v) > 0.6
    assert separated_attribute_predictability(m, v) < 0.4
    good, bad = dci(a, v, n_trees=15), dci(m, v, n_trees=15)
    assert good["disentanglement"] > 0.9 > 0.6 > bad["disentanglement"]
    assert good["completeness"] > 0.9 > 0.6 > bad["completeness"]
    assert good["informativeness"] > 0.95


def test_a_unit_without_variance_does_not_vote():
    codes = np.column_stack([GRID[:, 0], GRID[:, 1], GRID[:, 2], np.zeros(len(GRID))]).astype(float)
    assert factor_vae_score(codes, GRID) == 1.0
    assert mutual_information_gap(codes, GRID) > 0.95


def test_factors_that_tell_nothing_are_refused():
    with pytest.raises(ValueError, match="factor 1 has one value"):
        mutual_information_gap(np.ones((5, 2)), np.column_stack([np.arange(5), np.ones(5)]))
    with pytest.raises(ValueError, match="one unit"):
        dci(np.ones((5, 1)), np.arange(5))
    with pytest.raises(ValueError, match="got shapes"):
        factor_vae_score(np.ones((5, 2)), np.arange(4))


# diagnoses ----------------------------------------------------------------------------------------------------------------------


def test_a_code_without_structure_is_near_its_prior_and_one_with_groups_is_not():
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(1000, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(1000, 5))
    one = diagnose(VAE(2, **QUICK | {"max_epochs": 10}).fit(plain), plain, random_state=0)
    far = plain + np.where(np.arange(1000) % 2, 6.0, -6.0)[:, None]
    model = VAE(2, **QUICK | {"max_epochs": 10}).fit(far)
    two = diagnose(model, far, random_state=0)
    assert one.n_active == two.n_active == 2
    assert one.mismatch < 0.2
    assert one.holes < 0.05
    assert two.mismatch > one.mismatch + 0.2
    assert two.holes > one.holes + 0.05
    assert "2 of 2 units in use" in str(two)
    assert one.mutual_information == pytest.approx(one.kl.sum(), abs=0.2)  # nothing is lost to a mismatch
    filled = model.fit_prior(far, random_state=0)
    assert diagnose(filled, far, random_state=0).holes < two.holes / 2


def test_diagnoses_of_other_codes():
    plain = diagnose(Autoencoder(2, **LINEAR).fit(X), X, random_state=0)
    assert plain.kl is plain.mismatch is plain.holes is plain.mutual_information is None
    assert plain.n_active == 2
    words = diagnose(VQVAE(2, n_codes=64, revive_below=0.0, **QUICK).fit(X[:20]), X[:20], random_state=0)
    assert 0 < words.dead_codes < 1
    assert "symbols unused" in str(words)
    assert diagnose(VAE(2, **QUICK).fit(X), X[:1], random_state=0).n_units == 2


def test_bad_input(linear):
    with pytest.raises(ValueError, match="n=1: expected at least 2"):
        interpolate(linear, X[:1], X[1:2], 1)
    with pytest.raises(ValueError, match="start has 1 row"):
        interpolate(linear, X[:1], X[1:3])
    with pytest.raises(ValueError, match="method='cubic'"):
        interpolate(linear, X[:1], X[1:2], method="cubic")
    with pytest.raises(ValueError, match="units names 5; the code has units 0 to 1"):
        traverse(linear, X, units=[5])
    with pytest.raises(ValueError, match="share=0"):
        traverse(linear, X, share=0)
    with pytest.raises(ValueError, match="1 kind"):
        concept_vectors(linear, X, np.zeros(150))
    with pytest.raises(ValueError, match="one label for each of 150 rows"):
        concept_vectors(linear, X, np.zeros(3))
    with pytest.raises(ValueError, match="k=0: expected 1 to 150"):
        nearest(linear, X, X, 0)
