"""What is done to images: statistics of noise, blur against scipy, JPEG against Pillow, marks that cover what they say."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from diabolo.parts.degradations import DEGRADATIONS, MARKS, cover, degrade, resolve_levels


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def at(name, level, x):
    return degrade(x, {name: (level, level)})


def test_kinds_of_noise_are_what_they_say():
    x = torch.full((64, 1, 32, 32), 0.25)
    # 65,536 draws: a standard deviation within half a percent, a share within a percent of one
    assert float(at("gaussian", 0.1, x).std()) == pytest.approx(0.1, rel=0.02)
    counted = at("poisson", 0.1, x)
    assert float(counted.std()) == pytest.approx(0.1 * 0.25**0.5, rel=0.02)
    assert float(counted.mean()) == pytest.approx(0.25, rel=0.01)
    torch.testing.assert_close(counted * 100, (counted * 100).round(), atol=1e-4, rtol=0)  # white is 100 counts
    salted = at("salt_and_pepper", 0.2, x)
    assert float((salted != 0.25).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert set(salted.unique().tolist()) == {0.0, 0.25, 1.0}


def test_blur_is_a_gaussian_filter():
    x = torch.rand(3, 2, 40, 30)
    blurred = at("blur", 1.5, x)
    expected = gaussian_filter(x.numpy(), (0, 0, 1.5, 1.5), mode="mirror", truncate=10 / 3)  # five pixels each way
    np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(at("blur", 0.0, x).numpy(), x.numpy(), atol=1e-6)
    assert at("blur", 2.0, x[:, :, :1, :1]).shape == (3, 2, 1, 1)


def test_jpeg_is_that_of_pillow():
    image = pytest.importorskip("PIL.Image")
    import io

    x = (torch.rand(4, 3, 6, 6).repeat_interleave(8, 2).repeat_interleave(8, 3) * 255).round() / 255
    rough, fine = (at("jpeg", quality, x) for quality in (10, 95))
    assert (rough - x).abs().mean() > 2 * (fine - x).abs().mean() > 0
    assert at("jpeg", 50, x[:, :2]).shape == (4, 2, 48, 48)  # channels that are no colours, one by one
    flat = torch.full((1, 1, 16, 16), 100 / 255)
    torch.testing.assert_close(at("jpeg", 50, flat), flat)
    # one of the 64 ways that blocks of 8 can begin is that of a file of the whole image
    file = io.BytesIO()
    pixels = (x[0, :1] * 255).byte().numpy()[0]
    image.fromarray(pixels).save(file, "JPEG", quality=30)
    read = torch.from_numpy(np.array(image.open(file))) / 255
    assert any(torch.equal(one[0], read) for one in at("jpeg", 30, x[:1, :1].repeat(500, 1, 1, 1)))


@pytest.mark.parametrize("name", MARKS)
def test_marks_cover_what_they_say(name):
    x = torch.full((200, 3, 64, 64), 0.5)
    share = 0.1
    covered, how = cover(x, {name: (share, share)})
    assert how.shape == (200, 1, 64, 64)
    touched = (how > 0).float().mean(dim=(1, 2, 3))
    # pixels are drawn one by one; blocks have whole sides; lines and specks end at the nearest number of them
    assert float(touched.mean()) == pytest.approx(share, rel=0.15)
    assert float((touched - share).abs().max()) < 0.06
    torch.testing.assert_close(covered[(how == 0).expand_as(x)], torch.full((), 0.5).expand(int((how == 0).sum()) * 3))
    whole = covered[(how == 1).expand_as(x)]
    assert bool(((whole <= 0.2) | (whole >= 0.8)).all())
    assert bool((whole < 0.5).any())
    assert bool((whole > 0.5).any())
    untouched, none = cover(x, {name: (0.0, 0.0)})
    assert torch.equal(untouched, x)
    assert not none.any()


def test_each_image_has_marks_of_one_kind():
    shares = {"blocks": (0.2, 0.2), "pixels": (0.2, 0.2)}
    _, how = cover(torch.zeros(60, 1, 32, 32), shares)
    # neighbours in a block are alike, single pixels are not
    alike = (how[..., 1:] == how[..., :-1]).float().mean(dim=(1, 2, 3))
    assert 15 < int((alike > 0.9).sum()) < 45
    assert bool(((alike > 0.9) | (alike < 0.8)).all())


def test_levels():
    assert resolve_levels(("gaussian",), 25.5, DEGRADATIONS, 255.0) == {"gaussian": (0.1, 0.1)}
    assert resolve_levels(("blur", "jpeg"), {"jpeg": (20, 30)}, DEGRADATIONS, 255.0) == {
        "blur": DEGRADATIONS["blur"].auto,
        "jpeg": (20.0, 30.0),
    }


def test_they_are_exact_within_mixed_precision():
    x = torch.rand(4, 1, 32, 32)
    for run in (lambda: at("blur", 1.5, x), lambda: at("dust", 0.1, x), lambda: cover(x, {"scratches": (0.1, 0.1)})[0]):
        torch.manual_seed(0)
        expected = run()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(run(), expected)
