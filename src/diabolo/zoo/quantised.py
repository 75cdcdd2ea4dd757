"""Quantised autoencoders: the code of a row is a handful of symbols from a finite alphabet."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import field
from typing import Annotated, Any, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from diabolo.checks import Ge, Le, Lt, ParameterError
from diabolo.data.raw import Raw
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.parts.penalties import Penalty
from diabolo.records import Schema
from diabolo.training.device import resolve_device
from diabolo.zoo.quantisers import (
    CodeEntropy,
    FiniteScalarQuantiser,
    Quantiser,
    SignQuantiser,
    VectorQuantiser,
)

__all__ = ["VQVAE", "FSQAutoencoder", "LFQAutoencoder", "ResidualVQVAE"]

MOST_CODES = 2**20  # that a grid of levels may have


# models -----------------------------------------------------------------------------------------------------------------


@spec
class QuantisedCode(BaseAutoencoder, ABC):
    """A code made of symbols, and the ways to get at them.

    Attributes
    ----------
    codebook_usage_ : float
        Share of the codes that the rows of ``fit`` use.
    perplexity_ : float
        How many codes, equally often used, would carry as much as those of the rows of ``fit`` do: the exponential of the
        entropy of a symbol, which is averaged over codebooks.
    """

    latent_dim: Annotated[
        int | Literal["auto"],
        Ge(1),
        "numbers in the code, a multiple of those that one symbol stands for; on a grid, at each of its places; 'auto' is the "
        "same as for Autoencoder, rounded up",
    ] = field(default="auto", kw_only=False)

    @abstractmethod
    def _code_dim(self) -> int:
        """Return how many numbers one symbol stands for."""

    def _code_width(self, schema: Schema) -> int:
        width, dim = super()._code_width(schema), self._code_dim()
        if self.latent_dim == "auto":
            return -(-width // dim) * dim
        if width % dim:
            raise ParameterError(
                f"latent_dim={width}: expected a multiple of {dim}, the numbers that one symbol of {type(self).__name__} stands "
                f"for; use latent_dim={-(-width // dim) * dim}"
            )
        return width

    def _fit(self, raw: Raw) -> Self:
        super()._fit(raw)
        quantiser = self._quantiser
        codes = self._codes(raw).reshape(len(raw.values), quantiser.n_codebooks, -1)
        for r in range(quantiser.n_codebooks):  # a buffer is saved and loaded with the weights
            counts = np.bincount(codes[:, r].ravel(), minlength=quantiser.n_codes)
            quantiser.frequency[r] = torch.from_numpy(counts / counts.sum()).to(quantiser.frequency)
        return self

    @property
    def _quantiser(self) -> Quantiser:
        return cast(Quantiser, self.module_.bottleneck)

    @property
    def codebook_usage_(self) -> float:
        """Share of the codes that the rows of ``fit`` use."""
        return float((self._quantiser.frequency > 0).double().mean())

    @property
    def perplexity_(self) -> float:
        """Exponential of the entropy of a symbol over the rows of ``fit``, averaged over codebooks."""
        return math.exp(float(torch.special.entr(self._quantiser.frequency.double()).sum(1).mean()))

    def _codes(self, raw: Raw) -> NDArray[np.int64]:
        return self._apply(
            raw, lambda module, batch: module.encode(batch.x, batch.context, batch.mask).aux["codes"].flatten(1)
        )

    def encode_codes(self, X: Any) -> NDArray[np.int64]:
        """Encode rows into integers, the same at every call.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.

        Returns
        -------
        ndarray of int64, of shape (n, n_symbols)
            From 0 to one below the size of the codebook. With several codebooks the symbols of the first, coarsest one come
            first.
        """
        check_is_fitted(self)
        return self._codes(self._read(X, reset=False))

    def decode_codes(self, codes: ArrayLike) -> Any:
        """Decode integers into rows, in the units and the kind of data of ``fit``.

        Parameters
        ----------
        codes : array-like of int, of shape (n, n_symbols)
            As ``encode_codes`` returns them.

        Returns
        -------
        array, frame or tensor
            The row that the model rebuilds for each.

        Raises
        ------
        ValueError
            When they are not whole numbers, not of this shape, or not in the codebook.
        """
        check_is_fitted(self)
        codes, quantiser = np.asarray(codes), self._quantiser
        grid = self.module_.code_shape[1:]
        width = quantiser.n_symbols * math.prod(grid)
        if codes.ndim != 2 or codes.shape[1] != width or len(codes) == 0:
            raise ValueError(
                f"codes has shape {codes.shape}; expected (n, {width}), n at least 1, as from encode_codes"
            )
        if codes.dtype.kind not in "iu":
            raise ValueError(f"codes has type {codes.dtype}; expected whole numbers, as from encode_codes")
        outside = codes[(codes < 0) | (codes >= quantiser.n_codes)]
        if len(outside):
            raise ValueError(f"codes has {outside[0]}; expected whole numbers from 0 to {quantiser.n_codes - 1}")
        precision = np.empty(0, np.float64 if self.codec_.wide else np.float32)
        module, device = self._ready(self._dtype(precision, resolve_device(self.device)))
        index = torch.tensor(codes.astype(np.int64), device=device).view(-1, quantiser.n_symbols, *grid)
        with torch.inference_mode():
            z = cast(Quantiser, module.bottleneck).look_up(index).flatten(1)
        return self.codec_.decode(self._decode(z.cpu().numpy()))


@spec
class LearnedCodebook(QuantisedCode, ABC):
    """Codes that follow the encoder's outputs."""

    n_codes: Annotated[int, Ge(1), "entries of a codebook, which all vectors of the code share"] = 512
    code_dim: Annotated[int, Ge(1), "numbers that one symbol stands for; on a grid, often all of latent_dim"] = 2
    commitment: Annotated[
        float, Ge(0), "weight of the squared distance of the encoder's output from its code, in nats per row"
    ] = 0.25
    decay: Annotated[float, Ge(0), Lt(1), "weight of the past in the moving averages of the codebook, per step"] = 0.99
    revive_below: Annotated[
        float,
        Ge(0),
        Lt(1),
        "a code used less than this share of the mean moves to an encoder output of the batch; 0 leaves it where it is",
    ] = 0.1

    def _code_dim(self) -> int:
        return self.code_dim


