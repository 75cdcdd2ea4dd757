"""Rows for the loop: every row is seen once a pass, whatever the sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diabolo.records import Schema, Table
from diabolo.seeding import seeded
from diabolo.training import rows as module
from diabolo.training.rows import Selection


def selection(n, width=2, chosen=None):
    x = torch.arange(n, dtype=torch.float32)[:, None].repeat(1, width)
    table = Table(Schema("vector", (width,), n), x, torch.ones_like(x), x + 100)
    return Selection(table, torch.arange(n) if chosen is None else torch.tensor(chosen))


@given(n=st.integers(1, 40), size=st.integers(1, 12), gathered=st.sampled_from([1, 16, 2**18]))
def test_a_pass_shows_every_row_and_no_batch_of_one(n, size, gathered):
    rows = selection(n)
    before, module.GATHERED = module.GATHERED, gathered
    try:
        with seeded(0):
            batches = list(rows.shuffled(size))
    finally:
        module.GATHERED = before
    seen = torch.cat([b.x[:, 0] for b in batches]).tolist()
    assert set(seen) == set(range(n))
    assert all(len(b.x) >= 2 for b in batches)
    assert len(seen) - n <= (n if size == 1 else 1)
    for batch in batches:
        assert torch.equal(batch.context, batch.x + 100)
        assert torch.equal(batch.mask, torch.ones_like(batch.x))


def test_the_order_is_that_of_the_seed_and_not_of_how_much_is_gathered(monkeypatch):
    def order():
        with seeded(3):
            return torch.cat([b.x[:, 0] for b in selection(100).shuffled(7)]).tolist()

    first = order()
    assert first == order() != list(range(100))
    monkeypatch.setattr(module, "GATHERED", 1)
    assert order() == first


@pytest.mark.parametrize("size", [1, 3, 100])
def test_rows_in_order_are_those_chosen(size):
    rows = selection(10, chosen=[7, 1, 4])
    assert torch.cat([b.x[:, 0] for b in rows.in_order(size)]).tolist() == [7, 1, 4]
    assert rows.head(2).x[:, 0].tolist() == [7, 1]
    assert len(rows) == 3
