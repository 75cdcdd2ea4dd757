"""Conditional models: encoder and decoder are told something of each row, such as its class."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

import torch

from diabolo.checks import Ge, Lt
from diabolo.data.conditions import condition_on_columns, condition_on_target
from diabolo.data.raw import Raw
from diabolo.declare import register, spec
from diabolo.module import AutoencoderModule
from diabolo.objectives import Objective
from diabolo.records import Batch, Loss
from diabolo.zoo.variational import GaussianCode

__all__ = ["ConditionalVAE"]


def with_hidden_conditions(
    module: AutoencoderModule, batch: Batch, progress: float, *, objective: Objective, share: float
) -> Loss:
    """Another objective, for rows of which a ``share`` has the unknown condition.

    Training hides the condition of rows drawn anew in each step. Rows that judge it count both ways, in the same proportion.

    Parameters
    ----------
    module : AutoencoderModule
        The model.
    batch : Batch
        Rows with a context.
    progress : float
        How far training has come, 0 to 1.
    objective : callable
        The loss.
    share : float
        Of rows whose condition is hidden.
    """
    if batch.context is None or share == 0:
        return objective(module, batch, progress)
    if module.training:
        kept = torch.rand(len(batch.x), 1, device=batch.x.device) >= share  # (B, 1)
        return objective(module, batch._replace(context=batch.context * kept), progress)
    told = objective(module, batch, progress)
    hidden = objective(module, batch._replace(context=torch.zeros_like(batch.context)), progress)
    terms = {k: torch.lerp(v, hidden.terms[k], share) for k, v in told.terms.items()}
    return Loss(torch.lerp(told.total, hidden.total, share), terms)


@register
@spec
class ConditionalVAE(GaussianCode):
    r"""A VAE that is told something of each row: its class, or numbers such as an age. It generates rows of a chosen class.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b, c_b) + \beta \,
              \mathrm{KL}\big(q(z \mid x_b, c_b) \,\|\, N(0, I)\big) \Big], \qquad z_b \sim q(z \mid x_b, c_b)

    in nats per row. The condition :math:`c` is either the ``y`` of ``fit`` or columns of ``X``. Encoder and decoder are given a
    class as a one-hot vector, and a number standardised, beside a mark that it is known. The prior of the code does not depend
    on the condition, so the code holds what the condition does not tell: a style, where classes are told.

    A condition may be unknown (``None`` or NaN). A share of the rows has its condition hidden in training, so that unknown
    conditions are learned: that is what methods assume when ``y`` was the condition and none is given. ``score(X, y)`` takes
    ``y`` for the condition. Columns of ``X`` that are the condition are read from the rows, handed back unchanged, and no part
    of any score. Rows are generated for a given condition, or for conditions like those of ``fit``.

    {parameters}

    References
    ----------
    Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional Generative Models, NeurIPS 2015.

    Kingma et al., Semi-Supervised Learning with Deep Generative Models, 2014, arXiv:1406.5298.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import ConditionalVAE
    >>> iris = load_iris()
    >>> species = iris.target_names[iris.target]
    >>> vae = ConditionalVAE(latent_dim=2, max_epochs=5, random_state=0).fit(iris.data, species)
    >>> vae.sample(4, condition="setosa", random_state=0).shape
    (4, 4)
    """

    condition: Annotated[
        Literal["y"] | tuple[str | int, ...],
        "what rows are conditioned on: 'y' is what is given to fit beside X, else columns of X by name or position",
    ] = "y"
    condition_kind: Annotated[
        Literal["auto", "classes", "numbers"],
        "what the condition is; 'auto' takes text, whole numbers and booleans of y for classes, floating point and columns of X "
        "for numbers",
    ] = "auto"
    condition_dropout: Annotated[
        float, Ge(0), Lt(1), "share of the rows whose condition is hidden in a training step, so that it may be unknown"
    ] = 0.1

    def _objective(self) -> Objective:
        return functools.partial(with_hidden_conditions, objective=super()._objective(), share=self.condition_dropout)

    def _learn_condition(self, raw: Raw, y: Any) -> Raw:
        if self.condition != "y":
            return condition_on_columns(raw, self.condition, self.condition_kind)
        if y is None:
            raise ValueError(
                "ConditionalVAE requires y to be passed, but the target y is None: call fit(X, y) with a class or numbers for "
                "each row, or set condition= to columns of X"
            )
        return condition_on_target(raw, y, self.condition_kind)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.condition == "y"
        tags.target_tags.multi_output = True
        return tags
