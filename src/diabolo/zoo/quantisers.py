"""Quantisers: bottlenecks whose code is made of symbols from a finite alphabet, for the models in ``quantised.py``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diabolo.parts.bottlenecks import Bottleneck
from diabolo.parts.penalties import Penalty
from diabolo.records import Code, Trace

__all__ = ["CodeEntropy", "FiniteScalarQuantiser", "Quantiser", "SignQuantiser", "VectorQuantiser"]

START_VECTORS = 2**14  # vectors that k-means starts a codebook from
START_ROUNDS = 10  # of k-means; the moving average goes on from there
DISTANCES = 2**22  # distances held at a time
FSQ_MARGIN = 1e-3  # keeps a saturated number off the edge between two levels; the paper's epsilon


def to_vectors(h: Tensor, dim: int) -> Tensor:
    """Split channels ``(B, G * dim, *grid)`` into vectors ``(B, G, *grid, dim)``."""
    return h.reshape(len(h), -1, dim, *h.shape[2:]).movedim(2, -1)


def to_channels(vectors: Tensor) -> Tensor:
    """Join vectors ``(B, G, *grid, dim)`` into channels ``(B, G * dim, *grid)``."""
    return vectors.movedim(-1, 2).flatten(1, 2)


def pass_gradient(value: Tensor, source: Tensor) -> Tensor:
    """Return exactly ``value``, with the gradient of ``source``: the straight-through estimator."""
    return value.detach() + (source - source.detach())


class Quantiser(Bottleneck, ABC):
    """Splits the code into vectors of ``code_dim`` numbers and rounds each to one of ``n_codes``.

    Parameters
    ----------
    latent_dim : int
        Width of the code, a multiple of ``code_dim``.
    code_dim : int
        Numbers that one symbol stands for.
    n_codes : int
        Size of a codebook.
    n_codebooks : int
        Symbols for each vector, one from each codebook.
    """

    spatial = True
    linear = True  # up to rounding, so that a start at principal components holds
    frequency: Tensor  # (n_codebooks, n_codes), share of each code among the symbols of the rows of fit

    def __init__(self, latent_dim: int, code_dim: int, n_codes: int, n_codebooks: int = 1):
        super().__init__()
        self.in_features = self.out_features = latent_dim
        self.code_dim, self.n_codes, self.n_codebooks = code_dim, n_codes, n_codebooks
        self.n_symbols = n_codebooks * (latent_dim // code_dim)  # at each place of the grid
        self.register_buffer("frequency", torch.zeros(n_codebooks, n_codes))

    @abstractmethod
    def look_up(self, codes: Tensor) -> Tensor:
        """Return the code ``(B, D, *grid)`` that integers ``(B, n_symbols, *grid)`` stand for."""

    def project(self, z: Tensor) -> Tensor:
        """Round to the nearest code."""
        rounded: Code = self(z, sample=False)
        return rounded.z

    def on_encoded(self, h: Tensor) -> None:
        """Look at the encoder's outputs ``(n, D, *grid)`` for training rows before the first step."""
        return


@torch.no_grad()
def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Return the index of the nearest of ``(K, C)`` to each of ``(N, C)``."""
    parts = torch.split(vectors, max(1, DISTANCES // len(codebook)))
    return torch.cat([torch.cdist(part, codebook).argmin(dim=1) for part in parts])


def tally(vectors: Tensor, index: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
    """Return how many vectors each code got ``(K,)``, and their sums ``(K, C)``."""
    # products rather than scattered additions, whose order on a GPU changes from run to run
    given = (index[:, None] == torch.arange(n_codes, device=index.device)).to(vectors.dtype)
    return given.sum(dim=0), given.T @ vectors


def k_means(vectors: Tensor, n_codes: int, rounds: int = START_ROUNDS) -> Tensor:
    """Return centres ``(n_codes, C)`` of ``(N, C)`` by Lloyd's rounds from random vectors; some repeat when N is small."""
    order = torch.randperm(len(vectors))
    centres = vectors[order[torch.arange(n_codes) % len(vectors)]]
    for _ in range(rounds):
        counts, sums = tally(vectors, nearest(vectors, centres), n_codes)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
    return centres


