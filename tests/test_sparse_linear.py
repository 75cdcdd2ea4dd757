"""The linear layer that leaves zeros out, and the multinomial's sum: both against the plain formula."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diabolo.parts.likelihoods import Multinomial
from diabolo.parts.networks.sparse import SparseLinear, filled
from diabolo.training.optimizer import Optimizer

F64 = 1e-10  # of sums in float64


def rows(share, n=30, d=40, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, d, generator=generator, dtype=dtype) * (torch.rand(n, d, generator=generator) < share)
    x[3] = 0  # a row without anything
    return x


def layers():
    torch.manual_seed(0)
    plain = nn.Linear(40, 7).double()
    return plain, SparseLinear.like(copy.deepcopy(plain))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.6])  # above an eighth the product is an ordinary one
def test_values_and_gradients_are_those_of_a_linear_layer(share):
    x, (plain, sparse) = rows(share), layers()
    wanted, found = plain(x), sparse(x)
    torch.testing.assert_close(found, wanted, rtol=F64, atol=F64)
    for out in (wanted, found):
        out.tanh().square().sum().backward()
    torch.testing.assert_close(sparse.weight.grad, plain.weight.grad, rtol=F64, atol=F64)
    torch.testing.assert_close(sparse.bias.grad, plain.bias.grad, rtol=F64, atol=F64)
    assert sparse.weight.shape == (7, 40)
    assert sparse.weight.T.is_contiguous()


def test_gradients_add_up_and_an_input_that_wants_one_gets_it():
    x, (plain, sparse) = rows(0.05), layers()
    for layer in (plain, sparse):
        (layer(x) + layer(2 * x)).square().sum().backward()
        layer(x).sum().backward()
    torch.testing.assert_close(sparse.weight.grad, plain.weight.grad, rtol=F64, atol=F64)
    x.requires_grad_(True)
    assert torch.autograd.gradcheck(sparse, (x,))


def test_the_optimiser_moves_both_layouts_alike_and_takes_up_its_state():
    x, (plain, sparse) = rows(0.05), layers()
    moved = []
    for layer in (plain, sparse):
        optimizer = Optimizer(layer.parameters(), lr=0.1, weight_decay=0.1)
        for i in range(4):
            if i == 2:  # a run that is taken up
                state = {k: v.clone() for k, v in optimizer.tensors().items()}
                optimizer = Optimizer(layer.parameters(), lr=0.1, weight_decay=0.1)
                optimizer.load(state)
            layer(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        moved.append(layer)
    torch.testing.assert_close(moved[1].weight, moved[0].weight, rtol=1e-6, atol=1e-8)  # Adam divides by small numbers
    sparse.weight.grad = torch.ones(7, 40, dtype=torch.float64)  # another layout than the weight's
    Optimizer([sparse.weight], lr=0.1).step()


def test_filled_cells_are_those_that_are_not_zero():
    x = rows(0.3)
    assert torch.equal(filled(x), x.flatten().nonzero()[:, 0])


def test_the_sum_of_the_multinomial_has_the_gradient_of_its_parts():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(6, 1, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.poisson(torch.ones(6, 9, dtype=torch.float64), generator=generator)
    x[2] = 0
    found = Multinomial((9,)).total(raw, x)
    wanted = (x * F.log_softmax(raw[:, 0], dim=1)).sum()
    torch.testing.assert_close(found, wanted, rtol=F64, atol=F64)
    (gradient,) = torch.autograd.grad(3 * found, raw)
    (expected,) = torch.autograd.grad(3 * wanted, raw)
    torch.testing.assert_close(gradient, expected, rtol=F64, atol=F64)
