"""Sequences of tokens from their codes: one token after the other, or several beginnings side by side."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diabolo.data.tokens import END, UNKNOWN
from diabolo.parts.networks.sequences import SequenceNetwork

__all__ = ["Decoding", "beam_search", "generate", "kept", "write"]

Decoding = Literal["greedy", "sample", "nucleus", "beam"]


def write(
    net: SequenceNetwork,
    z: Tensor,
    longest: int,
    *,
    rows: int,
    fixed: bool,
    decoding: Decoding,
    beam_width: int,
    **drawn: float,
) -> NDArray[np.int64]:
    """Write a sequence for each code ``(n, latent_dim)``, so many ``rows`` at a time; return numbers of tokens ``(n, steps)``."""
    found = [
        beam_search(net, part, longest, width=beam_width, fixed=fixed).cpu()
        if decoding == "beam"
        else generate(net, part, longest, fixed=fixed, decoding=decoding, **drawn).cpu()
        for part in z.split(rows)  # type: ignore[no-untyped-call]
    ]
    steps = max(part.shape[1] for part in found)
    return torch.cat([F.pad(part, (0, steps - part.shape[1]), value=END) for part in found]).numpy()


@torch.no_grad()
def generate(
    net: SequenceNetwork,
    z: Tensor,
    longest: int,
    *,
    fixed: bool = False,
    decoding: str = "greedy",
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Tensor:
    """Write a sequence for each code.

    Parameters
    ----------
    net : SequenceNetwork
        In evaluation mode.
    z : Tensor
        Codes ``(B, latent_dim)``.
    longest : int
        Tokens after which a sequence ends.
    fixed : bool
        Whether all sequences have just as many.
    decoding : {"greedy", "sample", "nucleus"}
        Take the likeliest token, draw one, or draw one of the likeliest that have ``top_p`` together.
    temperature, top_p : float
        Of what is drawn.

    Returns
    -------
    Tensor of shape (B, steps)
        Numbers of tokens, ``END`` after the last.
    """
    token = torch.full((len(z), 1), net.onto.begin, device=z.device)
    going = torch.ones(len(z), dtype=torch.bool, device=z.device)
    state, found = None, []
    for step in range(longest):
        logits, state = net.write(token, z, state, step)
        logits = kept(logits[:, -1].float(), fixed=fixed)
        if decoding == "greedy" or temperature == 0:
            token = logits.argmax(dim=1, keepdim=True)
        else:
            shares = torch.softmax(logits / temperature, dim=1)
            token = torch.multinomial(nucleus(shares, top_p) if decoding == "nucleus" else shares, 1)
        token = torch.where(going[:, None], token, END)
        found.append(token)
        going = going & (token[:, 0] != END)
        if not going.any():
            break
    return torch.cat(found, dim=1)


@torch.no_grad()
def beam_search(net: SequenceNetwork, z: Tensor, longest: int, *, width: int, fixed: bool = False) -> Tensor:
    """Write the likeliest sequence that was found among ``width`` beginnings at each step ``(B, steps)``."""
    n, device = len(z), z.device
    z = z.repeat_interleave(width, dim=0)
    score = torch.full((n, width), -math.inf, device=device)
    score[:, 0] = 0.0
    token = torch.full((n * width, 1), net.onto.begin, device=device)
    going = torch.ones(n * width, dtype=torch.bool, device=device)
    written = torch.zeros(n * width, 0, dtype=torch.long, device=device)
    state = None
    for step in range(longest):
        logits, state = net.write(token, z, state, step)
        nats = torch.log_softmax(kept(logits[:, -1].float(), fixed=fixed), dim=1)
        ended = torch.full_like(nats, -math.inf)
        ended[:, END] = 0.0
        nats = torch.where(going[:, None], nats, ended)
        total = (score.view(-1, 1) + nats).view(n, -1)
        score, place = total.topk(min(width, total.shape[1]), dim=1)
        source = (place // nats.shape[1] + torch.arange(n, device=device)[:, None] * width).flatten()
        token = (place % nats.shape[1]).view(-1, 1)
        state = net.chosen(state, source)
        written = torch.cat([written[source], token], dim=1)
        going = going[source] & (token[:, 0] != END)
        if not going.view(n, -1)[:, 0].any():  # no beginning can overtake an ended sequence that is ahead
            break
    return written.view(n, width, -1)[:, 0]


def kept(logits: Tensor, *, fixed: bool) -> Tensor:
    """Return logits ``(B, n_tokens)`` of tokens that may be written: no unknown one, and no end where lengths are fixed."""
    logits = logits.clone()
    logits[:, UNKNOWN] = -math.inf
    if fixed:
        logits[:, END] = -math.inf
    return logits


def nucleus(shares: Tensor, top_p: float) -> Tensor:
    """Keep the largest shares that sum to ``top_p``, of ``(B, n_tokens)`` (Holtzman et al., 2020, arXiv:1904.09751)."""
    ranked, order = shares.sort(dim=1, descending=True)
    before = ranked.cumsum(dim=1) - ranked
    return torch.zeros_like(shares).scatter(1, order, ranked.masked_fill(before >= top_p, 0.0))
