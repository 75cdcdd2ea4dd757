"""The semi-supervised variational autoencoder: its bound against closed forms, and what rows without a label teach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris
from torch import nn

import diabolo
from diabolo import VAE, Autoencoder, AutoencoderClassifier, AutoencoderModule, AutoencoderRegressor
from diabolo.checks import ParameterError
from diabolo.objectives import elbo
from diabolo.parts.bottlenecks import Gaussian
from diabolo.parts.likelihoods import Gaussian as Normal
from diabolo.records import Batch, Schema
from diabolo.tasks.classes import ClassBound, told_classes

QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
X, Y = load_iris(return_X_y=True)
WEIGHT = torch.tensor([[0.8], [-0.5], [0.3]])  # p(x | y, z) = N(W z + V y, 1), with z of one number
SHIFT = torch.tensor([[0.0, 1.0], [0.5, -1.0], [1.0, 0.2]])
SHARES = torch.tensor([0.3, 0.7])


class Exact(nn.Module):
    """The posterior of that model, which is normal: its mean and log-variance."""

    def forward(self, x, context=None):
        variance = 1 / (1 + WEIGHT.square().sum())
        mean = variance * (x - context @ SHIFT.T) @ WEIGHT
        return torch.cat([mean, variance.log().expand(len(x), 1)], dim=1)


class Linear(nn.Module):
    def forward(self, z, context=None):
        return z @ WEIGHT.T + context @ SHIFT.T


def exact_bound():
    schema = Schema("vector", (3,), 10, context=2)
    module = AutoencoderModule(schema, encoder=Exact(), decoder=Linear(), bottleneck=Gaussian(1), likelihood=Normal())
    return ClassBound(module, SHARES).eval()


def log_joint(x):
    """``log p(x, y)`` in closed form: ``(n, 2)``."""
    covariance = (WEIGHT @ WEIGHT.T + torch.eye(3)).numpy()
    each = [multivariate_normal.logpdf(x, SHIFT[:, y].numpy(), covariance) for y in (0, 1)]
    return np.column_stack(each) + SHARES.log().numpy()


def test_the_bound_of_each_class_is_the_probability_where_the_posterior_is_exact():
    x = torch.tensor([[0.3, -1.0, 0.5], [1.5, 0.2, -0.4]])
    torch.manual_seed(0)
    many = exact_bound().rows(Batch(x.repeat_interleave(20_000, 0)), torch.ones(40_000, 2)).view(2, -1, 2)
    # draws of a bound scatter by about a nat: four standard errors of 20,000
    np.testing.assert_allclose(many.mean(1).numpy(), log_joint(x.numpy()), atol=0.03)


def test_summed_over_classes_it_is_the_probability_of_the_row_less_the_divergence_of_the_classifier():
    row = torch.tensor([[0.3, -1.0, 0.5]])
    joint = torch.from_numpy(log_joint(row.numpy())).float().reshape(1, 2)  # by enumeration
    right = joint.log_softmax(1)
    x, n = Batch(row.repeat(40_000, 1)), 40_000
    wrong = torch.tensor([[0.9, 0.1]]).log()
    for log_q in (right, wrong):
        torch.manual_seed(1)
        found = exact_bound()(x, log_q.repeat(n, 1), torch.zeros(n, 2), torch.zeros(n))
        divergence = (log_q.exp() * (log_q - right)).sum()
        assert float(found) == pytest.approx(float(joint.logsumexp(1) - divergence), abs=0.03)


def test_with_labels_for_all_it_is_the_bound_of_a_model_told_the_class():
    model = VAE(2, **QUICK).fit(X)
    torch.manual_seed(0)
    bound = ClassBound(told_classes(model, 3), torch.ones(3) / 3).eval()
    x = model.codec_.encode(model._read(X, reset=False)).x
    targets = torch.eye(3)[torch.from_numpy(Y)]
    log_q = torch.randn(150, 3).log_softmax(1)  # has no say
    found, plain = [], []
    for _ in range(200):
        found.append(float(bound(Batch(x), log_q, targets, torch.ones(150)).detach()))
        plain.append(float(-elbo(bound.module, Batch(x, context=targets), 1.0).total.detach()) - math.log(3))
    error = math.hypot(np.std(found), np.std(plain)) / math.sqrt(200)
    assert np.mean(found) == pytest.approx(np.mean(plain), abs=4 * error)


def test_kinds_of_rows_count_half_each():
    x, q = Batch(torch.zeros(100_000, 3)), torch.full((100_000, 2), 0.5).log()
    known = (torch.arange(100_000) < 20_000).float()
    targets = torch.tensor([1.0, 0.0]).repeat(100_000, 1)
    torch.manual_seed(0)
    joint = log_joint(np.zeros((2, 3)))[0]
    expected = 0.5 * joint[0] + 0.5 * (joint.mean() + math.log(2))
    assert float(exact_bound()(x, q, targets, known)) == pytest.approx(expected, abs=0.03)


def test_the_classifier_learns_from_the_bound_in_the_second_half_only():
    x, targets, known = Batch(torch.randn(8, 3)), torch.zeros(8, 2), torch.zeros(8)

    def gradient(progress):
        torch.manual_seed(0)
        logits = torch.zeros(8, 2, requires_grad=True)
        bound = exact_bound()
        value = bound(x, logits.log_softmax(1), targets, known, progress)
        return torch.autograd.grad(value, logits, allow_unused=True)[0], float(value.detach())

    (none, first), (half, second), (full, third) = (gradient(p) for p in (0.5, 0.75, 1.0))
    assert none is None or not none.any()
    torch.testing.assert_close(half, full / 2)
    assert first == pytest.approx(second) == pytest.approx(third)


def test_rows_without_a_label_teach():
    gained = []
    for seed in (0, 1):  # two long parallel clusters, of which a code of one number has room for the length alone
        rng = np.random.default_rng(seed)
        y, along = rng.integers(0, 2, 600), 3 * rng.normal(size=600)
        x = np.outer(along, [1, 1, -1, 0.5]) + np.outer(2 * y - 1, [1, -1, 0.5, 0]) + 0.2 * rng.normal(size=(600, 4))
        few = np.full(600, -1)
        for c in (0, 1):
            few[np.flatnonzero(y == c)[:2]] = c
        made = {"n_models": 1, "max_steps": 300, "label_spreading": False, "random_state": seed}
        model = VAE(1, network="mlp", hidden=(32,), max_epochs=20, device="cpu")
        plain = AutoencoderClassifier(model, **made).fit(x, few)
        ours = AutoencoderClassifier(model, method="m2", **made).fit(x, few)
        gained.append(ours.score(x[few < 0], y[few < 0]) - plain.score(x[few < 0], y[few < 0]))
        assert "autoencoder" in ours.histories_[0].keys()  # noqa: SIM118
    assert np.mean(gained) > 0.01  # measured: .032


def test_tables_with_holes_save_and_load(tmp_path):
    holes = X.copy()
    holes[::7, 1] = np.nan
    few = np.where(np.arange(150) % 3 > 0, Y, -1)
    model = AutoencoderClassifier(VAE(2, **QUICK), method="m2", n_models=2, max_steps=50, random_state=0).fit(
        holes, few
    )
    assert model.score(X, Y) > 0.85
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict_proba(holes), model.predict_proba(holes))
    mine, theirs = (m.heads_[0].bound.state_dict() for m in (model, again))
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_models_without_a_posterior_and_numbers_are_refused():
    with pytest.raises(ValueError, match="Autoencoder has no posterior"):
        AutoencoderClassifier(Autoencoder(2, **QUICK), method="m2").fit(X, Y)
    with pytest.raises(ParameterError, match="method='m2'"):
        AutoencoderRegressor(VAE(2, **QUICK), method="m2").fit(X, X[:, 0])
