"""A variational autoencoder of sequences of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor

from diabolo.checks import Ge, Gt, Le, Lt, ParameterError, check_parameters
from diabolo.data.raw import Raw
from diabolo.data.tokens import TokenCodec
from diabolo.declare import register, spec
from diabolo.generation import fitted_prior, in_blocks
from diabolo.latent.fitting import fit_prior
from diabolo.notices import warn
from diabolo.objectives import log_likelihood
from diabolo.parts.networks.sequences import HEADS, SequenceNetwork
from diabolo.records import Batch, History, Schema, Table
from diabolo.saving import Saved
from diabolo.seeding import draw_seed, seeded
from diabolo.tasks.decoding import Decoding, write
from diabolo.tasks.sequence_module import ByLength, FreeInformation, SequenceModule, bound, sequence_loss
from diabolo.training.device import resolve_device, resolve_precision
from diabolo.training.loop import Settings, train
from diabolo.zoo.activity import CodeActivity, PosteriorCollapseWarning, collapse_message, posterior_moments

__all__ = ["SequenceVAE"]

Array = NDArray[Any]
AUTO_STEPS = 6000  # optimiser steps that max_epochs="auto" plans for
PATIENT = 0.15  # share of max_epochs without a better bound after which training ends
LONGER = 2  # times the longest sequence of fit that one may become
ELEMENTS = 2**23  # logits at a time
JUDGED = 2048  # rows by which the use of the code is judged
TRAINED = 500  # steps before which hardly any code is in use


@register
@spec
class SequenceVAE(Saved, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    r"""A variational autoencoder of texts, of sequences of items, and of grids of tiles.

    An encoder reads a sequence into a Gaussian code, a decoder writes it token by token, told the code at each step,

    .. math:: L = -\sum_t \log p(x_t \mid x_{<t}, z) + w\,\mathrm{KL}\big(q(z \mid x)\,\|\,N(0, I)\big)
              - \lambda \sum_t \log b(x_t \mid z)

    in nats per sequence, its end included. A decoder that sees all tokens before a token can do without the code, which then
    means nothing. Against that the weight :math:`w` rises from 0 to 1, each unit has some nats of divergence free, and the code
    alone has to tell which tokens there are (the last term, of training only); tokens may be hidden from the decoder, too.

    Sequences are strings, cut into characters, words, or what a regular expression matches (of molecules
    ``r"Cl|Br|\\[.*?\\]|."``); lists of strings, whole numbers or tuples of these; or an array of them, ``(n, length)`` or, for
    grids, ``(n, height, width)``. What comes back is of the same kind. Lengths may differ, but in an array; a token that ``fit``
    did not see counts as unknown, and is never written.

    {parameters}

    Attributes
    ----------
    module_ : SequenceModule
        The network.
    codec_ : TokenCodec
        The tokens.
    history_ : History
        The loss over the epochs, in nats per sequence.
    prior_ : CodePrior
        After :meth:`fit_prior`.

    References
    ----------
    Bowman et al., Generating sentences from a continuous space, 2016, arXiv:1511.06349.

    Kingma et al., Improved variational inference with inverse autoregressive flow, 2016, arXiv:1606.04934 (free bits).

    Zhao, Zhao and Eskenazi, Learning discourse-level diversity for neural dialog models, 2017, arXiv:1703.10960 (bag of words).

    Examples
    --------
    >>> from diabolo import SequenceVAE
    >>> words = ["".join(w) for w in ("abab", "baba", "aabb", "bbaa", "abba")] * 20
    >>> model = SequenceVAE(4, width=32, max_epochs=3, random_state=0).fit(words)
    >>> model.transform(words).shape
    (100, 4)
    >>> type(model.sample(2, random_state=0)[0])
    <class 'str'>
    """

    latent_dim: Annotated[int, Ge(1), "size of the code"] = field(default=32, kw_only=False)
    network: Annotated[
        Literal["recurrent", "convolutional", "attention"],
        "what reads and writes: long short-term memory, dilated convolutions or transformers",
    ] = "recurrent"
    tokens: Annotated[
        str,
        "what strings are made of: 'characters', 'words' (what blanks part), or a regular expression that matches a token; "
        "'items' are those of lists and arrays; 'auto' takes words where most strings have three or more",
    ] = "auto"
    max_tokens: Annotated[int, Ge(1), "different tokens that are kept, the most frequent; others are unknown"] = 20_000
    width: Annotated[int, Ge(4), "of all layers; for attention a multiple of 4"] = 256
    layers: Annotated[int, Ge(1), "each way; of convolutions groups of six"] = 1
    dropout: Annotated[float, Ge(0), Lt(1), "share of what layers put out that is dropped in training"] = 0.1
    word_dropout: Annotated[
        float,
        Ge(0),
        Lt(1),
        "share of the tokens that are hidden from the decoder in training, so that it needs the code",
    ] = 0.0
    kl_warmup: Annotated[
        float, Ge(0), Le(1), "share of training over which the weight of the KL term rises from 0 to 1"
    ] = 0.3
    beta: Annotated[
        float, Ge(0), "weight of the KL term; 1 makes the loss a bound on the likelihood, less lets codes tell more"
    ] = 1.0
    free_bits: Annotated[
        float, Ge(0), "nats that each unit of the code may tell of a sequence at no cost in training"
    ] = 0.1
    bag: Annotated[float, Ge(0), "weight of the loss by which the code alone tells which tokens there are"] = 0.1
    max_epochs: Annotated[
        int | Literal["auto"],
        Ge(1),
        "passes over the data at most; 'auto' is as many as 6000 steps take, from 5 to 200",
    ] = "auto"
    batch_size: Annotated[int, Ge(2), "sequences of a step"] = 64
    learning_rate: Annotated[float, Gt(0), "step size after warm-up"] = 2e-3
    validation_fraction: Annotated[
        float, Ge(0), Lt(1), "share of the sequences held out, by which the weights to keep are chosen"
    ] = 0.1
    max_time: Annotated[float | None, Gt(0), "seconds after which training ends; what was learned is kept"] = None
    device: Annotated[str, "'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], "of the products in training; 'auto' is float32"
    ] = "auto"
    verbose: Annotated[int, "1 shows progress, 2 a line for each epoch"] = 0
    random_state: Annotated[int | np.random.RandomState | None, "seed; None draws one"] = None

    # learning -----------------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn sequences.

        Parameters
        ----------
        X : list of str, list of sequences, or array of shape (n, length) or (n, height, width)
            Sequences.
        y : None
            Ignored.

        Returns
        -------
        self
            Fitted. A keyboard interrupt ends training early and keeps what was learned.
        """
        check_parameters(self)
        if self.network == "attention" and self.width % HEADS:
            raise ParameterError(f"width={self.width}: attention expects a multiple of {HEADS}")
        device, seed = resolve_device(self.device), draw_seed(self.random_state)
        codec, numbers = TokenCodec.learn(X, self.tokens, self.max_tokens)
        n = len(numbers)
        held = min(n - 1, max(1, round(n * self.validation_fraction))) if self.validation_fraction and n > 1 else 0
        steps = math.ceil((n - held) / self.batch_size)
        epochs = min(200, max(5, math.ceil(AUTO_STEPS / steps))) if self.max_epochs == "auto" else self.max_epochs
        settings = Settings(
            max_epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            gradient_clip=5.0,
            patience=max(3, math.ceil(PATIENT * epochs)) if held else None,
            patience_from=self.kl_warmup,
            max_time=self.max_time,
            device=device,
            precision=resolve_precision(self.precision, device),
            verbose=self.verbose,
            valid_seed=seed,
        )
        with seeded(seed, device):
            order = torch.randperm(n)
            module = self._build(codec).to(device)
            table = Table(Schema("vector", numbers.shape[1:], n), torch.from_numpy(numbers)).to(device)
            lengths = codec.steps(numbers)
            learned, judged = (ByLength(table, part.to(device), lengths) for part in (order[held:], order[:held]))
            loss = sequence_loss(self.kl_warmup, self.word_dropout, self.bag)
            history = train(module, learned, judged, loss, settings)  # type: ignore[arg-type]  # the loss is all that runs it
        for name in ("prior_", "prior_scores_"):  # of the codes of another fit
            self.__dict__.pop(name, None)
        self.module_, self.codec_, self.history_ = module.cpu().eval(), codec, history
        self.n_iter_ = len(history)
        some = (judged if held >= JUDGED else learned).index[:JUDGED].cpu().numpy()
        moments = self._apply(Raw(numbers[some], "vector", "numpy"), posterior_moments).astype(np.float64)
        message = collapse_message(
            CodeActivity.of(moments), ("a larger free_bits", "a larger word_dropout", "a larger bag")
        )
        if message is not None and len(some) > 1 and len(history) * steps >= TRAINED:
            history.events.append(message)
            warn(message, PosteriorCollapseWarning)
        return self

    def _build(self, codec: TokenCodec) -> SequenceModule:
        net = SequenceNetwork(
            self.network,
            codec.size,
            latent_dim=self.latent_dim,
            width=self.width,
            layers=self.layers,
            dropout=self.dropout,
            shape=codec.shape,
        )
        return SequenceModule(
            net, FreeInformation(self.latent_dim, self.beta, self.free_bits), codec.size, fixed=bool(codec.shape)
        )

    # codes --------------------------------------------------------------------------------------------------------------------

    def transform(self, X: Any, *, condition: None = None) -> Array:
        """Return the code of each sequence: the mean of its posterior.

        Parameters
        ----------
        X : as in ``fit``
            Sequences.
        condition : None
            For the tools of :mod:`diabolo.latent`; this model is told nothing beside a sequence.

        Returns
        -------
        ndarray of shape (n, latent_dim)
            Codes.
        """
        raw = self._read(X, reset=False)
        return self._apply(raw, lambda module, batch: module.bottleneck(module.hidden(batch.x), sample=False).z)

    def inverse_transform(
        self,
        Z: Any,
        *,
        decoding: Decoding = "greedy",
        temperature: float = 1.0,
        top_p: float = 0.9,
        beam_width: int = 5,
        max_length: int | None = None,
        random_state: Any = None,
        condition: None = None,
    ) -> Any:
        """Write the sequences of codes.

        Parameters
        ----------
        Z : array-like of shape (n, latent_dim)
            Codes.
        decoding : {"greedy", "sample", "nucleus", "beam"}
            At each step the likeliest token; one drawn from all; one drawn from the likeliest that have ``top_p`` together; or
            the likeliest sequence found among ``beam_width`` beginnings at a time.
        temperature : float
            What logits are divided by before a token is drawn: below 1 sequences are more typical and less varied.
        top_p, beam_width : float, int
            See ``decoding``.
        max_length : int, optional
            Tokens after which a sequence ends; by default twice those of the longest in ``fit``.
        random_state : int, RandomState or None
            Seed of what is drawn.
        condition : None
            As in :meth:`transform`.

        Returns
        -------
        list of str, list of list, or array
            Sequences, as ``fit`` was given them.
        """
        check_is_fitted(self, "module_")
        Z = check_array(Z, dtype=np.float32)
        if Z.shape[1] != self.latent_dim:
            raise ValueError(f"Z has {Z.shape[1]} columns; expected codes of {self.latent_dim}")
        if decoding not in ("greedy", "sample", "nucleus", "beam"):
            raise ValueError(f"decoding={decoding!r}: expected 'greedy', 'sample', 'nucleus' or 'beam'")
        if not temperature >= 0 or not 0 < top_p <= 1 or beam_width < 1 or (max_length is not None and max_length < 1):
            raise ValueError(
                f"temperature={temperature}, top_p={top_p}, beam_width={beam_width}, max_length={max_length}: expected "
                "temperature of 0 or more, top_p above 0 and up to 1, beam_width and max_length of 1 or more"
            )
        fixed = bool(self.codec_.shape)
        longest = self.codec_.longest if fixed else max_length or max(1, LONGER * self.codec_.longest)
        device = resolve_device(self.device)
        codes, net = torch.from_numpy(Z).to(device), self.module_.to(device).net
        most = max(1, ELEMENTS // (8 * self.codec_.size * (beam_width if decoding == "beam" else 1)))
        drawn: Any = {"temperature": temperature, "top_p": top_p, "beam_width": beam_width}
        with seeded(draw_seed(random_state), device):
            found = write(net, codes, longest, rows=min(1024, most), fixed=fixed, decoding=decoding, **drawn)
        self.module_.cpu()
        return self.codec_.decode(found)

    def reconstruct(self, X: Any, **decoding: Any) -> Any:
        """Return sequences as their codes tell them; ``decoding`` is as in :meth:`inverse_transform`."""
        return self.inverse_transform(self.transform(X), **decoding)

    # generation ---------------------------------------------------------------------------------------------------------------

    def fit_prior(self, X: Any, prior: Any = "auto", *, labels: Any = None, random_state: Any = None) -> Self:
        """Learn where codes are from sequences, and draw from there in :meth:`sample` ever after.

        Parameters
        ----------
        X : as in ``fit``
            Sequences.
        prior : {"auto", "normal", "mixture", "kernel", "flow", "two_stage"} or CodePrior
            What to learn; with ``"auto"`` what held-out codes speak for, which may be the model's own prior.
        labels : array-like of shape (n,), optional
            A class of each sequence, to draw sequences of a class.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        self
            With ``prior_``.
        """
        check_is_fitted(self, "module_")
        self.prior_, self.prior_scores_ = fit_prior(self, X, prior, None, labels, random_state)
        return self

    def sample(
        self,
        n: int = 1,
        *,
        condition: Any = None,
        prior: Literal["auto", "own", "fitted"] = "auto",
        decoding: Decoding = "sample",
        temperature: float = 1.0,
        random_state: Any = None,
        **options: Any,
    ) -> Any:
        """Generate sequences: draw codes from the prior, and write what they stand for.

        Parameters
        ----------
        n : int
            How many. :meth:`sample_blocks` makes more than fit into memory.
        condition : value or array-like, optional
            A class for all, or for each, where :meth:`fit_prior` was given labels.
        prior : {"auto", "own", "fitted"}
            Where codes come from: N(0, I), or what :meth:`fit_prior` learned; ``"auto"`` is the latter where it is there.
        decoding, temperature
            As in :meth:`inverse_transform`.
        random_state : int, RandomState or None
            Seed.
        **options
            Others of :meth:`inverse_transform`.

        Returns
        -------
        list of str, list of list, or array
            Sequences, as ``fit`` was given them.
        """
        fitted = fitted_prior(self, prior)
        if n < 1:
            raise ValueError(f"n={n}: expected at least 1")
        if condition is not None and getattr(self, "prior_", None) is None:
            raise TypeError("SequenceVAE has no fitted prior; learn one first, for classes: fit_prior(X, labels=...)")
        rng = np.random.default_rng(draw_seed(random_state))
        if fitted is None:
            Z = rng.normal(size=(n, self.latent_dim))
        else:
            Z = fitted.sample(n, labels=condition, random_state=int(rng.integers(2**31)))
        seed = int(rng.integers(2**31))
        return self.inverse_transform(Z, decoding=decoding, temperature=temperature, random_state=seed, **options)

    def sample_blocks(self, n: int, *, rows: int = 10_000, random_state: Any = None, **options: Any) -> Iterator[Any]:
        """Generate sequences block by block, in memory for one block; ``options`` are those of :meth:`sample`."""
        yield from in_blocks(self.sample, n, rows, random_state, options)

    # likelihood ---------------------------------------------------------------------------------------------------------------

    def score_samples(self, X: Any, *, n_samples: int = 0, random_state: Any = None) -> Array:
        r"""How well each sequence is explained: :math:`\log p(x \mid z) - \mathrm{KL}`, in nats, higher is better.

        Parameters
        ----------
        X : as in ``fit``
            Sequences.
        n_samples : int
            Draws of the code over which the score is averaged: then it is the bound on the log-likelihood; 0 takes the centre
            of the posterior.
        random_state : int, RandomState or None
            Seed of the draws.

        Returns
        -------
        ndarray of shape (n,)
            Nats per sequence, its end included.
        """
        if n_samples < 0:
            raise ValueError(
                f"n_samples={n_samples}: expected 0 (the centre of each code) or a positive number of draws"
            )
        raw = self._read(X, reset=False)
        with seeded(draw_seed(random_state), resolve_device(self.device)):
            return self._apply(raw, bound(n_samples)).astype(np.float64)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples`."""
        return float(self.score_samples(X).mean())

    def log_likelihood(
        self, X: Any, *, n_samples: int = 1000, return_std: bool = False, random_state: Any = None
    ) -> Any:
        r"""Estimate :math:`\log p(x)` of each sequence by importance sampling, in nats (Burda et al., 2016, arXiv:1509.00519).

        Parameters
        ----------
        X : as in ``fit``
            Sequences.
        n_samples : int
            Draws of the code for each.
        return_std : bool
            Whether to return standard errors too.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        ndarray of shape (n,), or two of them
            Nats per sequence, its end included.
        """
        if n_samples < 1:
            raise ValueError(f"n_samples={n_samples}: expected at least 1")
        raw = self._read(X, reset=False)

        def estimate(module: SequenceModule, batch: Batch) -> Tensor:
            return log_likelihood(module, batch, n_samples, elements=ELEMENTS)  # type: ignore[arg-type]

        with seeded(draw_seed(random_state), resolve_device(self.device)):
            found = self._apply(raw, estimate).astype(np.float64)
        return (found[:, 0], found[:, 1]) if return_std else found[:, 0]

    def activity(self, X: Any) -> CodeActivity:
        """Tell how much each unit of the code says about sequences, and how much of it is noise."""
        raw = self._read(X, reset=False)
        return CodeActivity.of(self._apply(raw, posterior_moments).astype(np.float64))

    def _read(self, X: Any, *, reset: bool, condition: None = None) -> Raw:
        check_is_fitted(self, "module_")
        if condition is not None:
            raise TypeError("SequenceVAE is told nothing beside a sequence; leave out condition")
        return Raw(self.codec_.encode(X), "vector", "numpy")

    def _apply(self, raw: Raw, function: Callable[[Any, Batch], Tensor]) -> Array:
        """Return what a function of the module and of batches makes of rows, those of like length together."""
        device = resolve_device(self.device)
        module = self.module_.to(device).eval()
        lengths = self.codec_.steps(raw.values)
        order = np.argsort(lengths, kind="stable")
        rows = max(1, min(512, ELEMENTS // (self.codec_.size * int(lengths.max()))))
        parts = []
        with torch.inference_mode():
            for start in range(0, len(order), rows):
                places = order[start : start + rows]
                x = torch.from_numpy(raw.values[places, : lengths[places].max()]).to(device)
                parts.append(function(module, Batch(x)).float().cpu().numpy())
        module.cpu()
        found = np.concatenate(parts)
        out = np.empty_like(found)
        out[order] = found
        return out

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        check_is_fitted(self, "module_")
        meta = {
            "tokens": self.codec_.to_json(),
            "history": self.history_.to_json(),
            "prior_scores": getattr(self, "prior_scores_", None),
        }
        return meta, {f"module.{k}": v.cpu() for k, v in self.module_.state_dict().items()}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.codec_ = TokenCodec.from_json(meta["tokens"])
        self.history_ = History.from_json(meta["history"])
        self.n_iter_ = len(self.history_)
        if meta["prior_scores"] is not None:
            self.prior_scores_ = meta["prior_scores"]
        with seeded(0):
            self.module_ = self._build(self.codec_).eval()
        self.module_.load_state_dict(
            {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
        )

    @property
    def _n_features_out(self) -> int:
        return self.latent_dim

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")
