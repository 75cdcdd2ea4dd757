"""What a run survives: kills at any moment, a full disk, the end of its time, an interrupt in the middle of an epoch."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from diabolo import VAE, Autoencoder, DenoisingAutoencoder, load
from diabolo.checks import ParameterError
from diabolo.training import checkpoint, device, loop
from diabolo.training.device import resolve_precision
from diabolo.training.ranks import Ranks
from processes import IRIS, QUICK

STEPS = 5  # of an epoch of 135 rows in batches of 33


def weights(model):
    return {k: v.clone() for k, v in model.module_.state_dict().items()}


def same(a, b):
    return all(torch.equal(v, b[k]) for k, v in a.items())


def at_step(monkeypatch, step, act):
    """Call ``act`` in the middle of the given step, counted from 1 over the whole run; the step after it is the last."""
    average, count = Ranks.average, [0]

    def counted(self, parameters, stop):
        count[0] += 1
        if count[0] == step:
            act()
        return average(self, parameters, stop)

    monkeypatch.setattr(Ranks, "average", counted)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


# kills ----------------------------------------------------------------------------------------------------------------------


def test_a_run_killed_at_any_step_and_in_any_write_resumes_bit_for_bit(tmp_path):
    """Five kills at random steps, three within a write: half a file, a file not yet flushed, one not yet renamed."""
    script = Path(__file__).with_name("processes.py")
    done = subprocess.run([sys.executable, script, "kills", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    codes, left = json.loads((tmp_path / "codes.json").read_text())
    assert codes == [-signal.SIGKILL] * 8 + [0]
    assert left == ["checkpoint.safetensors"]  # what the kills left was cleared away
    with np.load(tmp_path / "killed.npz") as killed, np.load(tmp_path / "whole.npz") as whole:
        assert all(np.array_equal(killed[k], v) for k, v in whole.items())
    a, b = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("killed", "whole"))
    for rows in (a["rows"], b["rows"]):
        for row in rows:
            del row["seconds"]
    assert a == b


# a disk that fails ----------------------------------------------------------------------------------------------------------


def fail_in(monkeypatch, epochs, error):
    """Let writes of the checkpoint fail in some epochs."""
    write = checkpoint.write_checkpoint

    def failing(folder, tensors, meta):
        if meta["epoch"] in epochs:
            raise error
        write(folder, tensors, meta)

    monkeypatch.setattr(checkpoint, "write_checkpoint", failing)


def test_a_failing_checkpoint_is_told_and_does_not_end_training(tmp_path, monkeypatch, capfd):
    whole = Autoencoder(2, **QUICK | {"max_epochs": 6}).fit(IRIS)
    fail_in(monkeypatch, (3, 4), OSError(errno.ENOSPC, "No space left on device"))
    with pytest.warns(
        RuntimeWarning, match=r"epoch 3: the checkpoint could not be written \(.*No space left.*of epoch 2"
    ):
        model = Autoencoder(2, checkpoint=tmp_path, verbose=1, **QUICK | {"max_epochs": 6}).fit(IRIS)
    assert same(weights(model), weights(whole))
    assert len(model.history_.events) == 2
    assert model.history_.events[0].endswith("Training goes on, and each epoch tries again")
    assert model.history_.events[1] == "epoch 5: the checkpoint is written again"
    assert "epoch 3: the checkpoint could not be written" in capfd.readouterr().err
    _, meta = checkpoint.read_checkpoint(tmp_path)
    assert meta["epoch"] == 6


def test_after_a_failing_checkpoint_the_last_good_one_goes_on_bit_for_bit(tmp_path, monkeypatch):
    whole = VAE(2, **QUICK | {"max_epochs": 6}).fit(IRIS)
    with monkeypatch.context() as patch:
        fail_in(patch, range(3, 99), PermissionError(errno.EACCES, "Permission denied"))
        with pytest.warns(RuntimeWarning, match="Permission denied"):
            VAE(2, checkpoint=tmp_path, **QUICK | {"max_epochs": 6}).fit(IRIS)
    _, meta = checkpoint.read_checkpoint(tmp_path)
    assert meta["epoch"] == 2
    assert same(weights(VAE(2, checkpoint=tmp_path, **QUICK | {"max_epochs": 6}).fit(IRIS)), weights(whole))


def test_a_folder_that_is_removed_is_made_again(tmp_path):
    folder = tmp_path / "run"

    def remove(run):
        if run.epoch == 2:
            (folder / checkpoint.FILE_NAME).unlink()
            folder.rmdir()

    model = Autoencoder(2, checkpoint=folder, callbacks=(remove,), **QUICK).fit(IRIS)
    assert model.history_.events == []
    assert checkpoint.read_checkpoint(folder)[1]["epoch"] == 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    try:

        def fill(run):
            if run.epoch == 2:
                with pytest.raises(OSError, match="No space left"):
                    (disk / "filler").write_bytes(bytes(2**20))

        def model(**more):
            return Autoencoder(2, checkpoint=disk / "run", **QUICK | {"max_epochs": 4}, **more)

        with pytest.warns(RuntimeWarning, match=r"No space left on device.*the last good one is of epoch 1"):
            model(callbacks=(fill,)).fit(IRIS)
        assert [p.name for p in (disk / "run").iterdir()] == [checkpoint.FILE_NAME]  # and nothing half-written
        assert checkpoint.read_checkpoint(disk / "run")[1]["epoch"] == 1
        (disk / "filler").unlink()
        whole = Autoencoder(2, **QUICK | {"max_epochs": 4}).fit(IRIS)
        assert same(weights(model().fit(IRIS)), weights(whole))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_learned(tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(loop, "_run_epoch", never)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot create the folder"):
        Autoencoder(2, checkpoint=tmp_path / "file" / "run", **QUICK).fit(IRIS)


# the end of an epoch before its end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation_fraction", [0.1, 0])
def test_an_interrupt_in_the_middle_of_an_epoch_keeps_what_was_learned(monkeypatch, validation_fraction):
    settings = QUICK | {"validation_fraction": validation_fraction, "network": "mlp", "max_epochs": 8}
    at_step(monkeypatch, 3 * STEPS + 2, interrupt)
    model = Autoencoder(2, **settings).fit(IRIS)
    history = model.history_
    assert history.stop_reason == "interrupted"
    assert len(history) == 4
    assert history.events == [f"epoch 4: ended after 3 of {STEPS} steps, and was judged like a whole one"]
    name = "val_loss" if validation_fraction else "loss"
    assert history[name][-1] < history[name][0]
    assert history.best_epoch == 4  # a plain network still gains from every step here
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_in_the_first_epoch_leaves_a_model(monkeypatch):
    at_step(monkeypatch, 2, interrupt)
    model = Autoencoder(2, **QUICK).fit(IRIS)
    assert (model.history_.stop_reason, len(model.history_)) == ("interrupted", 1)
    assert np.isfinite(model.score(IRIS))


def test_a_second_interrupt_does_not_wait_for_the_step(monkeypatch):
    def twice():
        interrupt()
        interrupt()

    at_step(monkeypatch, 3 * STEPS + 2, twice)
    model = Autoencoder(2, **QUICK | {"validation_fraction": 0, "max_epochs": 8}).fit(IRIS)
    assert (model.history_.stop_reason, len(model.history_)) == ("interrupted", 3)
    whole = Autoencoder(2, **QUICK | {"validation_fraction": 0, "max_epochs": 8}, callbacks=(lambda r: r.epoch == 3,))
    assert same(weights(model), weights(whole.fit(IRIS)))  # the last whole epoch


def test_a_handler_of_the_program_and_other_threads_are_left_alone(monkeypatch):
    seen = []
    at_step(monkeypatch, 2, interrupt)
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        model = Autoencoder(2, **QUICK).fit(IRIS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]
    assert model.history_.stop_reason == "reached max_epochs=3"
    thread = threading.Thread(target=lambda: seen.append(Autoencoder(2, **QUICK).fit(IRIS)))
    thread.start()
    thread.join()
    assert same(weights(seen[1]), weights(model))


@pytest.mark.parametrize("ending", ["time", "interrupt"])
@pytest.mark.parametrize("step", [2, 2 * STEPS + 3, 3 * STEPS])
def test_a_run_that_ended_within_an_epoch_goes_on_bit_for_bit(tmp_path, monkeypatch, ending, step):
    settings = QUICK | {"max_epochs": 5, "dropout": 0.1}
    whole = DenoisingAutoencoder(2, **settings).fit(IRIS)
    with monkeypatch.context() as patch:
        if ending == "time":
            clock = [0.0]
            patch.setattr("time.monotonic", lambda: clock[0])
            at_step(patch, step, lambda: clock.__setitem__(0, 100.0))
        else:
            at_step(patch, step, interrupt)
        limit = {"max_time": 50} if ending == "time" else {}
        first = DenoisingAutoencoder(2, checkpoint=tmp_path, **settings, **limit).fit(IRIS)
    assert first.history_.stop_reason == ("reached max_time=50 s" if ending == "time" else "interrupted")
    assert len(first.history_) == -(-step // STEPS)
    resumed = DenoisingAutoencoder(2, checkpoint=tmp_path, **settings).fit(IRIS)
    assert same(weights(resumed), weights(whole))
    assert resumed.history_["val_loss"] == whole.history_["val_loss"]


def test_max_time_ends_a_long_epoch():
    rows = np.random.default_rng(0).normal(size=(200_000, 4)).astype("float32")
    model = Autoencoder(2, batch_size=4, hidden=(8,), max_epochs=2, max_time=0.3, random_state=0).fit(rows)
    assert model.history_.stop_reason == "reached max_time=0.3 s"
    assert "of 45000 steps" in model.history_.events[0]
    assert np.isfinite(model.score(rows[:100]))


def test_an_unfinished_epoch_that_diverged_is_thrown_away(monkeypatch):
    at_step(monkeypatch, 3 * STEPS + 2, interrupt)
    found = loop.Means.found

    def broken(means, ranks):
        return found(means, ranks) | ({"loss": float("nan")} if len(means.rows) == 3 else {})  # the steps of that epoch

    monkeypatch.setattr(loop.Means, "found", broken)
    model = Autoencoder(2, **QUICK | {"max_epochs": 8, "validation_fraction": 0}).fit(IRIS)
    assert (model.history_.stop_reason, len(model.history_)) == ("interrupted", 3)
    assert "epoch 4: the loss was not finite" in model.history_.events[0]
    assert np.isfinite(model.score(IRIS))


# the same again -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_and_threads_give_the_same_bits(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # wide enough that products and sums are shared out between threads
        rows = np.random.default_rng(0).normal(size=(1500, 40)).astype("float32")
        a, b = (
            VAE(4, hidden=(512,), dropout=0.1, batch_size=500, max_epochs=2, random_state=0).fit(rows) for _ in range(2)
        )
    finally:
        torch.set_num_threads(before)
    assert same(weights(a), weights(b))
    assert a.history_["loss"] == b.history_["loss"]


# precision and devices ------------------------------------------------------------------------------------------------------


def test_float16_is_refused_where_the_device_cannot():
    with pytest.raises(ValueError, match=r"precision='float16' needs a CUDA device, and device is 'cpu'; use"):
        Autoencoder(2, precision="float16", device="cpu", **QUICK).fit(IRIS)
    with pytest.raises(ParameterError, match="precision"):
        Autoencoder(2, precision="half", **QUICK).fit(IRIS)
    assert resolve_precision("float16", torch.device("cuda", 1)) == "float16"
    assert resolve_precision("auto", torch.device("cuda")) == "float32"


def test_float16_scales_the_loss_and_resumes_bit_for_bit(tmp_path, monkeypatch):
    """On the CPU, which has the products, if slow ones: the same steps as on a GPU."""
    monkeypatch.setattr(device, "FLOAT16_DEVICES", ("cpu",))
    scales = []

    def crash(run):
        scales.append(run.scaler.get_scale())
        if run.epoch == 2:
            raise ZeroDivisionError

    def model(**more):
        return Autoencoder(2, network="mlp", precision="float16", **QUICK | {"max_epochs": 6}, **more)

    whole = model().fit(IRIS)
    with pytest.raises(ZeroDivisionError):
        model(checkpoint=tmp_path, callbacks=(crash,)).fit(IRIS)
    assert scales[0] > 1
    assert same(weights(model(checkpoint=tmp_path).fit(IRIS)), weights(whole))
    exact = Autoencoder(2, network="mlp", **QUICK | {"max_epochs": 6}).fit(IRIS)
    # float16 has 11 bits: products are off by up to 5e-4, which training carries on for 30 steps
    assert whole.history_["val_loss"][-1] == pytest.approx(exact.history_["val_loss"][-1], rel=0.02)


def test_steps_whose_scaled_gradient_overflows_are_left_out(monkeypatch):
    monkeypatch.setattr(device, "FLOAT16_DEVICES", ("cpu",))
    seen = []

    def watch(run):
        seen.append(run.scaler.get_scale())

    model = Autoencoder(
        2, network="mlp", precision="float16", scale=None, callbacks=(watch,), **QUICK | {"batch_size": 2}
    ).fit(IRIS * 20)  # squared errors of thousands: 65536 times their gradient is beyond 65504
    assert seen[0] < 2**16
    assert np.isfinite(model.score(IRIS * 20))
    assert all(np.isfinite(model.history_["loss"]))


class Elsewhere(torch.Tensor):
    """Stands for a tensor on a GPU: it has to be brought to the CPU before anything is done with it."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.cpu, torch.Tensor.to):
            assert function is torch.Tensor.cpu or args[1] == "cpu"
            return args[0].as_subclass(torch.Tensor)
        if function is torch.Tensor.detach:
            return super().__torch_function__(function, types, args, kwargs or {})
        raise AssertionError(f"{function} of a tensor that is not on the CPU")


def test_what_is_saved_lies_on_the_cpu(tmp_path, monkeypatch):
    model = Autoencoder(2, **QUICK).fit(IRIS)
    far = {k: v.as_subclass(Elsewhere) for k, v in weights(model).items()}
    with pytest.raises(AssertionError, match="not on the CPU"):
        next(iter(far.values())).numpy()
    with monkeypatch.context() as patch:
        patch.setattr(type(model.module_), "state_dict", lambda self: far)
        model.save(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).transform(IRIS), model.transform(IRIS))
    checkpoint.write_checkpoint(tmp_path, far, {})
    found, _ = checkpoint.read_checkpoint(tmp_path)
    assert same(found, weights(model))
