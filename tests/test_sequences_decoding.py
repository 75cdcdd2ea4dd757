"""How sequences are written from codes: greedy, drawn, and by beams."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from diabolo.data.tokens import END, UNKNOWN
from diabolo.parts.networks.sequences import NETWORKS
from diabolo.records import Batch
from diabolo.tasks.decoding import beam_search, generate, kept, nucleus
from test_sequences import constant, untrained


def nats_of(model, z, written):
    """Log-probability of what was written, among what may be written, step by step."""
    x = torch.nn.functional.pad(written, (0, 1), value=END)
    shares = torch.log_softmax(kept(model.module_.decode(z, None, x).flatten(0, 1), fixed=False), dim=1)
    nats = shares.gather(1, x.view(-1, 1)).view(x.shape)
    return (nats * model.module_.counted(x)).sum(dim=1)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_beam_of_one_is_greedy_and_wider_ones_find_better(network):
    model, z = untrained(network), 2 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    net = model.module_.net
    greedy = generate(net, z, 6)
    one = beam_search(net, z, 6, width=1)
    assert torch.equal(one, greedy)
    means = [nats_of(model, z, beam_search(net, z, 6, width=w))[greedy.ne(END).sum(1) < 6].mean() for w in (1, 4)]
    assert means[1] >= means[0] - 1e-4


@pytest.mark.parametrize("network", NETWORKS)
def test_a_wide_beam_finds_the_likeliest_of_all(network):
    """Every array of four of two tokens is looked at: 16 beginnings leave none out."""
    model = untrained(network, np.array([[0, 1, 1, 0], [1, 0, 1, 1]]))
    z = 2 * torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    x = torch.tensor(list(product([2, 3], repeat=4)))
    found = beam_search(model.module_.net, z, 4, width=16, fixed=True)
    for code, row in zip(z, found, strict=True):
        logits = model.module_.decode(code.expand(16, -1), None, x)
        nats = torch.log_softmax(kept(logits.flatten(0, 1), fixed=True), dim=1).gather(1, x.view(-1, 1)).view(16, 4)
        assert torch.equal(row, x[nats.sum(dim=1).argmax()])


def test_beams_end_when_the_best_has_ended():
    model = constant([0.6, 0.1, 0.2, 0.1], np.zeros(6))
    assert torch.equal(beam_search(model.module_.net, torch.zeros(3, 3), 50, width=4), torch.zeros(3, 1))


def test_a_nucleus_is_the_smallest_set_with_the_share():
    shares = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.97, 0.01, 0.01, 0.01]])
    assert torch.equal(nucleus(shares, 0.7), torch.tensor([[0, 0.5, 0, 0.25], [0.97, 0, 0, 0]]))
    torch.testing.assert_close(nucleus(shares, 1.0), shares)
    model = constant([0.3, 0.2, 0.4, 0.1], np.zeros(6))  # without the unknown: 0.375, 0.5, 0.125
    made = generate(model.module_.net, torch.zeros(500, 3), 5, decoding="nucleus", top_p=0.6)
    assert set(made.flatten().tolist()) == {END, 2}
    made = generate(model.module_.net, torch.zeros(500, 3), 5, decoding="nucleus", top_p=0.4)
    assert set(made.flatten().tolist()) == {2}


def test_tokens_are_drawn_by_their_chances():
    model = constant([0.3, 0.2, 0.4, 0.1], np.zeros(6))
    torch.manual_seed(0)
    for temperature in (1.0, 2.0):
        made = generate(model.module_.net, torch.zeros(4000, 3), 1, decoding="sample", temperature=temperature)
        chance = np.array([0.3, 0.0, 0.4, 0.1]) ** (1 / temperature)
        chance /= chance.sum()
        share = np.bincount(made.flatten(), minlength=4) / 4000
        assert share[UNKNOWN] == 0
        np.testing.assert_allclose(share, chance, atol=4 * np.sqrt(0.25 / 4000))  # four standard errors


def test_drawn_sequences_are_as_likely_as_they_say():
    """The share of each short word among many is the likelihood of the word under the model."""
    model = untrained("recurrent")
    model.module_.net.logits.bias.data[UNKNOWN] = -30.0
    z = torch.ones(1, 3)
    torch.manual_seed(0)
    made = generate(model.module_.net, z.expand(5000, -1), 8, decoding="sample")
    for word in ([], [2], [3], [2, 3]):
        x = torch.tensor([[*word, END]])
        chance = model.module_.log_prob(model.module_.decode(z, None, x), Batch(x)).exp().item()
        same = (made[:, : len(word) + 1] == x).all(dim=1).double().mean().item()
        assert same == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / 5000))  # four standard errors


def test_no_temperature_is_greedy():
    model, z = untrained("convolutional"), torch.randn(10, 3)
    for way in ("sample", "nucleus"):
        assert torch.equal(
            generate(model.module_.net, z, 6, decoding=way, temperature=0.0), generate(model.module_.net, z, 6)
        )
    Z = z.double().numpy()
    whole = model.inverse_transform(Z)
    assert whole == [model.inverse_transform(row[None])[0] for row in Z]
