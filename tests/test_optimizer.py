"""The optimiser against torch's AdamW, an independent SOAP, and what it must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from diabolo import Autoencoder
from diabolo.seeding import seeded
from diabolo.training.optimizer import Optimizer


def network(dtype=torch.float32):
    with seeded(0):
        return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Unflatten(1, (1, 3, 3)), nn.Conv2d(1, 4, 2)).to(dtype)


def descend(module, optimizer, steps, skip=()):
    x = torch.linspace(-1, 1, 30, dtype=next(module.parameters()).dtype).view(5, 6)
    for _ in range(steps):
        optimizer.zero_grad()
        (module(x) - 1).square().sum().backward()
        for p in skip:
            p.grad = None
        optimizer.step()


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_without_turning_it_is_adamw():
    ours, theirs = network(), network()
    descend(ours, Optimizer(ours.parameters(), lr=0.01, weight_decay=0.1), 30)
    descend(theirs, torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1, fused=True), 30)
    assert torch.equal(weights(ours), weights(theirs))


def test_a_parameter_without_gradient_stays():
    for widest in (0, 100):
        module = network()
        kept = [module[0].weight, module[3].bias]
        before = [p.detach().clone() for p in kept]
        descend(module, Optimizer(module.parameters(), lr=0.01, widest=widest), 3, skip=kept)
        assert all(torch.equal(p, b) for p, b in zip(kept, before, strict=True))
        assert not torch.equal(module[0].bias, network()[0].bias)


def soap_by_hand(shape, steps, lr, decay, betas=(0.9, 0.95), every=10):
    """Algorithm 3 of Vyas et al. (2024) with one side turned, on a quadratic, written out with every matrix in full."""
    with seeded(1):
        W, T = torch.randn(shape, dtype=torch.float64), torch.randn(shape[1], shape[1], dtype=torch.float64)
    weigh = torch.linspace(1, 3, shape[0], dtype=torch.float64)[:, None]
    left = shape[0] < shape[1]
    n = min(shape)
    M, V, L = torch.zeros_like(W), torch.zeros_like(W), torch.zeros(n, n, dtype=torch.float64)
    for t in range(1, steps + 1):
        G = 2 * weigh * (W @ T - 1) @ T.T
        L = betas[1] * L + (1 - betas[1]) * (G @ G.T if left else G.T @ G)
        if t == 1:
            Q = torch.linalg.eigh(L)[1].flip(1)
        elif t % every == 0:
            Q = torch.linalg.qr(L @ Q)[0]
        M = betas[0] * M + (1 - betas[0]) * G  # not turned, unlike in the library
        turned, mean = (Q.T @ G, Q.T @ M) if left else (G @ Q, M @ Q)
        V = betas[1] * V + (1 - betas[1]) * turned**2
        move = mean / (1 - betas[0] ** t) / ((V / (1 - betas[1] ** t)).sqrt() + 1e-8)
        W = W - lr * decay * W - lr * (Q @ move if left else move @ Q.T)
    return W, T, weigh


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
def test_turning_is_soap(shape):
    W, T, weigh = soap_by_hand(shape, 35, 0.01, 0.1)
    ours, _, _ = soap_by_hand(shape, 0, 0.01, 0.1)
    ours.requires_grad_()
    optimizer = Optimizer([ours], lr=0.01, weight_decay=0.1, widest=7)
    for _ in range(35):
        optimizer.zero_grad()
        (weigh * (ours @ T - 1).square()).sum().backward()
        optimizer.step()
    torch.testing.assert_close(ours.detach(), W, rtol=1e-8, atol=1e-8)  # some hundred float64 operations


def test_a_turned_quadratic_is_no_harder():
    """Adam depends on the axes of the weights; along a side that is turned SOAP does not."""
    with seeded(0):
        W, R = torch.randn(3, 8, dtype=torch.float64), torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
        scale = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)[:, None]

    def loss_after(turn, widest):
        w = (turn.T @ W).requires_grad_()
        optimizer = Optimizer([w], lr=0.02, widest=widest)
        for _ in range(40):
            optimizer.zero_grad()
            (scale * (turn @ w) ** 2).sum().backward()
            optimizer.step()
        return float((scale * (turn @ w.detach()) ** 2).sum())

    plain = torch.eye(3, dtype=torch.float64)
    assert math.isclose(loss_after(plain, 8), loss_after(R, 8), rel_tol=1e-6)
    assert not math.isclose(loss_after(plain, 0), loss_after(R, 0), rel_tol=1e-2)


def test_its_tensors_are_all_that_a_run_needs_to_go_on():
    whole, half = network(), network()
    first = Optimizer(whole.parameters(), lr=0.01, widest=100)
    descend(whole, first, 25)
    begun = Optimizer(half.parameters(), lr=0.01, widest=100)
    descend(half, begun, 13)
    resumed = Optimizer(half.parameters(), lr=0.01, widest=100)
    resumed.load({k: v.clone() for k, v in begun.tensors().items()})
    descend(half, resumed, 12)
    assert torch.equal(weights(whole), weights(half))


def test_soap_needs_fewer_steps_on_a_narrow_network():
    X = load_digits().data / 16
    few = {"hidden": (), "network": "mlp", "max_epochs": 10, "random_state": 0, "validation_fraction": 0}
    adam = Autoencoder(16, learning_rate=1e-2, **few).fit(X)
    soap = Autoencoder(16, learning_rate=1e-2, optimizer="soap", **few).fit(X)
    assert soap.history_["loss"][-1] < adam.history_["loss"][-1]