@register
@spec
class VQVAE(LearnedCodebook):
    r"""A code of symbols from a learned codebook, by vector quantisation.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \beta \sum_g \|h_{bg} - z_{bg}\|^2 \Big], \qquad
              z_{bg} = \text{the entry of the codebook nearest to } h_{bg}

    for the vectors :math:`h_{bg}` of ``code_dim`` numbers that the encoder's output is cut into; summed over features and
    vectors, averaged over rows, in nats. (The paper averages the second term over the places of a grid; here, as everywhere
    in this library, it is a sum.) The gradient at :math:`z` is passed to :math:`h`, and the codebook follows by moving
    averages, from a start at k-means. The cost of naming the symbols, a constant under a uniform prior, is left out.

    ``transform`` returns the entries, ``encode_codes`` their numbers: a row is ``latent_dim / code_dim`` symbols, each of
    ``log2(n_codes)`` bits.

    {parameters}

    References
    ----------
    van den Oord et al., Neural discrete representation learning, 2017, arXiv:1711.00937.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import VQVAE
    >>> X = load_iris().data
    >>> vq = VQVAE(latent_dim=4, n_codes=16, max_epochs=5, random_state=0).fit(X)
    >>> codes = vq.encode_codes(X)
    >>> codes.shape, int(codes.max()) < 16, vq.decode_codes(codes).shape
    ((150, 2), True, (150, 4))
    """

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return VectorQuantiser(
            self._code_width(schema),
            self.code_dim,
            self.n_codes,
            commitment=self.commitment,
            decay=self.decay,
            revive_below=self.revive_below,
        )


@register
@spec
class ResidualVQVAE(LearnedCodebook):
    r"""A code of symbols from several codebooks, each of which refines what those before it left.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \beta \sum_g \sum_r \|h_{bg} - z^{(r)}_{bg}\|^2 \Big], \qquad
              z^{(r)} = z^{(r-1)} + \text{the entry of codebook } r \text{ nearest to } h - z^{(r-1)}

    and :math:`z` is the last of them; summed over features, vectors and codebooks, averaged over rows, in nats. With ``R``
    codebooks of ``K`` entries a vector has ``K ** R`` values, at the price of ``R * K`` entries. The rest is as in
    :class:`VQVAE`, which has one codebook.

    {parameters}

    References
    ----------
    Zeghidour et al., SoundStream: an end-to-end neural audio codec, 2021, arXiv:2107.03312.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import ResidualVQVAE
    >>> X = load_iris().data
    >>> rvq = ResidualVQVAE(latent_dim=2, n_codes=8, n_codebooks=3, max_epochs=5, random_state=0).fit(X)
    >>> rvq.encode_codes(X).shape
    (150, 3)
    """

    n_codes: Annotated[int, Ge(1), "entries of a codebook, which all vectors of the code share"] = 64
    n_codebooks: Annotated[int, Ge(1), "symbols for each vector, one from each codebook, from coarse to fine"] = 4

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return VectorQuantiser(
            self._code_width(schema),
            self.code_dim,
            self.n_codes,
            self.n_codebooks,
            commitment=self.commitment,
            decay=self.decay,
            revive_below=self.revive_below,
        )


