"""The only place that touches a random generator."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

__all__ = ["Stream", "draw_seed", "generator_state", "seeded", "set_generator_state"]

# torch draws initial weights, dropout and noise from one generator per process, so that two threads that fit at the same
# time would disturb each other. The lock makes them take turns: each gives what it gives alone.
_LOCK = threading.RLock()


def draw_seed(random_state: Any) -> int:
    """Derive a seed from a scikit-learn ``random_state`` without touching numpy's global stream.

    An int gives the same seed each time, a ``RandomState`` is advanced, ``None`` takes fresh entropy.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Run a block on torch generators seeded with ``seed``, and give the caller's streams back untouched.

    Blocks of different threads run one after the other; blocks of one thread may be nested.
    """
    device = torch.device(device)
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with _LOCK, torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(cuda[0]):
                torch.cuda.manual_seed(seed)
        yield


def generator_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of the generators that a run on ``device`` draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_generator_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set what ``generator_state`` returned; only inside a ``seeded`` block."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class Stream:
    """A stream of random numbers beside that of a ``seeded`` block.

    Parameters
    ----------
    seed : int
        Where it starts.
    device : torch.device
        That of the ``seeded`` block.
    """

    def __init__(self, seed: int, device: torch.device):
        self.device = device
        with seeded(seed, device):
            self._other = generator_state(device)

    def swap(self) -> None:
        """Let torch draw from this stream where it drew from the block's, and the other way round."""
        state = generator_state(self.device)
        set_generator_state(self._other, self.device)
        self._other = state
