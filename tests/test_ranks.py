"""Several processes that train one model, on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diabolo import Autoencoder, load
from diabolo.launch import launched
from diabolo.records import Schema, Table
from diabolo.seeding import generator_state, seeded
from diabolo.training.device import resolve_device
from diabolo.training.ranks import Ranks, Several, join
from diabolo.training.rows import Selection
from processes import DIGITS

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What ``several`` of processes.py left: weights and histories by name, exit codes, and what was said."""
    folder = tmp_path_factory.mktemp("several")
    script = Path(__file__).with_name("processes.py")
    done = subprocess.run(
        [sys.executable, script, "several", folder], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "codes.json").read_text()), done.stderr


def weights(runs, name):
    with np.load(runs[0] / f"{name}.npz") as file:
        return dict(file)


def history(runs, name):
    return json.loads((runs[0] / f"{name}.json").read_text())


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(v, b[k]) for k, v in a.items())


@pytest.mark.parametrize("name", ["plain", "three", "scale", "sparse", "few"])
def test_several_processes_learn_what_one_learns_with_the_same_global_batch(runs, name):
    """Also with uneven shares, clipping, a penalty, missing cells, a learned scale, counts of activity, idle processes."""
    _, codes, said = runs
    assert set(codes[name]) == {0}, said
    one, first = weights(runs, f"{name}-one"), weights(runs, f"{name}-0")
    for rank in range(1, len(codes[name])):
        assert same(weights(runs, f"{name}-{rank}"), first)
    for key, value in one.items():
        # sums over rows are taken in another order, in float32 (6e-8); measured differences are below 1e-6,
        # and 1e-4 leaves room for what Adam makes of the rounding of small gradients on another processor
        np.testing.assert_allclose(first[key], value, rtol=0, atol=1e-4 * max(1.0, np.abs(value).max()), err_msg=key)
    a, b = history(runs, f"{name}-0"), history(runs, f"{name}-one")
    assert [row.keys() for row in a["rows"]] == [row.keys() for row in b["rows"]]
    for row, other in zip(a["rows"], b["rows"], strict=True):
        for key in row.keys() - {"seconds"}:
            assert row[key] == pytest.approx(other[key], rel=1e-4), key
    assert (a["stop_reason"], a["best_epoch"]) == (b["stop_reason"], b["best_epoch"])


@pytest.mark.parametrize("name", ["vae", "quantised", "unseeded"])
def test_with_noise_processes_hold_the_same_finite_weights(runs, name):
    assert runs[1][name] == [0, 0], runs[2]
    first = weights(runs, f"{name}-0")
    assert same(first, weights(runs, f"{name}-1"))
    assert all(np.isfinite(v).all() for v in first.values())


def test_the_same_seed_gives_the_same_run_again(runs):
    assert same(weights(runs, "vae-0"), weights(runs, "again-0"))
    assert history(runs, "vae-0")["rows"][-1]["loss"] == history(runs, "again-0")["rows"][-1]["loss"]


def test_a_killed_process_ends_the_run_with_a_message_and_a_checkpoint(runs):
    folder, codes, said = runs
    assert codes["killed"] == [1, -9]
    assert "PeerError: process 0 of 2 lost another process of the run" in said
    assert f"{folder / 'run'} holds the run up to epoch 1: start all processes again" in said


def test_the_run_of_a_killed_process_goes_on_bit_for_bit(runs):
    assert runs[1]["resumed"] == [0, 0], runs[2]
    whole = weights(runs, "whole-0")
    assert same(weights(runs, "resumed-0"), whole)
    assert same(weights(runs, "resumed-1"), whole)


def test_an_interrupt_of_one_and_the_time_limit_end_all_at_the_same_step(runs):
    for name, reason in (("interrupted", "interrupted"), ("time", "reached max_time=0.3 s")):
        assert runs[1][name] == [0, 0], runs[2]
        histories = [history(runs, f"{name}-{rank}") for rank in (0, 1)]
        assert [h["stop_reason"] for h in histories] == [reason, reason]
        assert len(histories[0]["rows"]) == len(histories[1]["rows"]) > 0
        assert same(weights(runs, f"{name}-0"), weights(runs, f"{name}-1"))


