"""Which units of a variational code are in use, against closed forms and draws; collapse is said, and only then."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine
from torch.distributions import Normal, kl_divergence

import diabolo
from diabolo import VAE, BetaVAE, HypersphericalVAE, MixturePriorVAE, PosteriorCollapseWarning
from diabolo.parts.bottlenecks import Gaussian, Identity
from diabolo.records import Code
from diabolo.report.facts import gather
from diabolo.seeding import seeded
from diabolo.zoo.activity import CodeActivity, collapse_message
from diabolo.zoo.hyperspherical import VonMisesFisher
from diabolo.zoo.variational import LearnedMixture
from rows import MODELS, identify

X = load_iris().data
NOISE = np.random.default_rng(0).normal(size=(400, 8))
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
VARIATIONAL = [row for row in MODELS if hasattr(row.estimator, "kl_warmup")]


def test_a_unit_is_active_when_the_row_makes_more_than_a_hundredth_of_its_variance():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5000, 4)) * np.sqrt([1.0, 0.02, 0.005, 5e-6])
    noise = np.broadcast_to([0.1, 0.98, 0.99, 1e-6], means.shape)
    activity = CodeActivity.of(np.stack([means, noise], axis=1))
    np.testing.assert_allclose(activity.variance, means.var(axis=0))
    np.testing.assert_allclose(activity.noise, [0.1, 0.98, 0.99, 1e-6])
    assert activity.kl is None
    # the last unit is small but hardly noisy: under a learned prior a code may have any scale
    assert activity.active.tolist() == [True, True, False, True]
    assert activity.n_active == 3


def test_moments_of_a_gaussian_code_equal_torch():
    with seeded(0):
        h = torch.randn(7, 6, dtype=torch.float64)
    bottleneck = Gaussian(3, beta=4.0)
    mean, variance, kl = bottleneck.moments(bottleneck(h, sample=False))
    posterior = Normal(h[:, :3], (0.5 * h[:, 3:]).exp())
    torch.testing.assert_close(mean, posterior.mean)
    torch.testing.assert_close(variance, posterior.variance)
    torch.testing.assert_close(kl, kl_divergence(posterior, Normal(0.0, 1.0)).double())  # beta has no part in it
    assert Identity(3).moments(Code(h, {}, {})) is None


def test_the_divergence_of_a_unit_from_a_mixture_of_one_is_closed():
    with seeded(0):
        mixture = LearnedMixture(3, 1).double()
        h = torch.randn(7, 6, dtype=torch.float64)
    _, _, kl = mixture.moments(mixture(h, sample=False))
    prior = Normal(mixture.means[0], (0.5 * mixture.logvars[0]).exp())
    torch.testing.assert_close(kl, kl_divergence(Normal(h[:, :3], (0.5 * h[:, 3:]).exp()), prior))


@pytest.mark.parametrize(("d", "concentration"), [(2, 3.0), (4, 0.5), (4, 30.0)])
def test_moments_on_the_sphere_equal_those_of_draws(d, concentration):
    n = 40_000
    with seeded(0):
        bottleneck = VonMisesFisher(d)
        h = torch.cat([torch.randn(1, d), torch.tensor([[np.log(np.expm1(concentration))]]).float()], dim=1)
        mean, variance = bottleneck.moments(bottleneck(h, sample=False))
        z = bottleneck(h.expand(n, -1), sample=True).z
    torch.testing.assert_close(mean[0], z.mean(0), rtol=0, atol=5 / n**0.5)  # no unit spreads more than 1
    torch.testing.assert_close(variance[0], z.var(0), rtol=0, atol=5 / n**0.5)


@pytest.mark.parametrize("row", VARIATIONAL, ids=identify)
def test_every_variational_model_tells_its_activity(row):
    model = clone(row.estimator).fit(X, (X[:, 3] > 1).astype(int))
    activity = model.activity(X)
    width = model.transform(X).shape[1]
    assert activity.variance.shape == activity.noise.shape == activity.active.shape == (width,)
    assert (activity.variance >= 0).all()
    assert (activity.noise > 0).all()
    if activity.kl is not None:
        assert activity.kl.shape == (width,)
        assert (activity.kl > -1e-6).all()  # a bound of a divergence, in float64 from float32 weights
    units = gather(model, X).units
    assert units.variational
    assert units.n_active == activity.n_active


def test_collapse_is_said_once_and_remembered(tmp_path):
    with pytest.warns(PosteriorCollapseWarning, match="posterior collapse: (only 1|the code is)") as caught:
        model = BetaVAE(4, beta=1000.0, hidden=(16,), max_epochs=40, learning_rate=0.02, random_state=0).fit(X)
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the line of the user's own that called fit
    message = str(caught[0].message)
    assert "a longer kl_warmup than 0.1, or a smaller beta than 1000, or free_bits=0.1." in message
    assert model.activity(X).n_active < 2
    assert model.history_.events == [message]
    model.save(tmp_path / "m")
    assert diabolo.load(tmp_path / "m").history_.events == [message]


def test_the_remedies_are_parameters_that_the_model_has():
    assert MixturePriorVAE()._remedies() == ("a longer kl_warmup than 0.1",)
    assert HypersphericalVAE(kl_warmup=1.0)._remedies() == ()  # it rises as slowly as it can
    assert VAE(beta=2.0, free_bits=0.2)._remedies()[1:] == ("a smaller beta than 2", "free_bits=0.4")


def test_the_message_counts_units():
    def activity(used, n):
        return CodeActivity(np.where(np.arange(n) < used, 1.0, 0.0), np.full(n, 0.5), None)

    assert collapse_message(activity(4, 8), ()) is None  # half is enough
    assert collapse_message(activity(1, 1), ()) is None
    assert "only 1 of 8 units of the code is in use" in collapse_message(activity(1, 8), ())
    assert "only 3 of 8 units of the code are in use" in collapse_message(activity(3, 8), ())
    assert "latent_dim=3 does the same" in collapse_message(activity(3, 8), ())
    assert collapse_message(activity(0, 1), ("x", "y")).endswith("there is nothing to encode. Otherwise try x, or y.")


@pytest.mark.parametrize("model", [VAE(), MixturePriorVAE()], ids=identify)
@pytest.mark.parametrize("rows", [X, load_wine().data, load_digits().data[:400]], ids=["iris", "wine", "digits"])
def test_nothing_is_said_of_real_data_under_default_sizes(model, rows):
    model = clone(model).set_params(max_epochs=5, random_state=0).fit(rows)  # a warning is an error here
    assert model.activity(rows).active.all()
    assert not model.history_.events


def markov_text(n, length, seed=0):
    """Return windows of a made-up language of eight letters, one-hot, ``(n, length * 8)``."""
    rng = np.random.default_rng(seed)
    following = rng.dirichlet(np.full(8, 0.2), size=8)
    letters = rng.integers(0, 8, size=(n, 1))
    for _ in range(length - 1):
        dice = rng.random((n, 1))
        following_sum = following[letters[:, -1]].cumsum(axis=1)
        letters = np.hstack([letters, (dice > following_sum[:, :-1]).sum(axis=1, keepdims=True)])
    return np.eye(8)[letters].reshape(n, -1)


STRONG = [
    ({"hidden": (128, 128, 128), "network": "mlp"}, load_digits().data[:500]),
    ({"hidden": (8, 16), "network": "conv"}, load_digits().images[:300]),
    ({"hidden": (128, 128), "network": "mlp"}, markov_text(500, 12)),
]


@pytest.mark.parametrize(("settings", "rows"), STRONG, ids=["deep", "convolutions", "text"])
def test_with_a_strong_decoder_half_of_the_code_is_in_use_or_the_user_is_told(settings, rows):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = VAE(8, max_epochs=10, random_state=0, **settings).fit(rows)
    told = [w for w in caught if w.category is PosteriorCollapseWarning]
    assert len(told) == (model.activity(rows).n_active < 4) == len(model.history_.events)
