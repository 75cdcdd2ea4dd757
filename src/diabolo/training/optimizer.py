"""The optimiser: AdamW, for narrow matrices in the basis of their gradients' correlations."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

__all__ = ["Optimizer"]


class Optimizer:
    r"""AdamW (Loshchilov and Hutter, 2019), and SOAP (Vyas et al., 2024, arXiv:2409.11321) where it costs little.

    For a weight matrix and its gradients :math:`G_t`, SOAP follows the correlations of the gradients along the shorter side,
    :math:`L \leftarrow \beta_2 L + (1 - \beta_2)\, G_t G_t^\top`, and lets Adam work on :math:`Q^\top G_t`, with the
    eigenvectors :math:`Q` of :math:`L`; its step is turned back by :math:`Q`. The eigenvectors are followed by one step of
    orthogonal iteration every ``every`` steps.

    It is no subclass of ``torch.optim.Optimizer``, whose bookkeeping takes as long as the arithmetic for a small network.

    Parameters
    ----------
    parameters : iterable of Tensor
        What to train. Tensors of more than two axes count as matrices ``(first axis, the rest)``.
    lr : float
        Learning rate; ``param_groups[0]["lr"]`` may be set before each step.
    weight_decay : float
        Decoupled decay, per unit of learning rate.
    widest : int
        Length of the shorter side up to which a matrix gets SOAP; 0 is AdamW for all.
    every : int
        Steps between two updates of the eigenvectors.
    shares : iterable of float, optional
        For each parameter the share of the learning rate that it moves by; 1 by default.
    """

    EPSILON = 1e-8

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float = 0.0,
        widest: int = 0,
        every: int = 10,
        shares: Iterable[float] | None = None,
    ):
        self.parameters = list(parameters)
        shares = [1.0] * len(self.parameters) if shares is None else list(shares)
        self.param_groups = [{"params": self.parameters, "lr": lr}]
        self.weight_decay, self.every = weight_decay, every
        self.steps = 0
        turned = [p.dim() > 1 and 1 < min(len(p), p[0].numel()) <= widest for p in self.parameters]
        each = list(zip(self.parameters, shares, turned, strict=True))
        self.matrices = [Matrix(p, share) for p, share, is_turned in each if is_turned]
        self.rest = [p for p, _, is_turned in each if not is_turned]
        self.means = [torch.zeros_like(_in_order(p)) for p in self.rest]
        self.squares = [torch.zeros_like(mean) for mean in self.means]
        self.counts = [torch.zeros((), device=p.device) for p in self.rest]
        found = [share for _, share, is_turned in each if not is_turned]
        self.groups = [(s, [i for i, share in enumerate(found) if share == s]) for s in dict.fromkeys(found)]
        self.betas = (0.9, 0.95) if self.matrices else (0.9, 0.999)
        self.fused = all(p.device.type in ("cpu", "cuda") for p in self.parameters)

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        lr, (beta1, beta2) = float(self.param_groups[0]["lr"]), self.betas  # type: ignore[arg-type]
        self.steps += 1
        for share, places in self.groups:
            kept = [i for i in places if self.rest[i].grad is not None]
            if not kept:
                continue
            whole = len(kept) == len(self.rest)
            parameters, means, squares, counts = (
                group if whole else [group[i] for i in kept]
                for group in (self.rest, self.means, self.squares, self.counts)
            )
            adamw(
                [_in_order(p) for p in parameters],
                [p.grad if p.is_contiguous() else p.grad.T for p in parameters],  # type: ignore[misc, union-attr]
                means,
                squares,
                [],
                counts,
                fused=self.fused,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=lr * share,
                weight_decay=self.weight_decay,
                eps=self.EPSILON,
                maximize=False,
            )
        for matrix in self.matrices:
            if matrix.weight.grad is not None:
                matrix.step(lr * matrix.share, self.weight_decay, beta1, beta2, self.EPSILON, self.every)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a run must keep to go on."""
        found = {"steps": torch.tensor(self.steps)}
        for name, group in (("mean", self.means), ("square", self.squares), ("count", self.counts)):
            found |= {f"{name}.{i}": t for i, t in enumerate(group)}
        for i, matrix in enumerate(self.matrices):
            found |= {f"matrix.{i}.{k}": t for k, t in matrix.tensors().items()}
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what :meth:`tensors` returned."""
        self.steps = int(tensors["steps"])
        mine = self.tensors()
        for name, tensor in tensors.items():
            if name != "steps":
                mine[name].copy_(tensor)


def _in_order(weight: Tensor) -> Tensor:
    """Return a weight as it lies in memory, its transpose where the layout is transposed."""
    return weight.detach() if weight.is_contiguous() else weight.detach().T


class Matrix:
    """A weight and what SOAP knows of it."""

    def __init__(self, weight: Tensor, share: float = 1.0):
        self.weight, self.share = weight, share
        flat = weight.detach().flatten(1)
        self.left = flat.shape[0] < flat.shape[1]  # whether the shorter side is the first
        n = min(flat.shape)
        self.mean, self.square = torch.zeros_like(flat), torch.zeros_like(flat)  # of turned gradients
        self.correlation, self.basis = flat.new_zeros(n, n), torch.eye(n, dtype=flat.dtype, device=flat.device)
        self.count = torch.zeros(())

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, by name."""
        names = ("mean", "square", "correlation", "basis", "count")
        return {name: getattr(self, name) for name in names}

    def step(self, lr: float, weight_decay: float, beta1: float, beta2: float, epsilon: float, every: int) -> None:
        """Move the weight."""
        count = int(self.count) + 1
        self.count.fill_(count)
        weight, gradient = self.weight.view(len(self.weight), -1), self.weight.grad.flatten(1)  # type: ignore[union-attr]
        first, second = (gradient, gradient.T) if self.left else (gradient.T, gradient)
        self.correlation.addmm_(first, second, beta=beta2, alpha=1 - beta2)
        if count == 1 or count % every == 0:
            self.turn(count)
        turned = self.basis.T @ gradient if self.left else gradient @ self.basis
        self.mean.lerp_(turned, 1 - beta1)
        self.square.mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
        correction = math.sqrt(1 - beta2**count)
        move = self.mean / self.square.sqrt().add_(epsilon * correction)
        rate = -lr * correction / (1 - beta1**count)
        if weight_decay:
            weight.mul_(1 - lr * weight_decay)
        if self.left:
            weight.addmm_(self.basis, move, alpha=rate)
        else:
            weight.addmm_(move, self.basis.T, alpha=rate)

    def turn(self, count: int) -> None:
        """Follow the eigenvectors of the correlations, and turn the running mean with them."""
        if count == 1:
            basis = torch.linalg.eigh(self.correlation)[1].flip(1)  # largest first, the order that iterations keep
        else:
            basis = torch.linalg.qr(self.correlation @ self.basis)[0]
            change = self.basis.T @ basis
            self.mean.copy_(change.T @ self.mean if self.left else self.mean @ change)
        self.basis.copy_(basis)
