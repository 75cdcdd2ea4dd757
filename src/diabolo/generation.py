"""New rows from a fitted model: where codes are drawn from, and how they become rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from diabolo.inference import Inference
from diabolo.seeding import draw_seed, seeded
from diabolo.training.device import resolve_device

__all__ = ["Generation", "fitted_prior", "in_blocks"]


class Generation(Inference):
    """The methods of a fitted model that make new rows, which every estimator has."""

    def fit_prior(
        self, X: Any, prior: Any = "auto", *, labels: Any = None, condition: Any = None, random_state: Any = None
    ) -> Self:
        r"""Learn where codes are from rows, and draw from there in :meth:`sample` ever after.

        A model without a prior can generate then, and one with a prior often does so better: the codes of all rows together
        seldom look like draws of N(0, I). The model itself does not change, nor do its scores. ``prior_`` holds what was learned,
        is saved with the model, and is gone after another ``fit``; ``prior_scores_`` has the mean nats of each distribution over
        held-out codes, the model's own among them (``"own"``) where it has a density. With ``"auto"`` the best is kept, and none
        where the model's own is.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``: the rows of ``fit`` will do.
        prior : {"auto", "normal", "mixture", "kernel", "flow", "two_stage"} or CodePrior
            What to learn; a :class:`~diabolo.CodePrior` sets details.
        labels : array-like of shape (n,), optional
            A class of each row. Then :meth:`sample` takes a class for its ``condition``, though the model knows of none.
        condition : value, sequence, array, mapping or frame, optional
            As in :meth:`transform`.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        self
            With ``prior_``.
        """
        from diabolo.latent.fitting import fit_prior

        check_is_fitted(self)
        self.prior_, self.prior_scores_ = fit_prior(self, X, prior, condition, labels, random_state)
        return self

    def sample(
        self,
        n: int = 1,
        *,
        condition: Any = None,
        noise: bool = False,
        prior: str = "auto",
        temperature: float = 1.0,
        random_state: Any = None,
    ) -> Any:
        """Generate rows: draw codes from the prior and decode them.

        Parameters
        ----------
        n : int
            How many. :meth:`sample_blocks` makes more than fit into memory.
        condition : value, sequence, array, mapping or frame, optional
            For a model with a condition, or with a prior that was fitted with labels: one for all rows, or one for each. What is
            unknown in it (None or NaN), and all of it where there is none, is drawn from the rows of ``fit`` that agree with the
            rest, of which the model keeps up to 1000.
        noise : bool
            Whether to draw each row from the likelihood rather than return its mean.
        prior : {"auto", "own", "fitted"}
            Where codes come from: the model's own prior, or what :meth:`fit_prior` learned; ``"auto"`` is the latter where it is
            there.
        temperature : float
            Factor on the standard deviation of the prior's noise; below 1 rows are more typical and less varied.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        array, frame or tensor
            ``n`` rows in the units and the kind of data of ``fit``, with the columns that are their condition.

        Raises
        ------
        TypeError
            When the model has no prior.
        """
        fitted = fitted_prior(self, prior)
        if n < 1:
            raise ValueError(f"n={n}: expected at least 1")
        if not temperature >= 0:
            raise ValueError(f"temperature={temperature}: expected 0 or more")
        device = resolve_device(self.device)
        with seeded(draw_seed(random_state), device):
            labels = None
            if self.codec_.conditions is None and hasattr(fitted, "classes_"):
                labels, condition = condition, None
            if fitted is not None:
                prior_seed = int(torch.randint(2**31 - 1, ()))
                drawn = fitted.sample(n, labels=labels, temperature=temperature, random_state=prior_seed)
                codes = torch.from_numpy(drawn).float().view(n, *self.module_.code_shape)
                with torch.no_grad():
                    codes = self.module_.bottleneck.cpu().project(codes)
            else:
                codes = self.module_.bottleneck.prior(n, temperature)
            Z = codes.flatten(1).numpy().astype(np.float64 if self.codec_.wide else np.float32)
            told = self._draw_condition(self._told(condition, n), n)
            return self.codec_.decode(self._decode(Z, told, noise=noise), condition=told, bound=True)

    def sample_blocks(self, n: int, *, rows: int = 10_000, random_state: Any = None, **options: Any) -> Iterator[Any]:
        """Generate rows block by block, so that any number of them takes no more memory than one block.

        Parameters
        ----------
        n : int
            How many in all.
        rows : int
            How many in a block; the last may be smaller.
        random_state : int, RandomState or None
            Seed; with an int the blocks are the same at every call.
        **options
            As in :meth:`sample`; a condition is one for all rows.

        Yields
        ------
        array, frame or tensor
            Blocks as from :meth:`sample`; a single one is what that returns.
        """
        yield from in_blocks(self.sample, n, rows, random_state, options)

    def _draw_condition(self, told: NDArray[np.float64] | None, n: int) -> NDArray[np.float64] | None:
        """Draw what is not known of conditions from those of fit."""
        conditions = self.codec_.conditions
        if conditions is None or told is None:
            return None
        return conditions.complete(told, torch.rand(n).numpy())


def fitted_prior(model: Any, prior: str) -> Any:
    """Return what codes are drawn from, ``None`` for the model's own prior."""
    check_is_fitted(model)
    name, fitted = type(model).__name__, getattr(model, "prior_", None)
    if prior not in ("auto", "own", "fitted"):
        raise ValueError(
            f"prior={prior!r}: expected 'auto', 'own' or 'fitted'; a distribution is learned first, by "
            f"fit_prior(X, {prior!r})"
        )
    if prior == "fitted" and fitted is None:
        raise TypeError(f"{name} has no fitted prior; learn one from rows first: fit_prior(X)")
    if fitted is not None and prior != "own":
        return fitted
    if not model.module_.bottleneck.generative:
        raise TypeError(
            f"{name} has no prior to sample from; learn one from rows first, model.fit_prior(X), or use VAE or another model "
            "listed as generative by `diabolo models`"
        )
    return None


def in_blocks(
    sample: Callable[..., Any], n: int, rows: int, random_state: Any, options: dict[str, Any]
) -> Iterator[Any]:
    """Yield what ``sample(rows, random_state=..., **options)`` returns until there are ``n`` rows."""
    if n < 1 or rows < 1:
        raise ValueError(f"n={n}, rows={rows}: expected at least 1 of each")
    states = check_random_state(draw_seed(None) if random_state is None else random_state)
    for start in range(0, n, rows):
        yield sample(min(rows, n - start), random_state=states, **options)
