"""Why a loss is not finite: the layer or the feature that it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diabolo.module import AutoencoderModule
from diabolo.training.rows import Rows

__all__ = ["diagnose"]

LOOKED_AT = 4096  # rows


@torch.no_grad()
def diagnose(module: AutoencoderModule, rows: Rows) -> str:
    """Name the layer or the feature that is not finite at the last good weights, the others being beyond telling."""
    module.train()
    batch = rows.head(LOOKED_AT)
    largest = int(batch.x.abs().flatten(1).amax(dim=0).argmax())
    extreme = float(batch.x.flatten(1)[:, largest].abs().max())
    scaled = f"The largest scaled value is {extreme:.3g}, in {rows.schema.feature(largest)}"
    if extreme > 1e4:
        return scaled + ": use scale='quantile', or clip or transform that feature."
    found: list[str] = []

    def look(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(layer)

        return hook

    handles = [m.register_forward_hook(look(n)) for n, m in module.named_modules() if n]
    trace = module.trace(batch, sample=True, corrupt=True)
    batch = trace.batch
    for handle in handles:
        handle.remove()
    module.eval()
    if found:
        return f"The output of layer {found[0]!r} is not finite. {scaled}. Lower learning_rate."
    elements = module.log_prob_elements(trace.raw, batch).flatten(1)
    bad = (~torch.isfinite(elements)).any(dim=0).nonzero().flatten()
    if len(bad):
        return f"The log-likelihood of {rows.schema.feature(int(bad[0]))} is not finite. {scaled}."
    return f"{scaled}. A step of training leaves the finite numbers: lower learning_rate, or set gradient_clip=1."
