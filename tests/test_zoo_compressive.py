"""A code that costs its bits."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from diabolo import CompressiveAutoencoder
from diabolo.zoo.compressive import RoundedCode

DIGITS = load_digits().data
QUICK = {"max_epochs": 12, "random_state": 0, "device": "cpu"}


def test_the_code_is_whole_steps_and_its_cost_that_of_the_density():
    torch.manual_seed(0)
    code = RoundedCode(3, beta=0.5).eval()
    h = torch.randn(20, 3)
    found = code(h, sample=True)
    symbols = found.aux["symbols"]
    assert torch.equal(symbols, symbols.round())
    torch.testing.assert_close(found.z, symbols / 4)
    assert (found.z - h).abs().max() <= 0.125 + 1e-6  # half a step
    mass = torch.exp2(-code.density.bits(symbols))
    torch.testing.assert_close(found.costs["rate"], -0.5 * mass.log().sum(dim=1))


def test_a_code_on_a_grid_costs_the_sum_over_its_places():
    torch.manual_seed(0)
    code = RoundedCode(2, beta=1.0).eval()
    h = torch.randn(4, 2, 3, 3)
    places = h.permute(0, 2, 3, 1).reshape(-1, 2)
    torch.testing.assert_close(
        code(h, sample=False).costs["rate"], code(places, sample=False).costs["rate"].view(4, 9).sum(dim=1)
    )


def test_a_dearer_code_is_shorter_and_rebuilds_worse():
    rates, errors = [], []
    for beta in (0.1, 10.0):
        model = CompressiveAutoencoder(8, beta=beta, **QUICK).fit(DIGITS)
        rates.append(min(model.history_["val_rate"]) / beta)
        errors.append(np.square(model.reconstruct(DIGITS) - DIGITS).mean())
    assert rates[1] < 0.7 * rates[0]
    assert errors[1] > errors[0]


def test_the_rate_is_the_entropy_of_the_symbols_or_more():
    model = CompressiveAutoencoder(4, **QUICK).fit(DIGITS)
    code = model.module_.bottleneck
    symbols = np.rint(model.transform(DIGITS) * np.exp(code.log_steps.detach().numpy()))
    entropy = 0.0
    for column in symbols.T:
        share = np.unique(column, return_counts=True)[1] / len(column)
        entropy -= (share * np.log(share)).sum()
    rate = float(code.density.bits(torch.from_numpy(symbols).float()).sum(dim=1).mean().detach()) * math.log(2)
    assert entropy < rate < 1.25 * entropy  # of a smooth density; the entropy of 1,797 rows is a little too small


def test_on_convolutions():
    model = CompressiveAutoencoder(4, network="conv", **QUICK).fit(DIGITS[:300].reshape(-1, 8, 8))
    assert model.reconstruct(DIGITS[:3].reshape(-1, 8, 8)).shape == (3, 8, 8)
    with pytest.raises(TypeError, match="no prior"):
        model.sample(2)
