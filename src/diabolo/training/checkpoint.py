"""A checkpoint: one file with everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from diabolo.files import drop_unfinished, make_folder, write_atomic
from diabolo.notices import warn
from diabolo.records import History
from diabolo.seeding import generator_state, set_generator_state
from diabolo.training.progress import Progress
from diabolo.training.ranks import Ranks

if TYPE_CHECKING:
    from diabolo.training.loop import Run

__all__ = [
    "FILE_NAME",
    "check_folder",
    "read_checkpoint",
    "read_fingerprint",
    "resume_run",
    "save_run",
    "shared_checkpoint",
]
__all__ += ["write_checkpoint"]

FILE_NAME = "checkpoint.safetensors"


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write a checkpoint; a crash leaves the one before."""
    make_folder(folder)
    drop_unfinished(folder / FILE_NAME)  # kills leave them, and they are large
    owned = {k: v.detach().to("cpu").contiguous().clone() for k, v in tensors.items()}
    write_atomic(folder / FILE_NAME, save(owned, metadata={"diabolo": json.dumps(meta)}))


def read_checkpoint(folder: Path, *, without_tensors: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read a checkpoint, or return ``None`` where there is none; ``without_tensors`` leaves the tensors on the disk.

    Raises
    ------
    ValueError
        When the file is damaged or not ours.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            meta = (file.metadata() or {}).get("diabolo")
            tensors = {} if without_tensors else {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to start anew") from None
    if meta is None:
        raise ValueError(f"{path} was not written by Diabolo; choose another folder for checkpoint=")
    return tensors, json.loads(meta)


def check_folder(folder: Path) -> None:
    """Refuse a folder in which no checkpoint can be written."""
    probe = make_folder(folder) / f"{FILE_NAME}.probe"
    write_atomic(probe, b"")
    probe.unlink()


def shared_checkpoint(folder: Path, ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read a checkpoint in the first of several processes, for all: the others may be on machines that do not have the folder."""
    if ranks.world == 1:
        return read_checkpoint(folder)
    path = folder / FILE_NAME
    data = ranks.first(path.read_bytes() if ranks.is_first and path.exists() else b"")
    if not data:
        return None
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # the layout of safetensors
    return load(data), json.loads(header["__metadata__"]["diabolo"])


def read_fingerprint(folder: Path) -> dict[str, Any] | None:
    """Return the fingerprint of the run that the folder holds, or ``None`` where there is none."""
    found = read_checkpoint(folder, without_tensors=True)
    return None if found is None else dict(found[1]["fingerprint"])


def save_run(run: Run, progress: Progress) -> None:
    """Write the checkpoint; where that fails, say so and go on: the last good one stays, and what is learned is not lost."""
    folder, behind = run.settings.checkpoint, run.epoch - 1 - run.saved
    if folder is None:
        return
    if run.settings.ranks.is_first:
        tensors = {f"module.{k}": v for k, v in run.module.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in (run.best or {}).items()}
        tensors |= {f"optimizer.{k}": v for k, v in run.optimizer.tensors().items()}
        tensors |= {f"generator.{k}": v for k, v in generator_state(run.settings.device).items()}
        numbers = (
            "epoch",
            "steps",
            "best_value",
            "waited",
            "lr_scale",
            "retries",
            "seconds",
            "cooled_from",
            "cooled_until",
        )
        meta = {k: getattr(run, k) for k in numbers} | {"scaler": run.scaler.state_dict()}
        meta |= {"history": run.history.to_json(), "fingerprint": run.settings.fingerprint}
        try:
            write_checkpoint(folder, tensors, meta)
        except OSError as error:
            event = (
                f"epoch {run.epoch}: the checkpoint could not be written ({error}); the last good one is "
                f"{f'of epoch {run.saved}' if run.saved else 'not there yet'}. Training goes on, and each epoch tries again"
            )
            if not behind:
                warn(event, RuntimeWarning)
                run.history.events.append(event)
                progress.say(event)
            return
    if behind:
        run.history.events.append(f"epoch {run.epoch}: the checkpoint is written again")
    run.saved = run.epoch


def resume_run(run: Run) -> bool:
    """Take up the run that the checkpoint folder holds, if it holds one."""
    folder = run.settings.checkpoint
    found = None if folder is None else shared_checkpoint(folder, run.settings.ranks)
    if found is None:
        return False
    tensors, meta = found
    groups: dict[str, dict[str, Tensor]] = {"module": {}, "best": {}, "optimizer": {}, "generator": {}}
    for name, tensor in tensors.items():
        group, key = name.split(".", 1)
        groups[group][key] = tensor
    run.module.load_state_dict(groups["module"])
    run.optimizer.load(groups["optimizer"])
    set_generator_state(groups["generator"], run.settings.device)
    run.best = groups["best"] or None
    run.history = History.from_json(meta.pop("history"))
    meta.pop("fingerprint")
    run.scaler.load_state_dict(meta.pop("scaler"))
    for name, value in meta.items():
        setattr(run, name, value)
    run.saved = run.epoch
    return True
