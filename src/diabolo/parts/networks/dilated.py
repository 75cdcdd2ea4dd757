"""A convolutional network at the full size of an image, whose kernels grow holes and lose them again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DilatedCNN"]

DILATIONS = (1, 2, 3, 4, 3, 2, 1)


class DilatedCNN(nn.Module):
    """Seven convolutions with rectifiers between them, of dilations from 1 up to 4 and back to 1.

    Parameters
    ----------
    inputs, outputs : int
        Channels that come and go.
    width : int
        Channels between.

    Attributes
    ----------
    stride, reach : int
        Sides are multiples of the one; a pixel depends on none farther away than the other.

    References
    ----------
    Zhang et al., Learning deep CNN denoiser prior for image restoration, 2017, arXiv:1704.03264.
    """

    def __init__(self, inputs: int, outputs: int, width: int):
        super().__init__()
        self.stride, self.reach = 1, sum(DILATIONS) + 1
        widths = [inputs, *[width] * (len(DILATIONS) - 1), outputs]
        layers: list[nn.Module] = []
        for before, after, dilation in zip(widths[:-1], widths[1:], DILATIONS, strict=True):
            layer = nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one
            layers += [layer, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, inputs, H, W)`` to ``(B, outputs, H, W)``."""
        y: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return y