class VectorQuantiser(Quantiser):
    r"""Codebooks that follow the encoder; with several, each rounds what those before it left.

    .. math:: k_r = \arg\min_k \|h - \hat h_{r-1} - e^r_k\|, \quad \hat h_r = \hat h_{r-1} + e^r_{k_r}, \quad \hat h_0 = 0, \quad
              \text{cost} = \beta \sum_{\text{vectors}} \sum_r \|h - \hat h_r\|^2

    summed over the vectors of a row, in nats per row; codebooks have no part in its gradient. After a step each codebook
    moves by exponential averages of the number of vectors that a code got and of their sum,

    .. math:: N_k \leftarrow \gamma N_k + (1 - \gamma) n_k, \quad
              m_k \leftarrow \gamma m_k + (1 - \gamma) \sum_{i: k(i) = k} v_i, \quad e_k = m_k / N_k

    Parameters
    ----------
    latent_dim, code_dim, n_codes, n_codebooks : int
        As in :class:`Quantiser`.
    commitment : float
        :math:`\beta`.
    decay : float
        :math:`\gamma`.
    revive_below : float
        A code whose :math:`N_k` is below this share of the mean becomes a random vector of the batch.
    """

    codebooks: Tensor  # (R, K, C)
    counts: Tensor  # (R, K), N of the formula
    sums: Tensor  # (R, K, C), m of the formula
    ranks: Any = None  # where several processes train: what adds up over the vectors of all

    def __init__(
        self,
        latent_dim: int,
        code_dim: int,
        n_codes: int,
        n_codebooks: int = 1,
        *,
        commitment: float = 0.25,
        decay: float = 0.99,
        revive_below: float = 0.1,
    ):
        super().__init__(latent_dim, code_dim, n_codes, n_codebooks)
        self.commitment, self.decay, self.revive_below = commitment, decay, revive_below
        self.register_buffer("codebooks", torch.randn(n_codebooks, n_codes, code_dim))
        self.register_buffer("counts", torch.ones(n_codebooks, n_codes))
        self.register_buffer("sums", self.codebooks.clone())
        self._pending: list[tuple[Tensor, Tensor]] | None = None  # what each codebook saw, and chose, in the last batch

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Round ``h`` to the nearest codes; the gradient passes straight through."""
        h = h.to(self.codebooks.dtype)
        vectors = to_vectors(h, self.code_dim)  # (B, G, *grid, C)
        rest = vectors.detach().reshape(-1, self.code_dim)  # (N, C)
        rounded, cost = torch.zeros_like(rest), h.new_zeros(len(h))
        seen: list[tuple[Tensor, Tensor]] = []
        for codebook in self.codebooks:
            index = nearest(rest, codebook)
            seen.append((rest, index))
            rounded, rest = rounded + codebook[index], rest - codebook[index]
            cost = cost + (vectors - rounded.view_as(vectors)).square().flatten(1).sum(1)
        if self.training:
            self._pending = seen
        codes = torch.stack([index.view(vectors.shape[:-1]) for _, index in seen], dim=1).flatten(
            1, 2
        )  # (B, R G, *grid)
        z = pass_gradient(to_channels(rounded.view_as(vectors)), h)
        return Code(z, {"commitment": self.commitment * cost}, {"codes": codes})

    @torch.no_grad()
    def on_encoded(self, h: Tensor) -> None:
        """Put each codebook on the k-means of what it will see."""
        rest = to_vectors(h, self.code_dim).reshape(-1, self.code_dim)
        rest = rest[torch.randperm(len(rest))[:START_VECTORS]]
        for codebook in self.codebooks:
            codebook.copy_(k_means(rest, self.n_codes))
            rest = rest - codebook[nearest(rest, codebook)]
        self.counts.fill_(1.0)
        self.sums.copy_(self.codebooks)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the codebooks towards what they saw in the batch, and codes out of use to where the batch is."""
        if self._pending is None:
            return
        for r, (vectors, index) in enumerate(self._pending):
            codebook, counts, sums = self.codebooks[r], self.counts[r], self.sums[r]  # views
            n, total = tally(vectors, index, self.n_codes)
            if self.ranks is not None:
                n, total = self.ranks.total(n), self.ranks.total(total)
            counts.lerp_(n, 1 - self.decay)
            sums.lerp_(total, 1 - self.decay)
            # without a vector in the batch the quotient stays as it is, and dividing would only lose digits
            codebook.copy_(torch.where(n[:, None] > 0, sums / counts[:, None], codebook))
            if self.revive_below > 0:
                mean = counts.mean()
                unused = counts < self.revive_below * mean  # (K,)
                there = vectors[torch.randint(len(vectors), (self.n_codes,), device=vectors.device)]
                if self.ranks is not None:
                    there = self.ranks.of_first(there)
                codebook.copy_(torch.where(unused[:, None], there, codebook))
                sums.copy_(torch.where(unused[:, None], there * mean, sums))
                counts.copy_(torch.where(unused, mean, counts))
        self._pending = None

    def look_up(self, codes: Tensor) -> Tensor:
        """Add up the codes of each vector."""
        codes = codes.reshape(len(codes), self.n_codebooks, -1, *codes.shape[2:])  # (B, R, G, *grid)
        vectors = self.codebooks[0][codes[:, 0]]  # (B, G, *grid, C)
        for r in range(1, self.n_codebooks):
            vectors = vectors + self.codebooks[r][codes[:, r]]
        return to_channels(vectors)


