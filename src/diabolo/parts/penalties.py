"""Penalties: terms added to the training loss, in nats per row."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diabolo.records import Trace

__all__ = ["KLSparsity", "L1Sparsity", "Penalty", "WeightL1"]
__all__ += ["CodeJacobian", "CodeL2", "DecoderJacobian", "DecoderL2", "ReconstructionJacobian", "squared_jacobian_norm"]

EXACT_OUTPUTS = 8  # up to this many outputs "auto" takes the norm of a Jacobian exactly
AUTO_PROBES = 4  # random directions that "auto" takes above


class Penalty(nn.Module, ABC):
    """A weighted term of the training loss.

    Attributes
    ----------
    name : str
        Its name in the history.
    weight : float
        What it is multiplied by.
    judged : bool
        Whether it also counts outside training mode, because without it the best epoch would be one that it has hardly acted
        on. A model may ask this of all its penalties.
    """

    name: str
    judged: bool = False

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return the weighted term, a scalar or ``(B,)``."""


class L1Sparsity(Penalty):
    r""":math:`\lambda \sum_d |z_d|` for each row."""

    name = "sparsity"

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return ``(B,)``."""
        return self.weight * trace.code.z.abs().flatten(1).sum(1)


class KLSparsity(Penalty):
    r""":math:`\lambda \sum_d \mathrm{KL}(\rho \,\|\, \hat\rho_d)` between the wanted rate and the batch's mean activation.

    Codes must lie in (0, 1), as after a sigmoid.

    Parameters
    ----------
    weight : float
        :math:`\lambda`, nats per row.
    rate : float
        The wanted mean activation :math:`\rho`.

    References
    ----------
    Ng, Sparse autoencoder, CS294A lecture notes, 2011.
    """

    name = "sparsity"

    def __init__(self, weight: float, rate: float):
        super().__init__(weight)
        self.rate = rate

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar."""
        q = trace.code.z.flatten(1).mean(dim=0).clamp(1e-6, 1 - 1e-6)
        p = torch.as_tensor(self.rate, dtype=q.dtype, device=q.device)
        return self.weight * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()


class WeightL1(Penalty):
    r""":math:`\lambda \sum |w|` over the weight matrices, biases left alone."""

    name = "weight_l1"
    judged = True

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar."""
        return self.weight * torch.stack([w.abs().sum() for w in module.parameters() if w.dim() > 1]).sum()


class CodeL2(Penalty):
    r""":math:`\frac{\lambda}{2} \sum_d z_d^2` for each row: the code is pulled towards zero, as by a normal prior."""

    name = "code_l2"

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return ``(B,)``."""
        return 0.5 * self.weight * trace.code.z.square().flatten(1).sum(1)


