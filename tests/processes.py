"""Runs in processes of their own that may be killed; started by tests as a script, ``python processes.py SCENARIO FOLDER``.

Children are forked from one process that has loaded the library, because loading takes longer than training here.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits, load_iris

from diabolo import VAE, VQVAE, Autoencoder, TopKAutoencoder, files
from diabolo.training import ranks
from diabolo.training.ranks import Ranks, Several

IRIS = load_iris().data
DIGITS = load_digits().data[:331].astype("float32")  # leaves uneven batches
HOLES = np.where(np.random.default_rng(0).random(DIGITS.shape) < 0.2, np.nan, DIGITS)
QUICK = {"hidden": (16,), "batch_size": 33, "max_epochs": 3, "patience": None, "random_state": 0}


def fork(function, environment=None):
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(environment or {})
    try:
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)  # nothing of the parent's clean-up


def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def together(function, world=2):
    """Run ``function(rank)`` in ``world`` processes that find each other; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    pids = [fork(lambda r=r: function(r), common | {"RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(world)]
    return [wait(pid) for pid in pids]


def keep(model, path):
    """Write weights and history."""
    np.savez(path.with_suffix(".npz"), **{k: v.numpy() for k, v in model.module_.state_dict().items()})
    path.with_suffix(".json").write_text(json.dumps(model.history_.to_json()))


def kill_at(calls, owner, name):
    """Let the process kill itself when the method is called for the given time."""
    method, count = getattr(owner, name), [0]

    def counted(*args, **kwargs):
        count[0] += 1
        if count[0] == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args, **kwargs)

    setattr(owner, name, counted)


class HalfWritten:
    """A file that the process dies of when it has written half."""

    def __init__(self, handle, mode):
        self.file = open(handle, mode)  # noqa: SIM115 - closed below

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


# scenarios ------------------------------------------------------------------------------------------------------------------


def kills(folder):
    """Kill a run at random steps, and three times while it writes its checkpoint; let it end; train one that is not killed."""

    def model(**more):
        return VAE(2, dropout=0.1, **QUICK | {"batch_size": 32, "max_epochs": 12}, **more)  # 5 steps an epoch

    def run(arm):
        arm()
        keep(model(checkpoint=folder / "run").fit(IRIS), folder / "killed")

    def half():
        files.os.fdopen = HalfWritten

    steps = np.random.default_rng(0).integers(2, 14, size=5)
    arms = [lambda k=k: kill_at(int(k), Ranks, "average") for k in steps]
    arms[1:1] = [half, lambda: kill_at(2, os, "fsync"), lambda: kill_at(3, Path, "replace")]
    codes = [wait(fork(lambda arm=arm: run(arm))) for arm in arms]
    codes.append(wait(fork(lambda: run(lambda: None))))
    left = [p.name for p in (folder / "run").iterdir()]
    (folder / "codes.json").write_text(json.dumps([codes, left]))
    keep(model().fit(IRIS), folder / "whole")


def several(folder):
    """Train in several processes: alike, killed, taken up, interrupted, out of time, with different rows."""
    codes = {}

    def fitted(name, make, rows, world=2):
        codes[name] = together(lambda r: keep(make().fit(rows), folder / f"{name}-{r}"), world)

    def both(name, make, rows, world=2):
        fitted(name, make, rows, world)
        keep(make().fit(rows), folder / f"{name}-one")

    plain = {"network": "mlp"} | QUICK
    last = plain | {"validation_fraction": 0}  # keeps the last weights
    both("plain", lambda: Autoencoder(4, **plain), DIGITS)
    both("three", lambda: Autoencoder(4, weight_l1=0.01, gradient_clip=1.0, **last), DIGITS, 3)
    both("scale", lambda: Autoencoder(4, likelihood="learned_gaussian", **last), HOLES)
    both("sparse", lambda: TopKAutoencoder(dead_after=100, **QUICK | {"validation_fraction": 0}), DIGITS)
    both("few", lambda: Autoencoder(2, **last | {"batch_size": 2}), DIGITS[:9], 3)
    fitted("vae", lambda: VAE(4, norm="batch", **QUICK), DIGITS)
    fitted("again", lambda: VAE(4, norm="batch", **QUICK), DIGITS)
    fitted("quantised", lambda: VQVAE(4, **QUICK), DIGITS)
    fitted("unseeded", lambda: VAE(4, **QUICK | {"random_state": None}), DIGITS)

    def dropped(**more):
        return VAE(4, dropout=0.1, **QUICK, **more)

    def run(rank):
        if rank == 1:
            kill_at(15, Several, "average")  # in the second of three epochs of ten steps
        dropped(checkpoint=folder / "run").fit(DIGITS)

    codes["killed"] = together(run)
    fitted("resumed", lambda: dropped(checkpoint=folder / "run"), DIGITS)
    fitted("whole", dropped, DIGITS)

    def interrupted(rank):
        if rank == 1:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        keep(Autoencoder(4, **QUICK | {"max_epochs": 10**6}).fit(DIGITS), folder / f"interrupted-{rank}")

    codes["interrupted"] = together(interrupted)
    fitted("time", lambda: Autoencoder(4, max_time=0.3, **QUICK | {"max_epochs": 10**6}), DIGITS)
    codes["rows"] = together(lambda r: Autoencoder(4, **QUICK).fit(DIGITS[r:]))
    ranks.TIMEOUT = ranks.timedelta(seconds=1)
    codes["alone"] = together(lambda r: Autoencoder(4, **QUICK).fit(DIGITS) if r == 0 else None)
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    torch.set_num_threads(1)
    VAE(2, **QUICK).fit(IRIS)  # what is loaded on first use is loaded once
    {"kills": kills, "several": several}[sys.argv[1]](Path(sys.argv[2]))
