"""Greedy layer-wise pre-training: each layer is an autoencoder of the codes below it, trained before the whole is."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from diabolo.checks import ParameterError
from diabolo.module import AutoencoderModule
from diabolo.objectives import Objective, elbo
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import Gaussian
from diabolo.parts.networks.mlp import FullyConnected
from diabolo.records import Resident, Schema, Table
from diabolo.training.loop import Run, evaluated_rows, train
from diabolo.training.progress import Progress
from diabolo.training.rows import Selection

__all__ = ["layer_modules", "pretrain_layers"]


class Half(nn.Module):
    """A layer as an encoder or a decoder of its own; ``joined`` says whether a context is part of its input."""

    def __init__(self, layer: nn.Module, joined: bool):
        super().__init__()
        self.layer, self.joined = layer, joined

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, *shape)`` and ``(B, C)`` to ``(B, out)``."""
        x = x.flatten(1)
        if self.joined and context is not None:
            x = torch.cat([x, context], dim=1)
        out: Tensor = self.layer(x)
        return out


def layer_modules(module: AutoencoderModule, schema: Schema) -> list[AutoencoderModule]:
    """Cut a module into one autoencoder for each layer, from the rows up; they share its weights.

    The first explains rows by the module's likelihood, the others explain the codes below by a Gaussian one. The last has the
    module's bottleneck and penalties. Its corruption is at the foot of the first; :func:`pretrain_layers` gives it to the others.

    Raises
    ------
    ParameterError
        When there are no layers that mirror each other.
    """
    encoder, decoder = module.encoder, module.decoder
    if not isinstance(encoder, FullyConnected) or not isinstance(decoder, FullyConnected):
        raise ParameterError(
            "pretrain='layerwise' needs an encoder of fully connected layers and a decoder that mirrors them; here they are "
            f"{type(encoder).__name__} and {type(decoder).__name__}. Use network='mlp' or 'residual_mlp' with a model that takes "
            "it, or pretrain=None."
        )
    up, down = encoder.layers(), decoder.layers()[::-1]
    if len(up) < 2 or len(up) != len(down):
        raise ParameterError(
            f"pretrain='layerwise' needs hidden layers that the decoder mirrors; the encoder has {len(up) - 1} and the decoder "
            f"{len(down) - 1}. Give their widths in hidden, or use pretrain=None."
        )
    modules = []
    shape: tuple[int, ...] = schema.shape
    for i, (first, second) in enumerate(zip(up, down, strict=True)):
        last = i == len(up) - 1
        wide = module.bottleneck.out_features if last else encoder.widths[i]
        part = AutoencoderModule(
            dataclasses.replace(schema, shape=shape, columns=()),
            encoder=Half(first, joined=i == 0),
            decoder=Half(second, joined=last),
            bottleneck=module.bottleneck if last else Identity(wide),
            likelihood=module.likelihood if i == 0 else Gaussian(),
            corruption=module.corruption if i == 0 else None,
            penalties=list(module.penalties) if last else (),  # type: ignore[arg-type]
        )
        modules.append(part)
        shape = (wide,)
    return modules


def pretrain_layers(run: Run, *, rows: Selection, held_out: Selection, objective: Objective, epochs: int) -> None:
    """Train each layer of ``run.module`` in turn, by the loop that trains the whole (Bengio et al., 2007; Vincent et al., 2010).

    A layer and its mirror image in the decoder learn to rebuild the codes that the layers below give to undamaged rows. A
    corruption damages the input of the layer that is trained, normal noise in units of the spread of those codes. The objective,
    bottleneck and penalties of the model belong to the code, and so to the last layer.

    Parameters
    ----------
    run : Run
        The run that is to begin. It gets an event for each layer, the seconds spent, and on an interrupt its stop reason.
    rows, held_out : Selection
        As for the run, of one resident table.
    objective : Objective
        The loss of the model.
    epochs : int
        For each layer at most.
    """
    layers = layer_modules(run.module, rows.schema)
    table: Resident = rows.table
    coded: Table | None = None
    for i, layer in enumerate(layers):
        settings = run.settings
        left = None if settings.max_time is None else settings.max_time - run.seconds
        if left is not None and left <= 0:
            run.history.events.append(f"max_time was spent before layer {i + 1} of {len(layers)} was pre-trained")
            return
        if coded is not None and run.module.corruption is not None:
            spread = coded.x[rows.index].var(dim=0, correction=0).mean().sqrt()
            layer.corruption = run.module.corruption.scaled(float(spread))
        history = train(
            layer,
            Selection(table, rows.index),
            Selection(table, held_out.index),
            objective if layer is layers[-1] else elbo,
            dataclasses.replace(
                settings, max_epochs=epochs, patience_from=0.0, max_time=left, checkpoint=None, fingerprint={}
            ),
        )
        if history.stop_reason == "interrupted":
            run.history.stop_reason = history.stop_reason
            return
        if not len(history):
            run.history.events += history.events  # the time was over before a step had a finite loss
            return
        losses = history["val_loss" if len(held_out) else "loss"]
        event = (
            f"layer {i + 1} of {len(layers)} pre-trained for {len(history)} epochs: "
            f"loss {losses[0]:.4g} -> {losses[max(history.best_epoch, 1) - 1]:.4g} nats per row"
        )
        run.history.events += [*history.events, event]
        run.seconds += history["seconds"][-1]
        Progress(epochs, settings.verbose).say(event)
        table = coded = _encoded(layer, table, rows.index.device)


@torch.no_grad()
def _encoded(layer: AutoencoderModule, table: Resident, device: torch.device) -> Table:
    """Return the codes of all rows, undamaged."""
    layer.eval()
    codes, contexts = [], []
    size = evaluated_rows(table.schema.size)
    for start in range(0, len(table), size):
        batch = table.take(torch.arange(start, min(start + size, len(table)), device=device))
        codes.append(layer.encode(batch.x, batch.context).z)
        contexts.append(batch.context)
    x, context = torch.cat(codes), None if contexts[0] is None else torch.cat([c for c in contexts if c is not None])
    return Table(dataclasses.replace(table.schema, shape=tuple(x.shape[1:]), columns=()), x, None, context)
