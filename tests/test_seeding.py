"""Randomness: the caller's streams stay as they were, and the same seed gives the same numbers in any company."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from diabolo.seeding import draw_seed, generator_state, seeded, set_generator_state


def test_a_block_draws_from_its_seed_alone():
    torch.rand(3)
    with seeded(5):
        first = torch.rand(4)
    torch.rand(7)
    with seeded(5):
        assert torch.equal(torch.rand(4), first)
    with seeded(6):
        assert not torch.equal(torch.rand(4), first)
    assert torch.equal(torch.rand(4, generator=torch.Generator().manual_seed(5)), first)


def test_the_callers_stream_is_restored():
    before = torch.get_rng_state()
    with seeded(0):
        torch.rand(100)
    assert torch.equal(torch.get_rng_state(), before)


def draw_and_fail() -> None:
    torch.rand(10)
    raise ZeroDivisionError


def test_the_callers_stream_is_restored_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(0):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(1):  # and the lock is free
        torch.rand(1)


def test_blocks_nest():
    with seeded(1):
        plain = torch.rand(2), torch.rand(2)
    before = torch.get_rng_state()
    with seeded(1):
        one = torch.rand(2)
        with seeded(2), seeded(3):
            torch.rand(5)
        with pytest.raises(KeyError), seeded(4):
            raise KeyError
        two = torch.rand(2)
    assert torch.equal(one, plain[0])
    assert torch.equal(two, plain[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_get_what_each_gets_alone():
    def draw(seed: int) -> torch.Tensor:
        numbers = []
        with seeded(seed):
            for _ in range(10):
                numbers.append(torch.rand(5))
                time.sleep(0.001)  # a chance for another thread to draw in between
        return torch.cat(numbers)

    alone = {seed: draw(seed) for seed in range(6)}
    together: dict[int, torch.Tensor] = {}
    barrier = threading.Barrier(len(alone))

    def work(seed: int) -> None:
        barrier.wait()
        together[seed] = draw(seed)

    before = torch.get_rng_state()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for seed, numbers in alone.items():
        assert torch.equal(together[seed], numbers)
    assert torch.equal(torch.get_rng_state(), before)


def numpy_stream() -> tuple[int, bytes]:
    """Where numpy's global generator stands."""
    _, keys, position, *_ = np.random.mtrand._rand.get_state()
    return position, keys.tobytes()


def test_a_seed_from_an_int_repeats_and_touches_nothing():
    before = numpy_stream(), torch.get_rng_state()
    assert draw_seed(3) == draw_seed(3) == draw_seed(np.int64(3))
    assert draw_seed(3) != draw_seed(4)
    assert numpy_stream() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_no_seed_takes_fresh_entropy_and_leaves_the_global_stream_alone():
    before = numpy_stream()
    seeds = {draw_seed(None) for _ in range(5)}
    assert len(seeds) == 5  # two equal ones among five of 2^31: one chance in 2 * 10^8
    assert numpy_stream() == before


def test_a_random_state_is_advanced():
    state = np.random.RandomState(0)
    one, two = draw_seed(state), draw_seed(state)
    assert one != two
    again = np.random.RandomState(0)
    assert (draw_seed(again), draw_seed(again)) == (one, two)


@pytest.mark.parametrize("random_state", [None, 0, 2**32 - 1, np.random.RandomState(1)])
def test_seeds_are_ints_that_json_and_torch_take(random_state):
    seed = draw_seed(random_state)
    assert type(seed) is int
    assert 0 <= seed < 2**31


def test_what_is_no_seed_is_refused():
    with pytest.raises(ValueError, match="cannot be used to seed"):
        draw_seed("zero")


def test_generator_state_goes_on_where_it_was():
    cpu = torch.device("cpu")
    with seeded(0):
        torch.rand(3)
        state = generator_state(cpu)
        first = torch.rand(5)
        torch.rand(9)
        set_generator_state(state, cpu)
        assert torch.equal(torch.rand(5), first)
    assert set(state) == {"cpu"}
