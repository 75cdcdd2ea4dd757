"""Augmentation: exact pixels, fair draws, missing cells that move along, and training that can be repeated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris

from diabolo import VAE, Autoencoder, DenoisingAutoencoder, load
from diabolo.checks import ParameterError
from diabolo.parts.augmentation import AUGMENTATIONS, Augmentation, flip, rotate, shift, zoom
from diabolo.records import Batch
from diabolo.seeding import seeded

DIGITS = load_digits().images[:80]
ALL = tuple(k for k in AUGMENTATIONS if k != "binarize")  # which needs values in [0, 1]
QUICK = {"hidden": (16,), "max_epochs": 4, "patience": None, "random_state": 0, "device": "cpu"}
SIZES = [(1, 1), (1, 5), (4, 1), (2, 2), (5, 7), (8, 8)]
# positions of resampled pixels are float32 numbers near 1 times the size of the image
CLOSE = {"rtol": 0, "atol": 2e-5}


def images(n=3, channels=2, height=5, width=7, seed=0):
    with seeded(seed):
        return torch.randn(n, channels, height, width)


def yes(x, value=True):
    return torch.full((len(x),), value)


# exact pixels -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_flip_mirrors_and_two_are_the_identity(height, width):
    x = images(height=height, width=width)
    once, _ = flip(x, None, yes(x))
    assert torch.equal(once, x.flip(-1))
    assert torch.equal(flip(once, None, yes(x))[0], x)
    mixed, _ = flip(x, None, torch.tensor([True, False, True]))
    assert torch.equal(mixed[1], x[1])
    assert torch.equal(mixed[2], x[2].flip(-1))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_shift_moves_exact_pixels_and_repeats_the_border(height, width):
    x = images(3, 2, height, width)
    down, right = torch.tensor([1, -1, 0]), torch.tensor([0, 2, -1])
    got, _ = shift(x, None, down, right)
    for b in range(3):
        for i in range(height):
            for j in range(width):
                there = x[b, :, np.clip(i - int(down[b]), 0, height - 1), np.clip(j - int(right[b]), 0, width - 1)]
                assert torch.equal(got[b, :, i, j], there)


def test_rotations_by_right_angles_are_exact():
    x = images(4, 2, 6, 6)
    for quarters in range(-3, 5):
        got, _ = rotate(x, None, torch.full((4,), 90.0 * quarters))
        torch.testing.assert_close(got, torch.rot90(x, quarters, (2, 3)), **CLOSE)
    for height, width in SIZES:
        x = images(2, 1, height, width)
        torch.testing.assert_close(rotate(x, None, torch.tensor([180.0, 360.0]))[0][0], x[0].flip(1, 2), **CLOSE)
        torch.testing.assert_close(rotate(x, None, torch.tensor([180.0, 360.0]))[0][1], x[1], **CLOSE)


def test_a_rotation_keeps_its_shape_on_an_image_that_is_not_square():
    """A linear picture turned by an angle is the linear picture of the turned gradient, in pixels, away from the border."""
    height, width, angle = 21, 31, 20.0
    down, right = np.meshgrid(np.arange(height) - 10.0, np.arange(width) - 15.0, indexing="ij")
    got, _ = rotate(torch.tensor(right, dtype=torch.float32)[None, None], None, torch.tensor([angle]))
    a = np.radians(angle)
    want = np.cos(a) * right - np.sin(a) * down  # what was on the right is higher up now
    np.testing.assert_allclose(got[0, 0, 6:15, 8:23], want[6:15, 8:23], atol=1e-4)


def test_a_crop_is_blown_up_from_its_place():
    x = images(2, 1, 4, 4)
    whole, _ = zoom(x, None, torch.ones(2), torch.rand(2), torch.rand(2))
    torch.testing.assert_close(whole, x, **CLOSE)
    # a linear picture has the value of the pixel looked at: from the top left half, then from the bottom right half
    ramp = torch.arange(8.0).expand(2, 1, 8, 8)
    got, _ = zoom(ramp, None, torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    places = (torch.arange(8.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(got[0, 0, 3], places.clamp(0, 7), **CLOSE)
    torch.testing.assert_close(got[1, 0, 3], (places + 4).clamp(0, 7), **CLOSE)


# draws --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", ALL)
def test_every_change_works_on_every_size(name, height, width, dtype):
    x = images(6, 2, height, width).to(dtype)
    before = x.clone()
    mask = (torch.rand(6, 2, height, width, generator=torch.Generator().manual_seed(0)) < 0.8).to(dtype)
    with seeded(0):
        got = Augmentation((name,))(Batch(x, mask, None))
    assert got.x.shape == got.mask.shape == x.shape
    assert got.x.dtype == got.mask.dtype == dtype
    assert torch.isfinite(got.x).all()
    assert set(got.mask.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(x, before)
    slack = 1e-5  # of interpolation in float32
    assert got.x.max() <= max(x.max(), 0) + slack  # 0 stands for a missing cell
    assert got.x.min() >= min(x.min(), 0) - slack


def test_half_of_the_images_are_mirrored():
    x = images(4000, 1, 1, 2)
    with seeded(0):
        changed = (Augmentation(("flip",))(Batch(x)).x != x).flatten(1).any(1).double()
    assert changed.mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 4000**0.5)  # five standard errors


def test_shifts_are_uniform_over_an_eighth_of_each_side_and_drawn_for_each_image():
    x = torch.zeros(9000, 1, 16, 24)
    x[:, :, 8, 12] = 1.0  # a point that stays inside
    with seeded(0):
        moved = Augmentation(("shift",))(Batch(x)).x[:, 0].nonzero() - torch.tensor([0, 8, 12])
    assert len(moved) == 9000
    for column, most in ((1, 2), (2, 3)):
        steps, counts = moved[:, column].unique(return_counts=True)
        assert steps.tolist() == list(range(-most, most + 1))
        share = 1 / (2 * most + 1)
        assert ((counts / 9000 - share).abs() < 5 * (share * (1 - share) / 9000) ** 0.5).all()  # five standard errors
    correlation = np.corrcoef(moved[:, 1:].double().T.numpy())[0, 1]
    assert abs(correlation) < 5 / 9000**0.5


def test_noise_has_its_scale_within_the_range_and_stays_inside():
    x = 0.5 * torch.ones(50, 1, 20, 20)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0.0, 1.0
    with seeded(0):
        got = Augmentation(("noise",))(Batch(x)).x
    inside = (got - x)[2:]
    assert inside.std().item() == pytest.approx(0.05, rel=5 / (2 * inside.numel()) ** 0.5)  # five standard errors
    assert got.min() >= 0
    assert got.max() <= 1


# missing cells ------------------------------------------------------------------------------------------------------------------


def test_missing_cells_move_with_the_image():
    x = images(3, 1, 5, 5)
    mask = torch.ones_like(x)
    mask[:, :, 1, 3] = 0
    for moved, hole in (
        (flip(x * mask, mask, yes(x)), (1, 1)),
        (shift(x * mask, mask, torch.full((3,), 2), torch.full((3,), -1)), (3, 2)),
        (rotate(x * mask, mask, torch.full((3,), 90.0)), (1, 1)),
    ):
        assert (moved[1] == 0).nonzero().tolist() == [[b, 0, *hole] for b in range(3)]
        assert (moved[0][moved[1] == 0] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_the_value_of_a_missing_cell_cannot_be_seen(name):
    x = images(20, 1, 9, 9)
    mask = torch.ones_like(x)
    mask[:, :, 4, 2:7] = 0
    poisoned = torch.where(mask > 0, x, 0.0) if name == "noise" else torch.where(mask > 0, x, 1e6)
    with seeded(0):
        clean = Augmentation((name,))(Batch(x * mask, mask))
    with seeded(0):
        other = Augmentation((name,))(Batch(poisoned, mask))
    torch.testing.assert_close(clean.x * clean.mask, other.x * other.mask)
    assert torch.equal(clean.mask, other.mask)


def test_a_pixel_between_observed_and_missing_ones_is_the_average_of_the_observed():
    x = 3.0 * torch.ones(1, 1, 8, 8)
    mask = torch.ones_like(x)
    mask[0, 0, 2:4, 2:4] = 0
    for angle in (10.0, 33.0, 45.0):
        turned, seen = rotate(x * mask, mask, torch.tensor([angle]))
        torch.testing.assert_close(turned[seen > 0], 3.0 * torch.ones(int(seen.sum())))
        assert (seen == 0).any()


# training -----------------------------------------------------------------------------------------------------------------------


def watch(model):
    """Return the batches that the module saw in training and in validation."""
    seen = {True: [], False: []}

    def build(schema, build=model._build):
        module = build(schema)
        trace = module.trace

        def spy(batch, **how):
            out = trace(batch, **how)
            seen[module.training].append((batch.x.clone(), out))
            return out

        module.trace = spy
        return module

    model._build = build
    return seen


def test_only_training_batches_change():
    plain = watch(a := Autoencoder(4, **QUICK))
    shifted = watch(b := Autoencoder(4, augment=("shift",), **QUICK))
    a.fit(DIGITS)
    b.fit(DIGITS)
    for (x, _), (y, _) in zip(plain[False], shifted[False], strict=True):
        assert torch.equal(x, y)
    rows = a.codec_.encode(a._read(DIGITS, reset=False)).x.flatten(1)
    known = {tuple(row.tolist()) for row in rows}
    assert all(tuple(r.tolist()) in known for x, _ in plain[True] for r in x.flatten(1))
    share = np.mean([tuple(r.tolist()) in known for x, _ in shifted[True] for r in x.flatten(1)])
    assert share < 0.5  # one shift of nine is none; a blank border makes some others none


def test_the_target_of_a_denoising_model_is_the_clean_augmented_image():
    model = DenoisingAutoencoder(4, augment=("shift",), noise="masking", level=0.5, **QUICK)
    seen = watch(model)
    model.fit(DIGITS)
    rows = model.codec_.encode(model._read(DIGITS, reset=False)).x
    moves = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1)]
    known = {
        tuple(row.tolist())
        for d, r in moves
        for row in shift(rows, None, torch.full((80,), d), torch.full((80,), r))[0].flatten(1)
    }
    for _, trace in seen[True]:
        assert all(tuple(row.tolist()) in known for row in trace.batch.x.flatten(1))  # shifted, and not damaged
        damaged = trace.x_in != trace.batch.x
        assert (trace.x_in[damaged] == 0).all()
        assert damaged.any()


@pytest.mark.parametrize("model", [Autoencoder, VAE, DenoisingAutoencoder])
def test_a_fit_can_be_repeated_and_resumed_bit_for_bit(model, tmp_path):
    class Stop(Exception):
        pass

    def crash(run):
        if run.epoch == 2:
            raise Stop

    whole = model(4, augment=ALL, **QUICK)
    first = whole.fit(DIGITS).transform(DIGITS)
    np.testing.assert_array_equal(whole.fit(DIGITS).transform(DIGITS), first)
    with pytest.raises(Stop):
        model(4, augment=ALL, checkpoint=tmp_path / "run", callbacks=(crash,), **QUICK).fit(DIGITS)
    resumed = model(4, augment=ALL, checkpoint=tmp_path / "run", **QUICK).fit(DIGITS)
    np.testing.assert_array_equal(resumed.transform(DIGITS), first)
    with pytest.raises(ValueError, match="augment was"):
        model(4, augment=("flip",), checkpoint=tmp_path / "run", **QUICK).fit(DIGITS)
    whole.save(tmp_path / "model")
    assert load(tmp_path / "model").augment == ALL


def test_missing_cells_bernoulli_pixels_bfloat16_and_single_pixels():
    holes = np.where(np.random.default_rng(0).random(DIGITS.shape) < 0.2, np.nan, DIGITS)
    for X, more in (
        (holes, {}),
        (DIGITS > 8, {}),
        (DIGITS, {"likelihood": "bernoulli", "precision": "bfloat16"}),
        (np.arange(12.0).reshape(12, 1, 1), {}),
        (DIGITS[:1], {}),
        (np.stack([DIGITS] * 3, axis=1)[:, :, :5], {"network": "conv"}),
    ):
        model = Autoencoder(1, augment=ALL, **QUICK | more).fit(X)
        assert np.isfinite(model.history_["loss"]).all()
        assert np.isfinite(model.score(X))


def test_bad_input():
    with pytest.raises(ParameterError, match=r"augment=\('shift',\) changes images.*X has rows of shape \(4,\)"):
        Autoencoder(2, augment=("shift",), **QUICK).fit(load_iris().data)
    with pytest.raises(
        ParameterError, match=r"augment=.*expected tuple of {'flip', 'shift', 'rotate', 'crop', 'noise', 'binarize'}"
    ):
        Autoencoder(2, augment=("sift",), **QUICK).fit(DIGITS)
    with pytest.raises(ParameterError, match="augment='flip': expected tuple"):
        Autoencoder(2, augment="flip", **QUICK).fit(DIGITS)


def test_binarize_draws_anew_with_the_values_as_chances():
    x = torch.tensor([[0.0, 0.2, 1.0]]).expand(20_000, 3)
    with seeded(0):
        first, second = (Augmentation(("binarize",))(Batch(x)).x for _ in range(2))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    # five standard deviations of the mean of 20,000 draws
    torch.testing.assert_close(first.mean(0), x[0], rtol=0, atol=5 * 0.4 / 20_000**0.5)
    assert first[:, 0].sum() == 0
    assert first[:, 2].sum() == len(x)


def test_binarize_serves_rows_and_images_in_the_unit_interval_only():
    for X in (DIGITS / 16, DIGITS.reshape(-1, 64) / 16):
        vae = VAE(2, likelihood="bernoulli", augment=("binarize",), **QUICK).fit(X)
        assert np.isfinite(vae.history_["loss"]).all()
    grey = VAE(2, likelihood="bernoulli", augment=("rotate", "crop", "binarize"), **QUICK).fit(np.sqrt(DIGITS / 16))
    assert np.isfinite(grey.history_["loss"]).all()
    with pytest.raises(ParameterError, match="zeros and ones by values in"):
        Autoencoder(2, augment=("binarize",), **QUICK).fit(DIGITS)


def test_with_few_images_a_shift_lowers_the_error_of_new_ones():
    """The full measurement is benchmarks/augmentation.py; this is a small network for few epochs."""
    X = load_digits().images
    order = np.random.default_rng(0).permutation(len(X))
    train, test = X[order[:50]], X[order[-500:]]
    short = {"hidden": (64,), "max_epochs": 150, "patience": None, "learning_rate": 1e-2, "random_state": 0}
    errors = []
    for augment in ((), ("shift",)):
        model = Autoencoder(16, network="mlp", augment=augment, **short).fit(train)
        errors.append(np.mean((model.reconstruct(test) - test) ** 2))
    assert errors[1] < 0.85 * errors[0]  # 0.70 here; the rest is room for other versions of torch
