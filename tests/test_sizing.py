"""The size of the code that the data need."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris

import diabolo
from diabolo import VAE, Autoencoder, Stream
from diabolo.checks import ParameterError
from diabolo.sizing import find_size


@pytest.mark.parametrize("needed", [1, 2, 5, 17, 32])
@pytest.mark.parametrize("noise", [0.0, 0.0005])
def test_the_search_finds_where_distortion_ends_in_few_looks(needed, noise):
    looks = []

    def measure(k):
        looks.append(k)
        return np.full(50, 0.1 * max(0, needed - k) - noise * k)  # each number explains noise, too

    sizes = find_size(60, measure)
    assert sizes.chosen == needed
    assert len(looks) <= 9
    assert len(set(looks)) == len(looks)


def test_a_difference_within_its_error_is_none():
    rng = np.random.default_rng(0)
    noise = {k: rng.normal(0, 0.5, 400) for k in range(33)}  # a standard error of .035 of a difference
    sizes = find_size(60, lambda k: noise[k] + 0.1 * max(0, 4 - k))
    assert 3 <= sizes.chosen <= 5


@pytest.mark.parametrize(("rank", "model"), [(3, Autoencoder), (6, Autoencoder), (4, VAE)])
def test_the_rank_of_a_table_is_found(rank, model):
    rng = np.random.default_rng(rank)
    X = rng.normal(size=(500, rank)) @ rng.normal(size=(rank, 25)) + 0.1 * rng.normal(size=(500, 25))
    found = model(latent_dim="search", hidden=(), max_epochs=40, random_state=0).fit(X)
    assert abs(found.latent_dim_ - rank) <= (0 if model is Autoencoder else 1)
    assert found.transform(X).shape == (500, found.latent_dim_)
    assert found.choices_["latent_dim"] == found.latent_dim_
    assert str(found.latent_dim_) in found.choices_["latent_dim_curve"]


def test_a_searched_model_is_saved_and_fitted_again(tmp_path):
    X = load_iris().data
    model = Autoencoder(latent_dim="search", hidden=(8,), max_epochs=8, random_state=0).fit(X)
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert again.choices_ == model.choices_
    first = model.transform(X)
    np.testing.assert_array_equal(model.fit(X).transform(X), first)


def test_what_cannot_be_searched():
    with pytest.raises(ValueError, match="expected 20 or more"):
        Autoencoder(latent_dim="search").fit(np.random.default_rng(0).normal(size=(10, 3)))
    with pytest.raises(ParameterError, match="rows in memory"):
        Autoencoder(latent_dim="search").fit(Stream([load_iris().data]))
    with pytest.raises(ParameterError, match="Did you mean 'search'"):
        Autoencoder(latent_dim="serach").fit(load_iris().data)
