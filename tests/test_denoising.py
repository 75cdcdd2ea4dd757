"""Damage and its course: variances and shares against expected ones, occlusion, what validation is judged by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris

from diabolo import DenoisingAutoencoder
from diabolo.checks import ParameterError
from diabolo.parts.corruptions import CORRUPTIONS, GaussianNoise, Masking, Occlusion
from diabolo.seeding import seeded

X = load_iris().data
DIGITS = load_digits().images[:80]
QUICK = {"hidden": (16,), "max_epochs": 6, "patience": None, "random_state": 0, "device": "cpu"}


def damage(corruption, x, progress=1.0, seed=0):
    with seeded(seed):
        return corruption(x, progress)


# schedules ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_decreasing_noise_falls_linearly_and_ends_at_its_end(progress):
    x = torch.zeros(300, 200)
    for end in (0.0, 0.2):
        level = 0.8 + (end - 0.8) * progress
        noise = damage(GaussianNoise(0.8, "decreasing", end), x, progress)
        # five standard errors of a standard deviation over 60,000 cells
        assert noise.std().item() == pytest.approx(level, rel=5 / (2 * x.numel()) ** 0.5, abs=1e-12)
        blanked = (damage(Masking(0.8, "decreasing", end), x + 1, progress) == 0).double().mean().item()
        assert blanked == pytest.approx(level, abs=5 * 0.5 / x.numel() ** 0.5 if level else 0)


def test_mixed_noise_has_a_level_for_each_row():
    x = torch.zeros(4000, 400)
    noise = damage(GaussianNoise(0.6, "mixed"), x)
    scales = noise.std(1)
    # the square of a level that is uniform on [0, 0.6] has the mean 0.6^2 / 3; five standard errors over 4000 rows
    assert noise.square().mean().item() == pytest.approx(0.12, abs=5 * 0.12 * 0.9 / 4000**0.5)
    counts, _ = torch.histogram(scales, bins=6, range=(0.0, 0.6))
    assert ((counts / counts.sum() - 1 / 6).abs() < 0.04).all()  # uniform, up to the error of each row's own scale
    for noise_name in ("masking", "salt_and_pepper", "swap"):
        x = torch.randn(2000, 300, generator=torch.Generator().manual_seed(0))
        share = (damage(CORRUPTIONS[noise_name](0.9, "mixed"), x) != x).double().mean(1)
        # five standard errors of the mean of a uniform level
        assert share.mean().item() == pytest.approx(0.45, abs=0.03)
        assert share.std().item() == pytest.approx(0.9 / 12**0.5, rel=0.1)
        assert share.max() > 0.8
        assert share.min() < 0.05


@pytest.mark.parametrize("schedule", ["constant", "decreasing", "mixed"])
@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(7, 3), (5, 1), (4, 2, 6), (3, 1, 4, 5), (3, 2, 1, 1)])
def test_every_schedule_keeps_shape_and_type(shape, name, schedule):
    corruption = CORRUPTIONS[name](0.5, schedule, 0.1)
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        out = damage(corruption, x, 0.3)
        assert out.shape == x.shape
        assert out.dtype == dtype
        assert torch.equal(damage(corruption, x, 0.3), out)
    assert torch.equal(damage(CORRUPTIONS[name](0.0, schedule), x), x)


def test_a_constant_level_does_not_depend_on_progress():
    x = torch.randn(20, 5)
    for name in CORRUPTIONS:
        assert torch.equal(damage(CORRUPTIONS[name](0.4), x, 0.0), damage(CORRUPTIONS[name](0.4), x, 1.0))


# occlusion ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.05, 0.3, 0.9])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 12), (1, 9)])
def test_occlusion_blanks_one_rectangle_of_the_expected_size(level, height, width):
    x = 1 + torch.rand(3000, 2, height, width)
    out = damage(Occlusion(level), x)
    blank = out == 0
    assert torch.equal(blank[:, 0], blank[:, 1])  # all channels
    assert torch.equal(out[~blank], x[~blank])
    shares = blank[:, 0].double().flatten(1).mean(1)
    assert shares.mean().item() == pytest.approx(level, abs=5 * float(shares.std()) / 3000**0.5 + 1e-9)
    for image in blank[:50, 0]:
        rows, columns = image.any(1).nonzero().flatten(), image.any(0).nonzero().flatten()
        if len(rows):
            assert len(rows) == rows[-1] - rows[0] + 1
            assert len(columns) == columns[-1] - columns[0] + 1
            assert image.sum() == len(rows) * len(columns)
    assert blank.any(0).all()  # every pixel has its turn


def test_occlusion_needs_images():
    with pytest.raises(
        ParameterError, match=r"noise='occlusion' blanks a rectangle of an image; X has rows of shape \(4,\)"
    ):
        DenoisingAutoencoder(2, noise="occlusion", **QUICK).fit(X)
    model = DenoisingAutoencoder(4, noise="occlusion", **QUICK).fit(DIGITS)
    assert np.isfinite(model.history_["val_loss"]).all()


# training -----------------------------------------------------------------------------------------------------------------------


def spy_on_damage(model):
    """Return the root mean square of the damage in each pass: under True in training, under False in validation."""
    seen = {True: [], False: []}

    def build(schema, build=model._build):
        module = build(schema)
        trace = module.trace

        def spy(batch, **how):
            out = trace(batch, **how)
            if how.get("corrupt"):
                seen[module.training].append(float((out.x_in - batch.x).square().mean().sqrt()))
            return out

        module.trace = spy
        return module

    model._build = build
    return seen


def test_training_noise_follows_the_schedule_and_validation_noise_is_that_of_the_end():
    wide = np.random.default_rng(0).normal(size=(400, 50))
    common = {"level": 1.0, "scale": None, **QUICK, "max_epochs": 10}
    seen = spy_on_damage(model := DenoisingAutoencoder(4, noise_schedule="decreasing", end_level=0.2, **common))
    model.fit(wide)
    steps = len(seen[True])
    want = 1.0 - 0.8 * np.arange(steps) / steps
    # five standard errors of a standard deviation in the smallest batch, 8 rows of 50 cells
    np.testing.assert_allclose(seen[True], want, rtol=0.18)
    assert seen[True][-1] < 0.3
    assert len(set(seen[False])) == 1  # the same noise after each epoch
    assert seen[False][0] == pytest.approx(0.2, rel=0.1)
    seen = spy_on_damage(model := DenoisingAutoencoder(4, **common))
    model.fit(wide)
    assert len(set(seen[False])) == 1
    assert seen[False][0] == pytest.approx(1.0, rel=0.1)
    seen = spy_on_damage(model := DenoisingAutoencoder(4, noise_schedule="mixed", **common))
    model.fit(wide)
    assert len(set(seen[False])) == 1
    assert seen[False][0] == pytest.approx((1 / 3) ** 0.5, rel=0.3)  # 40 rows with a level each


def test_at_level_zero_the_end_of_a_decreasing_schedule_is_a_clean_reconstruction():
    model = DenoisingAutoencoder(2, noise_schedule="decreasing", **QUICK).fit(X)
    table = model.codec_.encode(model._read(X, reset=False))
    trace = model.module_.trace(table.slice(0, 150), sample=False, corrupt=True)
    assert torch.equal(trace.x_in, table.x)


def test_patience_waits_for_the_noise_to_come_down():
    noise = np.random.default_rng(0).normal(size=(60, 10))
    common = {"level": 1.0, "patience": 2, "max_epochs": 80, "hidden": (16,), "random_state": 0}
    assert len(DenoisingAutoencoder(5, **common).fit(noise).history_) < 80
    assert len(DenoisingAutoencoder(5, noise_schedule="decreasing", **common).fit(noise).history_) == 80


@pytest.mark.parametrize("schedule", ["decreasing", "mixed"])
def test_schedules_resume_bit_for_bit(schedule, tmp_path):
    class Stop(Exception):
        pass

    def crash(run):
        if run.epoch == 3:
            raise Stop

    def make(**more):
        return DenoisingAutoencoder(2, noise="masking", noise_schedule=schedule, **QUICK, **more)

    with pytest.raises(Stop):
        make(checkpoint=tmp_path, callbacks=(crash,)).fit(X)
    np.testing.assert_array_equal(make(checkpoint=tmp_path).fit(X).transform(X), make().fit(X).transform(X))


def test_one_model_serves_many_levels():
    """Rows of rank two under noise of 0.2 and of 1.5: a model of mixed levels is near each specialist at its own level."""
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 10))
    train, test = clean[:500], clean[500:]
    spread = train.std(axis=0)
    common = {"hidden": (32,), "max_epochs": 40, "batch_size": 100, "patience": None, "random_state": 0}

    def error(model, level):
        noisy = test + level * spread * np.random.default_rng(1).normal(size=test.shape)
        return np.mean(((model.reconstruct(noisy) - test) / spread) ** 2)

    low, high = (DenoisingAutoencoder(8, level=level, **common).fit(train) for level in (0.2, 1.5))
    mixed = DenoisingAutoencoder(8, level=1.5, noise_schedule="mixed", **common).fit(train)
    assert error(mixed, 0.2) < 0.8 * error(high, 0.2)  # each specialist fails where the other is at home
    assert error(mixed, 1.5) < 0.8 * error(low, 1.5)


def test_an_end_above_the_level_is_refused():
    with pytest.raises(ParameterError, match=r"end_level=0\.5: noise_schedule='decreasing' expects at most level=0\.3"):
        DenoisingAutoencoder(2, noise_schedule="decreasing", end_level=0.5, **QUICK).fit(X)
