"""A bound on rows together with their class, and on rows whose class is summed out."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.records import Batch

__all__ = ["ClassBound", "told_classes"]


def told_classes(model: BaseAutoencoder, n_classes: int) -> AutoencoderModule:
    """Return a module like that of a fitted model, whose two halves are told a class and know nothing yet.

    Halves that were trained without a class would leave nothing to it: their code says all that a class does.
    """
    made = model._build(dataclasses.replace(model.schema_, context=n_classes))
    made.likelihood.load_state_dict(model.module_.likelihood.state_dict())
    made.bottleneck.load_state_dict(model.module_.bottleneck.state_dict())
    made.code_shape = model.module_.code_shape
    return made


class ClassBound(nn.Module):
    r"""The bound of a semi-supervised variational autoencoder (Kingma et al., 2014, arXiv:1406.5298, their M2).

    .. math:: L(x, y) = E_{q(z \mid x, y)} \log p(x \mid y, z) - \mathrm{KL}\big(q(z \mid x, y) \,\|\, p(z)\big) + \log p(y)

    .. math:: U(x) = \sum_y q(y \mid x) \big(L(x, y) - \log q(y \mid x)\big)

    in nats per row. The first is that of a row with a label, the second that of a row without one. The sum over classes is exact;
    :math:`z` is drawn once for each of them. In the first half of training :math:`q(y \mid x)` only tells the networks which
    class rows are of, and learns nothing of them; from then on its gradient rises to full weight. Else classes that explain
    nothing yet would be handed out at random.

    Parameters
    ----------
    module : AutoencoderModule
        :math:`q(z \mid x, y)` and :math:`p(x \mid y, z)`, told a class in place of a context.
    shares : Tensor of shape (n_classes,)
        :math:`p(y)`.
    """

    log_shares: Tensor

    def __init__(self, module: AutoencoderModule, shares: Tensor):
        super().__init__()
        self.module = module.requires_grad_(True)
        self.register_buffer("log_shares", shares.clamp_min(1e-12).log().float())

    def rows(self, batch: Batch, weight: Tensor) -> Tensor:
        """Return :math:`L(x, y)` of each row with each class ``(B, n_classes)``.

        ``weight`` ``(B, n_classes)`` says what each pair counts where a likelihood follows its residuals in training.
        """
        k = len(self.log_shares)
        copies = Batch(*(None if t is None else t.repeat_interleave(k, dim=0) for t in batch))  # type: ignore[arg-type]
        copies = copies._replace(
            context=torch.eye(k, device=batch.x.device, dtype=batch.x.dtype).repeat(len(batch.x), 1)
        )
        trace = self.module.trace(copies, sample=True)
        if self.training:
            cells = weight.detach().reshape(-1, *[1] * (copies.x.dim() - 1)).expand_as(copies.x)
            self.module.likelihood.observe(
                trace.raw, trace.batch.x, cells if trace.batch.mask is None else cells * trace.batch.mask
            )
        bound = self.module.log_prob(trace.raw, trace.batch)
        for cost in trace.code.costs.values():
            bound = bound - cost
        return bound.view(-1, k) + self.log_shares

    def forward(self, batch: Batch, log_q: Tensor, targets: Tensor, known: Tensor, progress: float = 1.0) -> Tensor:
        r"""Return the mean bound of rows with a label and that of rows without, half each; of one kind alone its mean.

        Parameters
        ----------
        batch : Batch
            Rows.
        log_q : Tensor of shape (B, n_classes)
            Logarithms of :math:`q(y \mid x)`.
        targets : Tensor of shape (B, n_classes)
            1 at the class of rows with a label.
        known : Tensor of shape (B,)
            1 for rows with a label, 0 for rows without.
        progress : float
            How far training has come, 0 to 1.
        """
        weight = min(1.0, max(0.0, 2 * progress - 1))
        log_q = weight * log_q + (1 - weight) * log_q.detach()
        told = known[:, None].bool()
        chance = torch.where(told, targets, log_q.exp())
        each = (chance * (self.rows(batch, chance) - torch.where(told, 0.0, log_q))).sum(1)
        kinds = [each[part] for part in (known > 0, known == 0) if part.any()]
        return torch.stack([part.mean() for part in kinds]).mean()
