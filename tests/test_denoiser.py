"""Images of any size without their noise: what comes back, tiles, layouts, learning from noisy images, odd input."""

import struct
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.datasets import load_sample_image

import diabolo
from diabolo import Autoencoder, Denoiser
from diabolo.checks import ParameterError
from diabolo.cli.app import main
from diabolo.metrics import psnr
from diabolo.parts.degradations import degrade
from diabolo.parts.networks.unet import ResidualUNet
from diabolo.tasks import denoising, picture_models
from diabolo.tasks.pictures import read_pictures, windows


def scene(height, width, seed, dtype=np.uint8):
    """Discs and stripes: flat parts, edges and slopes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = 60 + 40 * np.sin(x / rng.uniform(5, 20) + y / rng.uniform(5, 20))
    for _ in range(12):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(4, 16)
        image = np.where((y - cy) ** 2 + (x - cx) ** 2 < r**2, rng.uniform(0, 255), image)
    return image.astype(dtype)


def noisy(image, level, seed=0):
    noise = np.random.default_rng(seed).normal(0, level, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(image.dtype)


CLEAN = [scene(90 + 10 * i, 110, i) for i in range(6)]
SMALL = {"width": 16, "max_steps": 120, "random_state": 0, "device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module", autouse=True)
def small_training():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture_models, "PATCHES", 640)
        patch.setattr(picture_models, "HELD_OUT", 64)
        yield


@pytest.fixture(scope="module")
def fitted(small_training):
    return Denoiser(level=30.0, **SMALL).fit(CLEAN)


def test_noise_goes_and_the_image_stays(fitted):
    clean = scene(75, 130, 99)
    damaged = noisy(clean, 30)
    (restored,) = fitted.transform([damaged])
    assert restored.dtype == np.uint8
    assert restored.shape == clean.shape
    # after 120 steps; a mean over 3 x 3 pixels gains 3 dB here, and blurs edges
    assert psnr(clean, restored, 255) > psnr(clean, damaged, 255) + 4
    assert fitted.history_.rows[-1]["val_loss"] < fitted.history_.rows[0]["val_loss"]


def test_noisy_images_alone_are_enough(small_training):
    learned = Denoiser(learn_from="noisy", **SMALL).fit([noisy(image, 30, i) for i, image in enumerate(CLEAN)])
    clean = scene(75, 130, 99)
    damaged = noisy(clean, 30)
    assert psnr(clean, learned.transform([damaged])[0], 255) > psnr(clean, damaged, 255) + 3


def test_tiles_have_no_seams(fitted, monkeypatch):
    image = noisy(scene(203, 251, 5), 30)
    whole = fitted.transform([image])[0]
    monkeypatch.setattr(picture_models, "TILE", 64)
    # convolutions of other sizes add in another order: a value near a half may be rounded to either side
    assert np.abs(fitted.transform([image])[0].astype(int) - whole).max() <= 1


@pytest.mark.parametrize("depth", [1, 2])
def test_no_pixel_depends_on_others_out_of_reach(depth):
    torch.manual_seed(0)
    net = ResidualUNet(1, 4, depth=depth).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    size, at = 4 * net.reach, 2 * net.reach
    x = torch.zeros(1, 1, size, size)
    touched = torch.zeros(size, size, dtype=torch.bool)
    for dy in range(net.stride):  # a pixel of each place in a cell
        y = x.clone()
        y[0, 0, at + dy, at + dy] = 100.0
        touched |= (net(y) - net(x))[0, 0].abs() > 0
    rows = touched.any(dim=1).nonzero()[:, 0]
    assert at + net.stride - 1 - int(rows.min()) <= net.reach + net.stride - 1
    assert int(rows.max()) - at <= net.reach + net.stride - 1
    assert net.reach % net.stride == 0


def test_tiles_visit_every_pixel_once():
    seen = np.zeros((70, 45), dtype=int)
    for inner, outer in windows(70, 45, side=32, reach=8):
        seen[inner] += 1
        for i, o, length in zip(inner, outer, seen.shape, strict=True):
            assert o.start == max(0, i.start - 8)
            assert o.stop == min(length, i.stop + 8)
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((40, 33), np.uint16),
        ((40, 33, 3), np.uint8),
        ((3, 40, 33), np.float32),
        ((1, 1), np.uint8),
        ((41, 30), np.float64),
    ],
)
def test_every_layout_and_type_comes_back(shape, dtype, small_training):
    rng = np.random.default_rng(0)
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    images = [(rng.random(shape) * top).astype(dtype) for _ in range(3)]
    learned = Denoiser(**SMALL | {"max_steps": 2}).fit(images)
    for given in (
        images,
        np.stack(images),
        [torch.from_numpy(i.astype(np.float32) if dtype == np.uint16 else i) for i in images],
    ):
        back = learned.transform(given)
        assert type(back) is type(given)
        assert all(b.shape == tuple(g.shape) and b.dtype == g.dtype for b, g in zip(back, given, strict=True))
    # the network starts as the identity, and two steps change little
    assert np.abs(learned.transform(images)[0].astype(float) - images[0]).mean() < 0.2 * top


def test_neighbours_are_beside_each_other_in_their_cell():
    x = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(50, 1, 1, 1)
    torch.manual_seed(0)
    first, second = denoising._pairs(x)
    a, b = denoising._picked(x, first), denoising._picked(x, second)
    assert a.shape == (50, 1, 4, 4)
    apart = (a - b).abs()
    assert set(apart.unique().tolist()) == {1.0, 8.0}
    # both lie in the cell that they stand for
    row, column = a // 8 // 2, a % 8 // 2
    assert torch.equal(row, torch.arange(4.0).view(1, 1, 4, 1).expand_as(row))
    assert torch.equal(column, torch.arange(4.0).view(1, 1, 1, 4).expand_as(column))


def test_saved_and_loaded_and_the_same_again(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    image = noisy(scene(60, 60, 3), 30)
    np.testing.assert_array_equal(again.transform([image])[0], fitted.transform([image])[0])
    assert len(again.history_) == len(fitted.history_)
    twin = Denoiser(level=30.0, **SMALL).fit(CLEAN)
    np.testing.assert_array_equal(twin.transform([image])[0], fitted.transform([image])[0])


def test_tables_and_series_with_the_same_call():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 8))
    damaged = X + rng.normal(0, 0.5, X.shape)
    restored = Denoiser(Autoencoder(2, max_epochs=30), random_state=0).fit(damaged).transform(damaged)
    assert np.square(restored - X).mean() < 0.5 * np.square(damaged - X).mean()
    frame = pl.DataFrame(damaged)
    assert Denoiser(Autoencoder(2, max_epochs=2), random_state=0).fit(frame).transform(frame).columns == frame.columns
    waves = [np.sin(np.arange(n) / 3) for n in (20, 25, 30)]
    back = Denoiser(Autoencoder(2, max_epochs=2), random_state=0).fit(waves).transform(waves)
    assert [len(w) for w in back] == [20, 25, 30]


def test_bad_input(fitted):
    with pytest.raises(ValueError, match=r"2 channel\(s\)|3 channel\(s\), expected 1"):
        fitted.transform([np.zeros((9, 9, 3), np.uint8)])
    with pytest.raises(ValueError, match="A single image is a list of one"):
        fitted.transform(CLEAN[0])
    with pytest.raises(ValueError, match="image 1 has 3"):
        Denoiser().fit([CLEAN[0], np.zeros((9, 9, 3), np.uint8)])
    with pytest.raises(ValueError, match="image 0 has uint8 numbers of type, image 1 has float64"):
        Denoiser().fit([CLEAN[0], CLEAN[0] / 255])
    with pytest.raises(ValueError, match="missing or infinite"):
        Denoiser().fit([np.full((9, 9), np.nan)])
    with pytest.raises(ValueError, match="there is no image"):
        read_pictures([])
    for parameters, message in (
        ({"level": (30.0, 10.0)}, "a range"),
        ({"noise": "salt_and_pepper", "level": 2.0}, "share of pixels from 0 to 0.99"),
        ({"noise": "jpeg", "level": (0.0, 50.0)}, "quality from 1 to 100"),
        ({"noise": ("gaussian", "blur"), "level": 20.0}, "is for one kind of 2; name them"),
        ({"noise": ("gaussian", "blur"), "level": {"jpeg": 20.0}}, "'jpeg' is given a level and is not among"),
        ({"noise": "gausian"}, "Did you mean 'gaussian'"),
        ({"noise": ("blur", "blurr")}, "expected"),
        ({"noise": ()}, "no kind"),
    ):
        with pytest.raises(ParameterError, match=message):
            Denoiser(**parameters).fit(CLEAN)


@pytest.mark.parametrize("sigma", [5, 15, 25, 50])
def test_noise_is_estimated_from_the_image_alone(sigma):
    rng = np.random.default_rng(sigma)
    image = scene(120, 150, 3, float)
    found = Denoiser.estimate_noise([image + rng.normal(0, sigma, image.shape)])
    # the median of 256 sizes is off by 5 % or so, and the least of 63 blocks stands for all
    np.testing.assert_allclose(found, sigma, rtol=0.1)
    colour = np.stack([image, image[::-1], image.T[:120, :120].repeat(2, axis=1)[:, :150]], axis=2)
    np.testing.assert_allclose(Denoiser.estimate_noise([colour + rng.normal(0, sigma, colour.shape)]), sigma, rtol=0.1)


def test_noise_cannot_be_estimated_of():
    with pytest.raises(ValueError, match="image 1 has 9 x 40 pixels; expected sides of at least 19"):
        Denoiser.estimate_noise([np.zeros((20, 20)), np.zeros((9, 40))])
    with pytest.raises(ValueError, match="a single image is a list of one"):
        Denoiser.estimate_noise(np.zeros((20, 20)))
    assert Denoiser.estimate_noise([np.zeros((20, 20))]) == 0


def test_mixtures_are_undone(small_training):
    noise = ("blur", "salt_and_pepper")
    learned = Denoiser(noise=noise, level={"blur": 1.0, "salt_and_pepper": (0.05, 0.2)}, **SMALL).fit(CLEAN)
    clean = scene(75, 130, 99)
    x = torch.from_numpy(clean[None, None].astype(np.float32) / 255)
    torch.manual_seed(0)
    damaged = degrade(x, {"blur": (1.0, 1.0), "salt_and_pepper": (0.1, 0.1)})[0, 0].numpy()
    damaged = (damaged * 255).round().astype(np.uint8)
    # a tenth of the pixels, off by half the range, are all but gone
    assert psnr(clean, learned.transform([damaged])[0], 255) > psnr(clean, damaged, 255) + 6


def test_psnr():
    a = np.zeros((4, 4))
    assert psnr(a, a + 25.5, 255) == pytest.approx(20)
    assert psnr(a, a, 255) == np.inf
    with pytest.raises(ValueError, match="one shape"):
        psnr(a, a[:2], 255)


# the command line ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch, small_training):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    for name in ("clean", "noisy"):
        (tmp_path / name).mkdir()
    for i, pixels in enumerate(CLEAN):
        image.fromarray(pixels).save(f"clean/{i}.png")
    colour = np.stack([noisy(scene(50, 70, 7), 30, c) for c in range(3)], axis=2)
    image.fromarray(noisy(scene(50, 70, 7), 30)).save("noisy/grey.png")
    image.fromarray(colour).save("noisy/colour.png")
    see_through = image.fromarray(colour)
    see_through.putalpha(image.fromarray(scene(50, 70, 8)))
    see_through.save("noisy/alpha.png")

    def opened(path):
        with image.open(path) as file:
            return file.mode, np.array(file)

    return image.fromarray, opened


def test_files_are_cleaned_in_their_mode(folder, capsys):
    _, opened = folder
    command = ["--steps", "10", "--seed", "0", "--quiet"]
    assert main(["denoise", "noisy/grey.png", "-o", "out.png", "--clean", "clean", "--save", "m", *command]) == 0
    assert opened("out.png")[0] == "L"
    broken = Path("noisy/broken.png")
    broken.write_bytes(b"no image")
    assert main(["denoise", "m", "noisy", "-o", "done", "--report", "page.html"]) == 1
    said = capsys.readouterr().err
    assert "broken.png cannot be read as an image" in said
    assert "cleaned 3 image(s); 1 could not be read" in said
    modes = {name: opened(f"done/{name}.png")[0] for name in ("grey", "colour", "alpha")}
    assert modes == {"grey": "L", "colour": "RGB", "alpha": "RGBA"}
    np.testing.assert_array_equal(opened("done/alpha.png")[1][..., 3], scene(50, 70, 8))
    np.testing.assert_array_equal(opened("done/grey.png")[1], opened("out.png")[1])
    broken.unlink()
    assert (
        main(["denoise", "noisy", "-o", "self", "--learn", *command]) == 0
    )  # grey and colour together, without clean images
    assert opened("self/colour.png")[1].shape == (50, 70, 3)
    page = Path("page.html").read_text()
    assert "3 images cleaned" in page
    assert page.count("data:image/png;base64,") == 3 * 4
    capsys.readouterr()
    mixture = ["denoise", "noisy/grey.png", "-o", "out.png", "--clean", "clean", "--steps", "2", "--seed", "0"]
    assert main([*mixture, "--noise", "gaussian,blur,scratches"]) == 0
    assert main([*mixture, "--noise", "gaussian,blurr"]) == 1
    capsys.readouterr()
    assert main(mixture) == 0
    levels = [float(word) for word in capsys.readouterr().err.split("is put on")[0].split() if word[0].isdigit()]
    assert levels[0] < 30 < levels[1]  # as much as the image has


def test_photographs_are_cleaned_at_once(folder):
    make, opened = folder
    photo = np.asarray(load_sample_image("china.jpg"))[100:228, 200:360]
    noise = np.random.default_rng(0).normal(0, 25, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    make(noisy).save("colour.png")
    assert main(["denoise", "colour.png", "-o", "out.png", "--quiet"]) == 0
    # leaves, tiles and lattice, which leave little to smooth: a median filter loses 1 dB here
    assert psnr(photo, opened("out.png")[1], 255) > psnr(photo, noisy, 255) + 5
    grey = noisy[..., 1]
    make(grey).save("grey.png")
    make(np.repeat(grey[..., None], 3, axis=2)).save("greys.png")
    make((grey.astype(np.uint16) << 8) + grey).save("deep.png")
    for name in ("grey", "greys", "deep"):
        assert main(["denoise", f"{name}.png", "-o", f"{name}.out.png", "--quiet"]) == 0
    one, three, deep = (opened(f"{name}.out.png")[1] for name in ("grey", "greys", "deep"))
    assert psnr(photo[..., 1], one, 255) > psnr(photo[..., 1], grey, 255) + 3
    np.testing.assert_array_equal(three, np.repeat(one[..., None], 3, axis=2))
    np.testing.assert_allclose(deep / 257, one, atol=0.51)  # 8 bits are rounded


def colour_of_16_bits(width=4, height=3):
    """Return a PNG file of which only the first rows are there, where it is large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(6 * min(width, 4))) * min(height, 3)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_files_that_do_not_fit(folder, capsys):
    make, opened = folder
    make(scene(20, 20, 0)).convert("CMYK").save("cmyk.tif")
    frames = [make(scene(20, 20, i)) for i in range(2)]
    frames[0].save("moving.png", save_all=True, append_images=frames[1:])
    for arguments, message in (
        (["denoise", "cmyk.tif", "-o", "x.png"], "of mode CMYK"),
        (["denoise", "moving.png", "-o", "x.png"], "has 2 frames"),
        (["denoise", "gone.png", "-o", "x.png"], "no such file"),
        (["denoise", "noisy", "-o", "noisy/grey.png"], "is a file; expected a folder"),
        (["denoise", "noisy", "-o", "x", "--level", "20"], "name a folder of them"),
        (["denoise", "noisy", "-o", "x", "--save", "m"], "add --learn or --clean"),
        (["denoise", "noisy", "-o", "x", "--learn", "--clean", "clean"], "leave out one of them"),
    ):
        assert main(arguments) in (1, 2)
        assert message in capsys.readouterr().err
    Path("colour16.png").write_bytes(colour_of_16_bits())
    assert main(["denoise", "colour16.png", "-o", "x.png"]) == 1
    assert "colours of 16 bits, of which only 8 would be read" in capsys.readouterr().err
    Path("huge.png").write_bytes(colour_of_16_bits(50_000, 50_000))
    assert main(["denoise", "huge.png", "-o", "x.png"]) == 1
    assert "claims to have 50000 x 50000 pixels" in capsys.readouterr().err
    deep = (scene(30, 30, 1).astype(np.uint16) << 8) + 7
    make(deep).save("deep.png")
    assert main(["denoise", "deep.png", "-o", "x.png", "--learn", "--steps", "2", "--quiet"]) == 0
    assert opened("x.png")[0].startswith("I")
    assert opened("x.png")[1].max() > 255