class FiniteScalarQuantiser(Quantiser):
    r"""Rounds each number to one of a few levels; no codebook is learned.

    With :math:`L` levels, :math:`a = (L - 1)(1 - \epsilon) / 2` and an offset :math:`o` of 0 for odd and ½ for even :math:`L`,

    .. math:: z = \mathrm{round}\left(a \tanh(h + \tan(o / a)) - o\right) / \lfloor L / 2 \rfloor

    which lies in [-1, 1]. The gradient passes straight through the rounding alone. Digits of the integer that stands for a
    vector are the levels, the first number's least significant.

    Parameters
    ----------
    latent_dim : int
        Width of the code, a multiple of the number of levels.
    levels : tuple of int
        Levels of each number of a vector; there are as many codes as their product.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, latent_dim: int, levels: tuple[int, ...]):
        super().__init__(latent_dim, len(levels), math.prod(levels))
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    def bound(self, vectors: Tensor) -> Tensor:
        """Bring numbers ``(..., C)`` between the lowest and the highest level."""
        half = (self.levels - 1).to(vectors.dtype) * ((1 - FSQ_MARGIN) / 2)
        offset = 0.5 * (self.levels % 2 == 0).to(vectors.dtype)
        return (vectors + (offset / half).tan()).tanh() * half - offset

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Round ``h`` to levels."""
        vectors = to_vectors(h.to(self.frequency.dtype), self.code_dim)  # (B, G, *grid, C)
        bounded, middle = self.bound(vectors), self.levels // 2
        level = bounded.detach().round()
        codes = ((level.long() + middle) * self.basis).sum(dim=-1)  # (B, G, *grid)
        return Code(to_channels(pass_gradient(level / middle, bounded / middle)), {}, {"codes": codes})

    def project(self, z: Tensor) -> Tensor:
        """Round to the nearest levels."""
        middle = self.levels // 2
        level = (to_vectors(z, self.code_dim) * middle).round()
        return to_channels(torch.minimum(torch.maximum(level, -middle), self.levels - 1 - middle) / middle)

    def look_up(self, codes: Tensor) -> Tensor:
        """Read the levels off the digits of the integers."""
        middle = self.levels // 2
        digits = codes[..., None] // self.basis % self.levels  # (B, G, *grid, C)
        return to_channels((digits - middle).to(self.frequency.dtype) / middle)


class SignQuantiser(Quantiser):
    r"""Rounds each number to -1 or 1; nothing is looked up, and no codebook is learned.

    .. math:: z = \mathrm{sign}(h), \qquad \text{cost} = \beta \sum_d (h_d - z_d)^2

    summed over the code, in nats per row. Bits of the integer that stands for a vector are its signs, the first number's
    least significant.

    Parameters
    ----------
    latent_dim : int
        Width of the code, a multiple of ``bits``.
    bits : int
        Numbers of a vector; there are ``2 ** bits`` codes.
    commitment : float
        :math:`\beta`.
    """

    def __init__(self, latent_dim: int, bits: int, commitment: float):
        super().__init__(latent_dim, bits, 2**bits)
        self.commitment = commitment

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Round ``h`` to signs; the gradient passes straight through."""
        h = h.to(self.frequency.dtype)
        positive = h > 0
        sign = torch.where(positive, 1.0, -1.0).to(h.dtype)
        bit = torch.arange(self.code_dim, device=h.device)
        codes = (to_vectors(positive, self.code_dim).long() << bit).sum(dim=-1)  # (B, G, *grid)
        cost = self.commitment * (h - sign).square().flatten(1).sum(1)
        return Code(pass_gradient(sign, h), {"commitment": cost}, {"codes": codes, "h": h})

    def look_up(self, codes: Tensor) -> Tensor:
        """Read the signs off the bits of the integers."""
        bit = torch.arange(self.code_dim, device=codes.device)
        return to_channels(((codes[..., None] >> bit & 1) * 2 - 1).to(self.frequency.dtype))


class CodeEntropy(Penalty):
    r"""Asks for sure signs of a row, and for all codes to be used over the batch.

    .. math:: \lambda G \left( \mathbb{E}[H(q(c \mid h))] - H(\mathbb{E}[q(c \mid h)]) \right), \qquad
              q(c \mid h) = \prod_d \sigma(4 c_d h_d), \quad c_d = \pm 1

    for the :math:`G` symbols of a row; :math:`q` is the softmax of minus the squared distances, and the expectations are over
    all symbols of the batch. In nats per row.

    Parameters
    ----------
    weight : float
        :math:`\lambda`.
    bits : int
        Numbers of a vector.
    """

    name = "code_entropy"

    def __init__(self, weight: float, bits: int):
        super().__init__(weight)
        self.bits = bits

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar."""
        vectors = to_vectors(trace.code.aux["h"], self.bits)
        flat = 4.0 * vectors.reshape(-1, self.bits)  # (N, bits)
        plus, minus = F.logsigmoid(flat), F.logsigmoid(-flat)
        sure = -(plus.exp() * plus + minus.exp() * minus).sum(1).mean()
        log_q = flat.new_zeros(len(flat), 1)
        for d in range(self.bits):
            log_q = torch.cat([log_q + minus[:, d : d + 1], log_q + plus[:, d : d + 1]], dim=1)  # (N, 2 ** (d + 1))
        share = log_q.exp().mean(dim=0).clamp_min(torch.finfo(flat.dtype).tiny)  # the entropy has no slope at zero
        used = torch.special.entr(share).sum()
        penalty: Tensor = self.weight * (len(flat) / len(trace.batch.x)) * (sure - used)
        return penalty
