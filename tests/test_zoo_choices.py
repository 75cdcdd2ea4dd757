"""Models of what users choose: likelihoods against closed forms, and that they find what was hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse, stats
from scipy.special import gammaln, log_softmax

from diabolo import AutoRec, DenoisingAutoencoder, MultDAE, MultVAE, Recommender
from diabolo.checks import ParameterError
from diabolo.parts.likelihoods import Multinomial, Ratings
from diabolo.records import Batch
from diabolo.seeding import seeded
from test_recommender import KIND, S, X, taste

F64 = 1e-9  # of sums in float64
QUICK = {"random_state": 0, "device": "cpu"}


def amounts(n=7, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.poisson(2.0, (n, d)).astype(float), rng.normal(size=(n, 1, d))


def test_the_multinomial_is_that_of_scipy_less_the_count_of_orders():
    x, raw = amounts()
    x[:, 0] += 1
    likelihood = Multinomial((5,)).double().eval()
    full = likelihood.complete(torch.tensor(raw), torch.tensor(x))
    found = likelihood.rows(full, torch.tensor(x)).numpy()
    shares = np.exp(log_softmax(raw[:, 0], axis=1))
    for row, share, value in zip(x, shares, found, strict=True):
        orders = gammaln(row.sum() + 1) - gammaln(row + 1).sum()
        assert stats.multinomial(int(row.sum()), share).logpmf(row) == pytest.approx(value + orders, abs=F64)
    np.testing.assert_allclose(likelihood.mean(full).numpy(), shares * x.sum(1, keepdims=True), rtol=F64)
    np.testing.assert_allclose(likelihood.total(full, torch.tensor(x)), found.sum(), rtol=F64)
    # in training a constant of each row is left out, which changes nothing
    training = likelihood.train().complete(torch.tensor(raw), torch.tensor(x))
    np.testing.assert_allclose(likelihood.rows(training, torch.tensor(x)).numpy(), found, rtol=F64)


def test_without_a_network_the_multinomial_gives_everybody_what_is_popular():
    x, _ = amounts(400)
    x[:, 1] *= 3
    likelihood = Multinomial((5,), known=False).double().eval()
    likelihood.learn(torch.tensor(x))
    mean = likelihood.mean(likelihood.complete(torch.zeros(1, 1, 5, dtype=torch.float64))).numpy()[0]
    np.testing.assert_allclose(mean / mean.sum(), x.sum(0) / x.sum(), rtol=2e-3)  # half a choice is added to each
    assert mean.sum() == pytest.approx(np.median(x.sum(1)))


def test_draws_of_the_multinomial_keep_the_total_and_have_its_shares():
    likelihood = Multinomial((4,)).eval()
    x = torch.tensor([[30.0, 0, 0, 0], [0, 3.0, 0, 0]]).repeat_interleave(2000, 0)
    raw = torch.tensor([0.0, 1.0, -1.0, 0.5]).expand(4000, 1, 4)
    with seeded(0):
        drawn = likelihood.sample(likelihood.complete(raw, x)).numpy()
    assert (drawn.sum(1) == x.sum(1).numpy()).all()
    share = np.exp(log_softmax([0.0, 1.0, -1.0, 0.5]))
    error = np.sqrt(share * (1 - share) / (2000 * 30))
    assert (np.abs(drawn[:2000].mean(0) / 30 - share) < 4 * error).all()  # four standard errors


def test_ratings_that_are_not_there_have_no_part_in_the_loss():
    x = np.array([[5.0, 0.0, 3.0], [0.0, 2.0, 4.0]])
    raw = torch.tensor([[[4.0, 9.0, 3.0]], [[1.0, 2.5, 7.0]]], dtype=torch.float64)
    likelihood = Ratings((3,)).double()
    found = likelihood.rows(likelihood.complete(raw), torch.tensor(x))
    wanted = stats.norm.logpdf(x, raw[:, 0].numpy()) * (x > 0)
    np.testing.assert_allclose(found.numpy(), wanted.sum(1), rtol=F64)
    likelihood.learn(torch.tensor(x))
    mean = x.sum() / 4
    np.testing.assert_allclose(likelihood.base.numpy(), (x.sum(0) + 5 * mean) / ((x > 0).sum(0) + 5), rtol=F64)
    shown = likelihood.shown(torch.tensor(x)).numpy()
    np.testing.assert_allclose(shown, np.where(x > 0, x - likelihood.base.numpy(), 0), rtol=F64)


def test_validation_asks_for_what_was_hidden_and_training_for_that_and_a_share_of_the_rest():
    model = MultDAE(2, level=0.5, seen_weight=0.25, max_epochs=1, **QUICK).fit(X)
    module, batch = model.module_, Batch(torch.tensor(X, dtype=torch.float32))
    for training, weight in ((False, 0.0), (True, 0.25)):
        module.train(training)
        with seeded(0):
            trace = module.trace(batch, sample=False, corrupt=True)
        shown = trace.x_in
        assert 0.4 < float(shown.sum() / batch.x.sum()) < 0.6
        assert torch.equal(trace.batch.x, torch.where(shown > 0, weight * batch.x, batch.x))
    whole = module.trace(batch, sample=False)
    assert torch.equal(whole.batch.x, batch.x)


@pytest.mark.parametrize("model", [MultDAE(8, max_epochs=60, **QUICK), MultVAE(8, max_epochs=60, **QUICK)])
def test_networks_find_the_taste_of_new_users(model):
    many, _ = taste(1000, seed=1)
    fitted = Recommender(model).fit(sparse.csr_array(many))
    items, _ = fitted.recommend(S, 1)
    assert (items[:, 0] % 3 == KIND).mean() > 0.7  # a third by chance
    assert fitted.models_[0].choices_["likelihood"] == "multinomial"


def test_autorec_predicts_ratings_better_than_the_means_of_items():
    rng = np.random.default_rng(0)
    taste, kind = rng.normal(size=(400, 2)), rng.normal(size=(2, 30))
    full = np.clip(3 + taste @ kind, 1, 5)
    there = rng.random(full.shape) < 0.5
    hidden = there & (rng.random(full.shape) < 0.2)
    seen = np.where(there & ~hidden, full, 0)
    fitted = Recommender(AutoRec(8, learning_rate=5e-3, max_epochs=100, **QUICK), values="raw").fit(seen)
    assert fitted.models_[0].choices_["likelihood"] == "ratings"
    predicted = fitted.score_items(seen)
    means = seen.sum(0) / (seen > 0).sum(0)
    error = np.square(predicted - full)[hidden].mean()
    assert error < 0.6 * np.square(means - full)[hidden].mean()
    assert np.abs(predicted.mean() - full.mean()) < 0.2  # in stars


def test_data_that_are_no_amounts_have_the_usual_likelihood():
    rows = np.random.default_rng(0).normal(size=(60, 4))
    assert MultDAE(2, max_epochs=1, **QUICK).fit(rows).choices_["likelihood"] == "gaussian"
    assert MultVAE(2, max_epochs=1, norm="layer", **QUICK).fit(rows).choices_["likelihood"] == "learned_gaussian"
    assert MultDAE(2, max_epochs=1, **QUICK).fit(rows**2).choices_["scale"] == "none"
    with pytest.raises(ParameterError, match="scale='standard': amounts, as likelihood='multinomial' takes them"):
        MultDAE(2, likelihood="multinomial", scale="standard").fit(rows**2)
    with pytest.raises(ValueError, match="Multinomial needs numbers of at least 0; column '0' has -"):
        DenoisingAutoencoder(2, likelihood="multinomial", max_epochs=1, **QUICK).fit(-(rows**2))
