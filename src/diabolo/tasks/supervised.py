"""Classes and numbers for rows of which few are labelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from torch import Tensor

from diabolo.data.raw import Raw
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.tasks.classes import ClassBound, told_classes
from diabolo.tasks.finetuning import Held, Supervised
from diabolo.tasks.graph import Graph
from diabolo.tasks.labels import read_classes, read_numbers
from diabolo.tasks.linear import Choice, fit_linear, log_loss
from diabolo.zoo.variational import VariationalCode

__all__ = ["AutoencoderClassifier", "AutoencoderRegressor"]

Array = NDArray[Any]
SPREAD_ROWS = 20_000  # rows among which labels spread at most
POWERS = (1.0, 1.5, 2.0, 3.0, 5.0)  # of chances that spread; which one is right, held-out labels tell
ENOUGH = 500  # labels from which on they can tell whether opinions are to be pooled
WEIGHTS = (0.0, 0.25, 0.5)  # of the linear model's opinion beside what spreads
FLOOR = 1e-3  # chance that no opinion falls below
SURE = 0.95  # share of what spreads that is believed; the rest is the shares of all rows
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of the networks in a prediction
DOUBT = 0.5  # how far the logarithm of the temperature is expected to lie from 0


@register
@spec
class AutoencoderClassifier(ClassifierMixin, Supervised):  # type: ignore[misc]
    r"""Classifies rows of which few need a label.

    An autoencoder learns from all rows, labelled or not. Linear outputs on its codes (for tables on the rows beside them) are
    fitted to the labelled rows, with a penalty that cross-validation chooses; from this start encoder and outputs are fine-tuned
    together. Where labels spread along a graph of neighbouring codes, alone or together with the linear outputs, predict held-out
    labels better than these outputs do, rows without a label are learned from, too, by the chances :math:`p` that they get:

    .. math:: L = -\frac1{|B|} \sum_{b \in B} \sum_k y_{bk} \log \hat y_{bk}
              - \frac1{|U|} \sum_{u \in U} \Big(1 - \frac{H(p_u)}{\log K}\Big) \sum_k p_{uk} \log \hat y_{uk}

    in nats per row. With ``method="m2"`` the classifier is part of a generative model :math:`p(x \mid y, z)\, p(y)\, p(z)`, whose
    bound is learned along with it (:class:`~diabolo.tasks.classes.ClassBound`): rows without a label count by the sum over their
    possible classes. Images are shifted, turned and cropped, and rows of tables damaged, as in pre-training. The weights that are
    kept are those that explain held-out labels best, the start among them, and one temperature for the outputs makes
    probabilities fit these labels.

    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, in ascending order.
    autoencoder_ : BaseAutoencoder
        As it was after pre-training.
    heads_ : torch.nn.ModuleList
        The fine-tuned networks.
    histories_ : list of History
        How their training went.
    shares_ : ndarray of shape (n_classes,)
        Share of each class in the labels.
    spreading_ : bool
        Whether labels spread to rows without one.
    share_ : float
        Of the networks in a prediction; the rest is the linear model's.
    temperature_ : float
        What outputs of the networks are divided by.

    References
    ----------
    Vincent et al., Stacked denoising autoencoders, JMLR 11, 2010.

    Kingma et al., Semi-supervised learning with deep generative models, NIPS 2014, arXiv:1406.5298.

    Iscen et al., Label propagation for deep semi-supervised learning, CVPR 2019, arXiv:1904.04717.

    Guo et al., On calibration of modern neural networks, ICML 2017, arXiv:1706.04599.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from diabolo import Autoencoder, AutoencoderClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> few = np.where(np.arange(len(y)) < 100, y, -1)  # -1 marks a row without a label
    >>> model = AutoencoderClassifier(Autoencoder(16, max_epochs=5), n_models=1, max_steps=200, random_state=0).fit(X, few)
    >>> bool(model.score(X[100:], y[100:]) > 0.8)
    True
    """

    method: Annotated[
        Literal["frozen", "finetune", "joint", "m2"],
        "what labels change: with 'frozen' linear outputs on the code alone, with 'finetune' the encoder too, with 'joint' the "
        "encoder and the decoder, which goes on rebuilding rows; with 'm2' a variational autoencoder is told the class, which is "
        "summed out where it is not known",
    ] = "finetune"  # type: ignore[assignment]  # one more than a regressor has
    label_spreading: Annotated[
        Literal["auto"] | bool,
        "whether labels spread to rows without one along a graph of neighbouring codes; 'auto' tries it on held-out labels",
    ] = "auto"

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from all rows, and from the labels of some.

        Parameters
        ----------
        X : array, frame, sparse matrix, tensor, images or list of series
            Rows, as for the model.
        y : array-like of shape (n,)
            Labels. NaN or None, and of numbers -1, marks a row without one; with no other numbers than -1 and 1 both are classes.

        Returns
        -------
        self
            Fitted. A keyboard interrupt ends training early and keeps what was learned.

        Raises
        ------
        ValueError
            When no row has a label, or all have the same.
        """
        return self._fit(X, y)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most likely class of each row ``(n,)``."""
        places = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[places])

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class, in the order of ``classes_``.

        Parameters
        ----------
        X : array, frame, sparse matrix, tensor, images or list of series
            Rows as in ``fit``.

        Returns
        -------
        ndarray of shape (n, n_classes)
        """
        linear, networks = self._outputs_of(X)
        chances = softmax(linear, axis=1)
        if not networks:
            return np.asarray(chances)
        each = np.mean([softmax(out / self.temperature_, axis=1) for out in networks], axis=0)
        return np.asarray(self.share_ * each + (1 - self.share_) * chances)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithm of :meth:`predict_proba`."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(np.float64).tiny))

    def _outputs(self) -> int:
        return len(self.classes_)

    def _check_model(self, model: BaseAutoencoder) -> None:
        if self.method == "m2" and self.autoencoder is not None and not isinstance(model, VariationalCode):
            raise ValueError(
                f"method='m2' tells a variational autoencoder the class, and {type(model).__name__} has no posterior. Use "
                "VAE() or a relative of it, or method='joint'."
            )

    def _sums_out(self) -> bool:
        return self.method == "m2"

    def _bound(self) -> ClassBound | None:
        if self.method != "m2":
            return None
        return ClassBound(told_classes(self.autoencoder_, len(self.classes_)), torch.from_numpy(self.shares_))

    def _learn_targets(self, y: Any, n: int) -> tuple[Array, Array]:
        self.classes_, codes = read_classes(y, n, type(self).__name__)
        self.shares_ = np.bincount(codes[codes >= 0], minlength=len(self.classes_)) / (codes >= 0).sum()
        return codes, np.flatnonzero(codes >= 0)

    def _guesses(
        self,
        raw: Raw,
        targets: Array,
        labelled: Array,
        choice: Choice,
        folds: list[tuple[Array, Array]],
        rng: np.random.Generator,
    ) -> Callable[[Array], tuple[Tensor, Tensor]]:
        n, k = len(targets), len(self.classes_)
        exact = torch.zeros(n, k)
        exact[torch.from_numpy(labelled), torch.from_numpy(targets[labelled])] = 1
        others = np.flatnonzero(targets < 0)

        def none(learn: Array) -> tuple[Tensor, Tensor]:
            return exact, torch.zeros(n)

        if not len(others) or self.label_spreading is False:
            return none
        if self.label_spreading == "auto" and (not folds or len(labelled) > SPREAD_ROWS // 2):
            return none  # labels are too few to tell, or not few
        others = np.sort(rng.permutation(others)[: max(SPREAD_ROWS - len(labelled), SPREAD_ROWS // 2)])
        places = np.concatenate([labelled, others])
        codes = self.autoencoder_._apply(
            raw.take(places), lambda m, batch: m.encode(batch.x, batch.context, batch.mask).z.flatten(1)
        )
        graph, told, seen = Graph(codes), targets[places], self._seen(raw.take(places))
        shares = self.shares_

        def opinions(learn: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            """Return the chances of all places by the graph, and by a linear model."""
            known = np.full(len(told), -1)
            known[learn] = told[learn]
            linear = fit_linear(seen[learn], told[learn], k, choice.strength)
            return graph.spread(known, shares), softmax(linear(seen), axis=1)

        power, weight, weights = 1.0, 0.0, WEIGHTS if len(labelled) >= ENOUGH else WEIGHTS[:1]
        if folds:
            spread, linear = (
                np.concatenate(part)
                for part in zip(*([part[judge] for part in opinions(learn)] for learn, judge in folds), strict=True)
            )
            right = told[np.concatenate([judge for _, judge in folds])]
            wrong = [(_pooled(spread, linear, w, 1.0, shares).argmax(axis=1) != right).mean() for w in weights]
            weight = weights[int(np.argmin(wrong))]  # sureness, which losses go by, is for the power to mend
            losses = np.array([log_loss(np.log(_pooled(spread, linear, weight, p, shares)), right) for p in POWERS])
            power = POWERS[int(losses.argmin())]
            if self.label_spreading == "auto" and losses.min() >= choice.loss:
                return none
        self.spreading_ = True

        def guessed(learn: Array) -> tuple[Tensor, Tensor]:
            spread, linear = (part[len(labelled) :] for part in opinions(learn))
            chances = _pooled(spread, linear, weight, power, shares)
            entropy = -(chances * np.log(np.maximum(chances, 1e-12))).sum(axis=1)
            guess, trust = exact.clone(), torch.zeros(n)
            guess[torch.from_numpy(others)] = torch.from_numpy(chances).float()
            trust[torch.from_numpy(others)] = torch.from_numpy(np.clip(1 - entropy / np.log(k), 1e-3, 1)).float()
            return guess, trust

        return guessed

    def _mix(self, held: Held | None) -> None:
        """Find the share and the temperature under which held-out labels are most likely; few of them leave both near 1."""
        self.share_, self.temperature_ = float(len(self.heads_) > 0), 1.0
        if held is None:
            return
        right = np.arange(len(held.targets)), held.targets
        linear = softmax(held.linear, axis=1)[right]

        def unlikely(t: float, share: float) -> float:
            chances = share * softmax(held.networks * np.exp(-t), axis=1)[right] + (1 - share) * linear
            return float(-np.log(np.maximum(chances, 1e-12)).sum() + t**2 / (2 * DOUBT**2))

        found = []
        for share in SHARES:
            best = minimize_scalar(unlikely, bounds=(-2, 2), method="bounded", args=(share,))
            found.append((float(best.fun), -share, float(np.exp(best.x))))
        _, share, self.temperature_ = min(found)
        self.share_ = -share

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        meta, tensors = super()._get_state()
        kind = self.classes_.dtype.str
        return meta | {
            "classes": self.classes_.tolist(),
            "shares": self.shares_.tolist(),
            "type": kind,
            "temperature": self.temperature_,
            "share": self.share_,
        }, tensors

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.classes_ = np.array(meta["classes"], dtype=np.dtype(meta["type"]))
        self.shares_ = np.array(meta["shares"])
        self.temperature_, self.share_ = meta["temperature"], meta["share"]
        super()._set_state(meta, tensors)


def _pooled(spread: Array, linear: Array, weight: float, power: float, shares: Array) -> NDArray[np.float64]:
    """Return the geometric mean of two opinions ``(n, n_classes)``, raised to a power, with a remainder of doubt."""
    raised = (np.maximum(spread, FLOOR) ** (1 - weight) * np.maximum(linear, FLOOR) ** weight) ** power
    found: NDArray[np.float64] = SURE * raised / raised.sum(axis=1, keepdims=True) + (1 - SURE) * shares
    return found


@register
@spec
class AutoencoderRegressor(RegressorMixin, Supervised):  # type: ignore[misc]
    r"""Predicts a number for rows of which few come with it.

    An autoencoder learns from all rows. A ridge regression on its codes (for tables on the rows beside them), its penalty chosen
    by cross-validation, is the start from which encoder and output are fine-tuned on the rows whose number is known, to
    half the squared error in units of the spread of ``y``. The weights that are kept are those that explain held-out numbers
    best, the start among them.

    {parameters}

    Attributes
    ----------
    autoencoder_ : BaseAutoencoder
        As it was after pre-training.
    heads_ : torch.nn.ModuleList
        The fine-tuned networks.
    histories_ : list of History
        How their training went.
    share_ : float
        Of the networks in a prediction; the rest is the linear model's.

    References
    ----------
    Vincent et al., Stacked denoising autoencoders, JMLR 11, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_diabetes
    >>> from diabolo import Autoencoder, AutoencoderRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> few = np.where(np.arange(len(y)) < 200, y, np.nan)  # NaN marks a row without a number
    >>> model = AutoencoderRegressor(Autoencoder(4, max_epochs=5), n_models=1, max_steps=100, random_state=0).fit(X, few)
    >>> bool(model.score(X[200:], y[200:]) > 0.4)
    True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from all rows, and from the numbers of some.

        Parameters
        ----------
        X : array, frame, sparse matrix, tensor, images or list of series
            Rows, as for the model.
        y : array-like of shape (n,)
            Numbers; NaN or None marks a row without one.

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        ValueError
            When fewer than two numbers are known.
        """
        return self._fit(X, y)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the expected number of each row ``(n,)``, in the units of ``y``."""
        linear, networks = self._outputs_of(X)
        out = self.share_ * np.mean(networks, axis=0) + (1 - self.share_) * linear if networks else linear
        return np.asarray(out[:, 0] * self.scale_ + self.mean_)

    def _outputs(self) -> int:
        return 1

    def _learn_targets(self, y: Any, n: int) -> tuple[Array, Array]:
        values = read_numbers(y, n, type(self).__name__)
        known = np.flatnonzero(~np.isnan(values))
        self.mean_, self.scale_ = float(values[known].mean()), float(values[known].std()) or 1.0
        return (values - self.mean_) / self.scale_, known

    def _guesses(
        self,
        raw: Raw,
        targets: Array,
        labelled: Array,
        choice: Choice,
        folds: list[tuple[Array, Array]],
        rng: np.random.Generator,
    ) -> Callable[[Array], tuple[Tensor, Tensor]]:
        exact, trust = torch.from_numpy(np.nan_to_num(targets)).float()[:, None], torch.zeros(len(targets))
        return lambda learn: (exact, trust)

    def _mix(self, held: Held | None) -> None:
        """Find the share under which held-out numbers are predicted best."""
        self.share_ = float(len(self.heads_) > 0)
        if held is not None:
            errors = [
                np.square(s * held.networks[:, 0] + (1 - s) * held.linear[:, 0] - held.targets).mean() for s in SHARES
            ]
            self.share_ = SHARES[int(np.argmin(errors))]

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        meta, tensors = super()._get_state()
        return meta | {"mean": self.mean_, "scale": self.scale_, "share": self.share_}, tensors

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.mean_, self.scale_, self.share_ = meta["mean"], meta["scale"], meta["share"]
        super()._set_state(meta, tensors)
