"""The training loop: early stopping, resume, recovery, interrupts, callbacks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from diabolo import VAE, Autoencoder, AutoencoderModule, Callback, CustomAutoencoder, DenoisingAutoencoder
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import Gaussian
from diabolo.training.loop import DivergenceError

X = load_iris().data
QUICK = {"hidden": (16,), "max_epochs": 8, "patience": None, "random_state": 0}


class Stop(Exception):
    """Stands for a crash."""


def crash_at(epoch):
    def callback(run):
        if run.epoch == epoch:
            raise Stop

    return callback


def weights(model):
    return {k: v.clone() for k, v in model.module_.state_dict().items()}


@pytest.mark.parametrize("cls", [Autoencoder, VAE, DenoisingAutoencoder])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(cls, tmp_path):
    whole = cls(2, dropout=0.1, **QUICK).fit(X)
    folder = tmp_path / "run"
    for epoch in (2, 5):
        with pytest.raises(Stop):
            cls(2, dropout=0.1, checkpoint=folder, callbacks=(crash_at(epoch),), **QUICK).fit(X)
    resumed = cls(2, dropout=0.1, checkpoint=folder, **QUICK).fit(X)
    assert all(torch.equal(v, weights(resumed)[k]) for k, v in weights(whole).items())
    assert resumed.history_["loss"] == whole.history_["loss"]
    assert resumed.history_["val_loss"] == whole.history_["val_loss"]
    again = cls(2, dropout=0.1, checkpoint=folder, **QUICK).fit(X)  # finished: nothing is left to do
    assert all(torch.equal(v, weights(again)[k]) for k, v in weights(whole).items())


def test_resume_after_a_real_kill(tmp_path):
    folder = tmp_path / "run"
    code = (
        "from sklearn.datasets import load_iris; from diabolo import Autoencoder; import time; "
        "Autoencoder(2, hidden=(16,), max_epochs=8, patience=None, random_state=0, "
        f"checkpoint={str(folder)!r}, callbacks=(lambda run: time.sleep(0.2),)).fit(load_iris().data)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint.safetensors").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = Autoencoder(2, checkpoint=folder, **QUICK).fit(X)
    whole = Autoencoder(2, **QUICK).fit(X)
    assert all(torch.equal(v, weights(resumed)[k]) for k, v in weights(whole).items())


def test_a_run_without_a_seed_resumes_with_its_own(tmp_path):
    parameters = QUICK | {"random_state": None}
    with pytest.raises(Stop):
        Autoencoder(2, checkpoint=tmp_path, callbacks=(crash_at(3),), **parameters).fit(X)
    model = Autoencoder(2, checkpoint=tmp_path, **parameters).fit(X)
    assert len(model.history_) == 8


def test_the_folder_of_another_run_is_refused(tmp_path):
    Autoencoder(2, checkpoint=tmp_path, **QUICK).fit(X)
    with pytest.raises(ValueError, match=r"holds another run: latent_dim was 2 and is 3.*Choose another folder"):
        Autoencoder(3, checkpoint=tmp_path, **QUICK).fit(X)
    with pytest.raises(ValueError, match="data was"):
        Autoencoder(2, checkpoint=tmp_path, **QUICK).fit(X[:100])


def test_a_damaged_checkpoint_is_refused(tmp_path):
    Autoencoder(2, checkpoint=tmp_path, **QUICK).fit(X)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"damaged .* delete it to start anew"):
        Autoencoder(2, checkpoint=tmp_path, **QUICK).fit(X)


def test_the_best_weights_are_restored():
    model = Autoencoder(2, hidden=(64,), max_epochs=40, patience=None, learning_rate=0.05, random_state=0).fit(X)
    losses = model.history_["val_loss"]
    assert model.history_.stop_reason == "reached max_epochs=40"
    best = model.history_.best_epoch
    assert best == 1 + int(np.argmin(losses)) or best == 0
    if best:
        short = [w for w in model.history_.rows if w["epoch"] == best]
        assert short[0]["val_loss"] == min(losses)


def test_early_stopping_says_why():
    rng = np.random.default_rng(0)
    model = Autoencoder(5, max_epochs=300, patience=4, random_state=0).fit(rng.normal(size=(60, 10)))
    assert model.history_.stop_reason == "no better validation loss for 4 epochs"
    assert model.n_iter_ == len(model.history_) < 300


def test_without_validation_the_last_weights_are_kept():
    model = Autoencoder(2, validation_fraction=0, **QUICK).fit(X)
    assert "val_loss" not in set(model.history_.keys())
    assert model.history_.best_epoch == 8
    assert model.history_["mse"][-1] == pytest.approx(np.mean((model.reconstruct(X) - X) ** 2), rel=1e-4)  # float32


def test_the_history_shows_mse_in_the_units_of_the_data():
    a = Autoencoder(2, **QUICK).fit(X)
    b = Autoencoder(2, **QUICK).fit(X * 10)
    # float32 rounding differs between the units, and training amplifies it a little
    np.testing.assert_allclose(np.array(a.history_["val_mse"]) * 100, b.history_["val_mse"], rtol=0.05)
    with pytest.raises(KeyError, match="the history has no 'accuracy'; it has epoch, loss"):
        a.history_["accuracy"]


def test_max_time_stops_cleanly():
    model = Autoencoder(2, hidden=(16,), max_epochs=100_000, patience=None, max_time=0.3, random_state=0).fit(X)
    assert model.history_.stop_reason == "reached max_time=0.3 s"
    assert np.isfinite(model.score(X))


def test_an_interrupt_keeps_the_best_model_so_far():
    def interrupt(run):
        if run.epoch == 4:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    model = Autoencoder(2, callbacks=(interrupt,), **QUICK).fit(X)
    assert model.history_.stop_reason == "interrupted"
    assert len(model.history_) == 4
    assert model.score(X) >= Autoencoder(2, **QUICK | {"max_epochs": 1}).fit(X).score(X) - 50
    assert model.transform(X).shape == (150, 2)


class Broken(nn.Module):
    """A layer whose output turns infinite while ``broken``."""

    def __init__(self, d, times):
        super().__init__()
        self.linear = nn.Linear(d, d)
        self.left = times

    def forward(self, x):
        if self.training and self.left > 0:
            self.left -= 1
            return self.linear(x) * float("inf")
        return self.linear(x)


class Picky(Gaussian):
    """A likelihood that cannot explain the second column."""

    def log_prob(self, raw, x):
        elements = super().log_prob(raw, x)
        return elements * torch.tensor([1.0, float("inf"), 1.0, 1.0])


def build(times, likelihood=None):
    def make(schema):
        return AutoencoderModule(
            schema,
            encoder=nn.Sequential(Broken(schema.size, times), nn.Linear(schema.size, 2)),
            decoder=nn.Linear(2, schema.size),
            bottleneck=Identity(2),
            likelihood=likelihood or Gaussian(),
        )

    return make


def test_a_non_finite_loss_goes_back_at_a_lower_rate():
    model = CustomAutoencoder(build=build(1), max_epochs=5, random_state=0).fit(X)
    assert len(model.history_) == 5
    assert "went back to the last good weights at 0.25 times the learning rate" in model.history_.events[0]
    assert np.isfinite(model.score(X))


def test_repeated_failure_names_the_cause():
    with pytest.raises(DivergenceError, match=r"not finite in epoch 1.*The output of layer 'encoder\.0' is not finite"):
        CustomAutoencoder(build=build(10**9), max_epochs=5, random_state=0).fit(X)
    with pytest.raises(DivergenceError, match="log-likelihood of column '1' is not finite"):
        CustomAutoencoder(build=build(0, likelihood=Picky()), max_epochs=5, random_state=0).fit(X)
    with pytest.raises(DivergenceError, match="lower learning_rate, or set gradient_clip=1"):
        Autoencoder(2, learning_rate=1e30, **QUICK).fit(X)
    huge = X.copy()
    huge[:, 2] = np.where(np.arange(150) == 7, 1e25, huge[:, 2])
    with pytest.raises(DivergenceError, match=r"column '2'.*scale='quantile'"):
        Autoencoder(2, scale=None, **QUICK).fit(huge)


def test_callbacks_see_every_stage_and_can_stop():
    seen = []

    class Watch(Callback):
        def on_fit_begin(self, run):
            seen.append("begin")

        def on_epoch_end(self, run):
            seen.append(run.history.rows[-1]["epoch"])
            return run.epoch == 3

        def on_fit_end(self, run):
            seen.append("end")

    model = Autoencoder(2, callbacks=(Watch(),), **QUICK).fit(X)
    assert seen == ["begin", 1, 2, 3, "end"]
    assert model.history_.stop_reason == "stopped by a callback"


def test_progress_lines_and_silence(capfd):
    Autoencoder(2, verbose=0, **QUICK).fit(X)
    assert capfd.readouterr() == ("", "")
    Autoencoder(2, verbose=1, **QUICK).fit(X)
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 1/8" in err
    assert "epoch 8/8" in err
    assert "stopped: reached max_epochs=8" in err


def test_kl_warmup_and_free_bits_show_in_training():
    vae = VAE(2, kl_warmup=0.5, **QUICK).fit(X)
    first = vae.history_.rows[0]
    assert first["loss"] < first["reconstruction"] + first["kl"]  # the weight of the KL term starts at 0
    last = vae.history_.rows[-1]
    assert last["loss"] == pytest.approx(last["reconstruction"] + last["kl"], rel=1e-5)  # float32 sums
    free = VAE(2, free_bits=2.0, kl_warmup=0.0, **QUICK).fit(X)
    assert min(free.history_["kl"]) >= 2 * 2.0 - 1e-4  # two units, two nats each


def test_an_l1_penalty_on_the_weights_is_part_of_what_epochs_are_judged_by():
    """Judged by the reconstruction alone, the start at principal components would win and the penalty would change nothing."""

    def size(model):
        return sum(float(p.detach().abs().sum()) for p in model.module_.parameters() if p.dim() > 1)

    longer = QUICK | {"max_epochs": 20, "learning_rate": 1e-2}
    free = Autoencoder(2, **longer).fit(X)
    for weight in (0.1, 1.0):
        model = Autoencoder(2, weight_l1=weight, **longer).fit(X)
        assert model.history_.best_epoch > 0
        assert size(model) < 0.5 * size(free)
        last = model.history_.rows[-1]
        parts = last["val_reconstruction"] + last["val_weight_l1"]
        assert last["val_loss"] == pytest.approx(parts, rel=1e-5)  # float32
    vae = VAE(2, weight_l1=0.1, **QUICK).fit(X)
    assert vae.history_["val_weight_l1"][-1] > 0


def test_batch_norm_meets_no_batch_of_one():
    for n in (1, 2, 9, 33, 65):
        Autoencoder(2, norm="batch", batch_size=32, hidden=(8,), max_epochs=2, random_state=0).fit(
            np.random.default_rng(0).normal(size=(n, 3))
        )


def test_history_round_trips_through_json():
    history = Autoencoder(2, **QUICK).fit(X).history_
    assert type(history).from_json(json.loads(json.dumps(history.to_json()))) == history