class DecoderL2(Penalty):
    r""":math:`\lambda \sum w^2` over the weight matrices of the decoder, biases left alone."""

    name = "decoder_l2"

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar."""
        return self.weight * torch.stack([w.square().sum() for w in module.decoder.parameters() if w.dim() > 1]).sum()


def squared_jacobian_norm(
    function: Callable[[Tensor], Tensor], x: Tensor, probes: int | Literal["auto", "exact"] = "auto"
) -> Tensor:
    r"""Return :math:`\|\partial f(x_b) / \partial x_b\|_F^2` for each row, differentiable in the weights of ``function``.

    Parameters
    ----------
    function : callable
        From ``(n, ...)`` to ``(n, ...)`` for any ``n``; each row of the result depends on the same row of ``x`` alone.
    x : Tensor of shape (B, ...)
        Where.
    probes : int, "exact" or "auto"
        ``"exact"`` takes the gradient of every output, all in one pass over copies of the rows. A number takes that many random
        directions :math:`v` of signs: :math:`\|v^\top J\|^2` has the squared norm as its expectation (Hutchinson, 1990,
        doi:10.1080/03610919008812866). ``"auto"`` is exact up to 8 outputs, and 4 directions above.

    Returns
    -------
    Tensor of shape (B,)
    """
    rows = len(x)
    with torch.no_grad():
        n = function(x[:1]).numel()
    if probes == "auto":
        probes = "exact" if n <= EXACT_OUTPUTS else AUTO_PROBES
    if probes == "exact":
        copies, directions = n, torch.eye(n, device=x.device).repeat_interleave(rows, dim=0)
    else:
        copies, directions = probes, 2.0 * torch.randint(0, 2, (probes * rows, n), device=x.device) - 1.0
    with torch.enable_grad():
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        many = x.repeat(copies, *[1] * (x.dim() - 1))  # (copies * B, ...), copy after copy
        y = function(many).flatten(1)  # (copies * B, n)
        (gradients,) = torch.autograd.grad(y, many, directions.to(y.dtype), create_graph=True)
        squares = gradients.square().flatten(1).sum(1).view(copies, rows).sum(0)  # (B,)
    return squares if probes == "exact" else squares / copies


@contextlib.contextmanager
def _as_used(module: nn.Module) -> Iterator[None]:
    """Run a block on the map that inference uses: no dropout, running statistics, so that rows stay apart.

    The fast kernels of attention have no second derivative, nor have cuDNN's of recurrent layers.
    """
    modes = [(part, part.training) for part in module.modules()]
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    plain = torch.backends.cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
    module.eval()
    try:
        with sdpa_kernel(SDPBackend.MATH), plain:
            yield
    finally:
        for part, training in modes:
            part.training = training


def _tiled(given: Tensor | None, x: Tensor) -> Tensor | None:
    """Return the context or the mask ``(B, ...)`` of each row of ``x``: some copies of the batch, or its first row."""
    if given is None:
        return None
    return given.repeat(max(1, len(x) // len(given)), *[1] * (given.dim() - 1))[: len(x)]


class JacobianPenalty(Penalty):
    r""":math:`\lambda \|J\|_F^2` for each row, :math:`J` being the Jacobian of a map that the subclass names.

    Parameters
    ----------
    weight : float
        :math:`\lambda`, nats per row.
    probes : int, "exact" or "auto"
        How the norm is taken; see :func:`squared_jacobian_norm`.
    """

    def __init__(self, weight: float, probes: int | Literal["auto", "exact"] = "auto"):
        super().__init__(weight)
        self.probes = probes

    @abstractmethod
    def mapping(self, module: Any, trace: Trace) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Return the map and the rows where its Jacobian is taken."""

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return ``(B,)``."""
        with _as_used(module):
            function, x = self.mapping(module, trace)
            return self.weight * squared_jacobian_norm(function, x, self.probes)


class CodeJacobian(JacobianPenalty):
    """The Jacobian of the code with respect to the row (Rifai et al., 2011)."""

    name = "contraction"

    def mapping(self, module: Any, trace: Trace) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Return the encoder, at the rows it saw."""
        batch = trace.batch
        return lambda x: module.encode(x, _tiled(batch.context, x), _tiled(batch.mask, x)).z, trace.x_in


class ReconstructionJacobian(JacobianPenalty):
    """The Jacobian of the reconstruction with respect to the row (Alain and Bengio, 2014)."""

    name = "contraction"

    def mapping(self, module: Any, trace: Trace) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Return encoder and decoder, at the rows the encoder saw."""

        def rebuild(x: Tensor) -> Tensor:
            context, mask = _tiled(trace.batch.context, x), _tiled(trace.batch.mask, x)
            mean: Tensor = module.likelihood.mean(module.decode(module.encode(x, context, mask).z, context))
            return mean

        return rebuild, trace.x_in


class DecoderJacobian(JacobianPenalty):
    """The Jacobian of the reconstruction with respect to the code."""

    name = "decoder_gradient"

    def mapping(self, module: Any, trace: Trace) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Return the decoder, at the codes of the rows."""
        return lambda z: module.likelihood.mean(module.decode(z, _tiled(trace.batch.context, z))), trace.code.z