@register
@spec
class FSQAutoencoder(QuantisedCode):
    r"""A code of symbols by finite scalar quantisation: each number is rounded to a few levels.

    .. math:: L = -\frac1B \sum_b \log p(x_b \mid z_b), \qquad
              z = \mathrm{round}\left(a \tanh(h + s) - o\right) / \lfloor L / 2 \rfloor

    summed over features, averaged over rows, in nats; :math:`a`, :math:`s` and :math:`o` follow from the number of levels
    :math:`L`. There is no codebook to learn, none to collapse, and no second term in the loss. A symbol stands for as many
    numbers as ``levels`` has, and takes as many values as their product.

    {parameters}

    References
    ----------
    Mentzer et al., Finite scalar quantization: VQ-VAE made simple, 2023, arXiv:2309.15505.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import FSQAutoencoder
    >>> X = load_iris().data
    >>> fsq = FSQAutoencoder(latent_dim=2, levels=(8, 5), max_epochs=5, random_state=0).fit(X)
    >>> fsq.encode_codes(X).shape, fsq.transform(X).shape
    ((150, 1), (150, 2))
    """

    levels: Annotated[
        tuple[int, ...], Ge(2), "levels of each number that a symbol stands for; their product is the number of codes"
    ] = (8, 5, 5, 5)

    def _code_dim(self) -> int:
        return len(self.levels)

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        if not self.levels or math.prod(self.levels) > MOST_CODES:
            raise ParameterError(
                f"levels={tuple(self.levels)!r} makes {math.prod(self.levels)} codes; expected at least one level, and a product "
                f"of at most {MOST_CODES}: give several symbols by a larger latent_dim instead"
            )
        return FiniteScalarQuantiser(self._code_width(schema), tuple(self.levels))


@register
@spec
class LFQAutoencoder(QuantisedCode):
    r"""A code of symbols by lookup-free quantisation: each number is rounded to its sign.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \beta \|h_b - z_b\|^2 \Big] +
              \lambda G \left( \mathbb{E}[H(q(c \mid h))] - H(\mathbb{E}[q(c \mid h)]) \right), \qquad z = \mathrm{sign}(h)

    summed over features and the :math:`G` symbols of a row, averaged over rows, in nats. The last term, in training alone,
    makes the signs of a row sure and all codes equally used; :math:`q(c \mid h)` is the softmax over codes of minus the
    squared distance. A row is a string of ``latent_dim`` bits, which symbols of ``bits`` bits are cut from.

    {parameters}

    References
    ----------
    Yu et al., Language model beats diffusion: tokenizer is key to visual generation, 2023, arXiv:2310.05737.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import LFQAutoencoder
    >>> X = load_iris().data
    >>> lfq = LFQAutoencoder(latent_dim=8, bits=4, max_epochs=5, random_state=0).fit(X)
    >>> lfq.encode_codes(X).shape, sorted({float(v) for v in lfq.transform(X).ravel()})
    ((150, 2), [-1.0, 1.0])
    """

    bits: Annotated[int, Ge(1), Le(12), "numbers, hence bits, that one symbol stands for"] = 8
    commitment: Annotated[
        float, Ge(0), "weight of the squared distance of the encoder's output from its signs, in nats per row"
    ] = 0.25
    entropy_weight: Annotated[
        float, Ge(0), "weight of the entropy of a row's symbols less that of the batch's, in nats per row"
    ] = 0.1

    def _code_dim(self) -> int:
        return self.bits

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return SignQuantiser(self._code_width(schema), self.bits, self.commitment)

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        return (CodeEntropy(self.entropy_weight, self.bits),) if self.entropy_weight > 0 else ()