def test_processes_with_other_rows_are_refused(runs):
    assert runs[1]["rows"] == [1, 1]
    assert runs[2].count("the processes of this run do not agree on data. Each must call fit with the same") == 2


def test_a_process_that_waits_in_vain_says_for_what(runs):
    assert runs[1]["alone"][0] == 1
    assert "could not meet the others at 127.0.0.1:" in runs[2]
    assert "Every process must call fit; to train alone, unset WORLD_SIZE." in runs[2]


def table(n):
    return Table(Schema("vector", (1,), n), torch.arange(n, dtype=torch.float32).view(n, 1))


@pytest.mark.parametrize(
    ("n", "size", "world"), [(64, 16, 2), (67, 16, 3), (9, 2, 3), (33, 32, 2), (5, 4, 4), (2, 8, 2)]
)
def test_shares_together_are_the_batches_of_one_process(n, size, world):
    with seeded(0):
        whole = [b.x.flatten() for b in Selection(table(n), torch.arange(n)).shuffled(size)]
        after = generator_state(CPU)["cpu"]
    parts, noise, shares = [], [], []
    for rank in range(world):
        with seeded(0):
            several = Several(rank, world, CPU)
            parts.append([]), noise.append([]), shares.append([])
            for batch in several.shares(Selection(table(n), torch.arange(n))).shuffled(size):
                assert len(batch.x) >= 2  # for batch normalisation
                counted = several.rows(batch)
                parts[-1].append(batch.x.flatten()[:counted])
                shares[-1].append(several.share)
                noise[-1].append(float(torch.rand(())))  # what a step draws
            assert torch.equal(
                generator_state(CPU)["cpu"], after
            )  # the order of the next epoch is that of one process, too
    for i, batch in enumerate(whole):
        assert torch.equal(torch.cat([p[i] for p in parts]), batch)
        assert sum(s[i] for s in shares) == pytest.approx(1)
        assert [s[i] for s in shares] == pytest.approx([len(p[i]) / len(batch) for p in parts])
    drawn = [d for of_rank in noise for d in of_rank]
    assert len(set(drawn)) == len(drawn)


def test_one_process_joins_nothing(monkeypatch):
    assert launched() == (0, 1)
    assert type(join(CPU)) is Ranks
    Autoencoder(2, max_epochs=1, hidden=(8,), random_state=0).fit(DIGITS[:40])
    assert not torch.distributed.is_initialized()
    monkeypatch.setenv("WORLD_SIZE", "2")  # some schedulers set it alone
    assert launched() == (0, 1)


def launch(monkeypatch, rank, world):
    values = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


def test_each_process_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    launch(monkeypatch, 1, 3)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 1)
    assert resolve_device("cuda:0") == torch.device("cuda", 0)  # asked for
    launch(monkeypatch, 2, 3)
    with pytest.raises(
        ValueError, match=r"process 2 of this machine has no GPU of its own: there are 2\. Start as many"
    ):
        resolve_device("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == CPU
    with pytest.raises(ValueError, match="device='mps' serves one process"):
        resolve_device("mps")


def test_torchrun_and_the_command_line(tmp_path):
    """Only the first process speaks and writes."""
    np.save(tmp_path / "rows.npy", DIGITS)
    fit = [
        "fit",
        "rows.npy",
        "-o",
        "model",
        "--max-epochs",
        "2",
        "--hidden",
        "16",
        "--random-state",
        "0",
        "--verbose",
        "2",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "diabolo", *fit], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("epoch 2/2") == 1
    assert done.stderr.count("saved Autoencoder to model") == 1
    assert load(tmp_path / "model").transform(DIGITS).shape == (331, 16)


def test_other_commands_run_in_one_process(monkeypatch, capsys):
    from diabolo.cli import main

    launch(monkeypatch, 0, 2)
    assert main(["models"]) == 2
    assert "only `diabolo fit` runs in several processes" in capsys.readouterr().err
