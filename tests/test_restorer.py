"""Images with holes: what a mask says is filled, all else stays to the bit; damage found by itself; tiles, layouts, odd input."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.ndimage import binary_dilation

import diabolo
from diabolo import Autoencoder, Imputer, Restorer
from diabolo.checks import ParameterError
from diabolo.cli.app import main
from diabolo.parts.degradations import cover
from diabolo.parts.networks.dilated import DilatedCNN
from diabolo.tasks import picture_models, restoring
from diabolo.tasks.membrane import halved, membrane
from test_denoiser import scene

CLEAN = [scene(90 + 10 * i, 110, i) for i in range(6)]
SMALL = {"width": 16, "learning_rate": 0.004, "random_state": 0, "device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module", autouse=True)
def small_training():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture_models, "PATCHES", 640)
        patch.setattr(picture_models, "HELD_OUT", 64)
        patch.setattr(restoring, "SIDE", 32)
        yield


@pytest.fixture(scope="module")
def fitted(small_training):
    return Restorer(holes=("scratches", "dust"), max_steps=40, **SMALL).fit(CLEAN)


def lines(shape, seed=0):
    """Slanted lines of three pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, dtype=bool)
    for _ in range(4):
        mask |= np.abs((y - rng.uniform(0, shape[0])) - (x - rng.uniform(0, shape[1])) * rng.uniform(-2, 2)) < 1.6
    return mask


def error(image, other, mask):
    return float(np.square(image[mask].astype(float) - other[mask]).mean())


def test_holes_are_filled_and_the_rest_stays(fitted):
    clean, mask = scene(75, 130, 99), lines((75, 130))
    damaged = np.where(mask, 0, clean).astype(np.uint8)
    (restored,) = fitted.transform([damaged], mask=[mask])
    np.testing.assert_array_equal(restored[~mask], clean[~mask])
    assert restored.dtype == np.uint8
    guess = membrane(*(torch.from_numpy(a[None, None].astype(np.float32)) for a in (damaged, ~mask)))[0, 0].numpy()
    # 40 steps from a smooth surface change little, and that is much better than a grey patch
    assert error(clean, restored, mask) < 1.5 * error(clean, guess, mask)
    assert error(clean, guess, mask) < 0.2 * clean[mask].var()
    rows = fitted.history_.rows
    assert rows[-1]["val_squared error"] < rows[0]["val_squared error"]
    assert rows[-1]["val_damage"] < rows[0]["val_damage"]


def test_holes_say_so_themselves(fitted):
    clean, mask = scene(60, 70, 98), lines((60, 70))
    (by_mask,) = fitted.transform([clean], mask=[mask])
    model = Restorer(missing_values=0, max_steps=2, **SMALL).fit([np.maximum(image, 1) for image in CLEAN])
    black = np.where(mask, 0, np.maximum(clean, 1)).astype(np.uint8)
    (filled,) = model.transform([black])
    np.testing.assert_array_equal(filled[~mask], black[~mask])
    assert (filled[mask] > 0).mean() > 0.9  # zeros are read as holes, and seldom filled with 0
    real = [image.astype(np.float32) for image in CLEAN]
    floating = Restorer(max_steps=2, **SMALL).fit(real)
    holes = np.where(mask, np.nan, clean).astype(np.float32)
    (filled,) = floating.transform([holes])
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled, floating.transform([clean.astype(np.float32)], mask=[mask])[0])
    assert by_mask.shape == filled.shape


def test_of_a_pixel_that_lacks_one_channel_the_others_stay():
    rng = np.random.default_rng(0)
    images = rng.random((4, 3, 40, 40)).astype(np.float32)
    model = Restorer(max_steps=2, **SMALL).fit(images)
    holes = images[:1].copy()
    holes[0, 1, 5:9, 5:9] = np.nan
    filled = model.transform(holes)
    assert isinstance(filled, np.ndarray)
    assert np.isfinite(filled).all()
    there = np.isfinite(holes)
    np.testing.assert_array_equal(filled[there], holes[there])


def test_without_a_mask_what_is_found_is_filled(fitted, monkeypatch):
    clean, mask = scene(100, 100, 97), lines((100, 100), 3)
    damaged = np.where(mask, 255, np.minimum(clean, 200)).astype(np.uint8)
    (found,) = fitted.find_damage([damaged])
    assert found.dtype == bool
    assert found.shape == mask.shape
    # a network that knows what white is
    monkeypatch.setattr(fitted.module_.finder, "forward", lambda x: 100 * (x - 0.9))
    (found,) = fitted.find_damage([damaged])
    np.testing.assert_array_equal(found, binary_dilation(mask, np.ones((3, 3))))
    (restored,) = fitted.transform([damaged])
    np.testing.assert_array_equal(restored, fitted.transform([damaged], mask=[found])[0])
    assert error(clean, restored, mask) < 0.3 * error(clean, damaged, mask)
    stack = fitted.find_damage(np.stack([damaged, damaged]))
    np.testing.assert_array_equal(stack, np.stack([found, found]))


def test_what_is_likely_counts_where_it_touches_what_is_sure(fitted, monkeypatch):
    odds = torch.full((1, 1, 40, 40), -9.0)
    odds[..., 5, 3:30] = -1.0  # a line, of which a part is plain to see
    odds[..., 5, 20] = 3.0
    odds[..., 30, 3:30] = -1.0  # and one that may be part of the picture
    monkeypatch.setattr(fitted.module_.finder, "forward", lambda x: odds.expand(len(x), -1, -1, -1))
    (found,) = fitted.find_damage([np.zeros((40, 40), np.uint8)])
    assert found[5, 3:30].all()
    assert not found[8:].any()


def test_the_finder_learns_what_damage_looks_like():
    torch.manual_seed(0)
    net = DilatedCNN(1, 1, 8)
    x = torch.full((8, 1, 32, 32), 0.5)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(150):
        damaged, covered = cover(x, {"scratches": (0.1, 0.2)})
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(damaged), (covered > 0).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2  # on grey; what 15 % of pixels tell nothing about is 0.42
    reached = torch.zeros(1, 1, 65, 65, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(reached)[0, 0, 32, 32], reached)
    assert int(gradient[0, 0].abs().sum(dim=0).nonzero().min()) >= 32 - net.reach


def test_tiles_have_no_seams(fitted, monkeypatch):
    image, mask = scene(203, 251, 5), lines((203, 251))
    mask[20:120, 30:150] = True  # more than a tile
    whole = fitted.transform([image], mask=[mask])[0]
    found = fitted.find_damage([image])[0]
    monkeypatch.setattr(restoring, "TILE", 64)
    monkeypatch.setattr(picture_models, "TILE", 64)
    # convolutions of other sizes add in another order: a value near a half may be rounded to either side
    assert np.abs(fitted.transform([image], mask=[mask])[0].astype(int) - whole).max() <= 1
    assert (fitted.find_damage([image])[0] != found).mean() < 1e-3


def test_images_with_holes_can_be_learned_from(small_training):
    rng = np.random.default_rng(0)
    masks = [rng.random(image.shape) < 0.3 for image in CLEAN]
    spoilt = [np.where(m, 0, image).astype(np.uint8) for m, image in zip(masks, CLEAN, strict=True)]
    other = [np.where(m, 255, image).astype(np.uint8) for m, image in zip(masks, CLEAN, strict=True)]
    a, b = (Restorer(max_steps=4, **SMALL).fit(images, mask=masks) for images in (spoilt, other))
    for p, q in zip(a.module_.parameters(), b.module_.parameters(), strict=True):
        assert torch.equal(p, q)  # what holes have makes no difference
    full = [a.transform([image], mask=[m])[0] for image, m in zip(spoilt, masks, strict=True)]
    assert error(full[0], CLEAN[0], masks[0]) < 0.2 * CLEAN[0].var()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((40, 33), np.uint16), ((40, 33, 3), np.uint8), ((3, 17, 33), np.float32), ((41, 30), np.float64), ((9, 9), bool)],
)
def test_every_layout_and_type_comes_back(shape, dtype, small_training):
    rng = np.random.default_rng(0)
    top = 1 if np.dtype(dtype).kind in "fb" else np.iinfo(dtype).max
    images = [(rng.random(shape) * top).round().astype(dtype) for _ in range(3)]
    size = shape[1:] if shape[0] == 3 else shape[:2]
    mask = rng.random((3, *size)) < 0.2
    learned = Restorer(max_steps=2, **SMALL).fit(images)
    for given in (
        images,
        np.stack(images),
        [torch.from_numpy(i.astype(np.float32) if dtype == np.uint16 else i) for i in images],
    ):
        back = learned.transform(given, mask=mask)
        assert type(back) is type(given)
        assert all(b.shape == tuple(g.shape) and b.dtype == g.dtype for b, g in zip(back, given, strict=True))
    untouched = learned.transform(images, mask=np.zeros((3, *size)))
    for image, same in zip(images, untouched, strict=True):
        np.testing.assert_array_equal(image, same)
        assert same is not image


def test_saved_and_loaded_and_the_same_again(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    image, mask = scene(60, 60, 3), lines((60, 60))
    for how in ({"mask": [mask]}, {}):
        np.testing.assert_array_equal(again.transform([image], **how)[0], fitted.transform([image], **how)[0])
    assert again.holes == fitted.holes


def test_a_first_guess_is_exact_where_it_can_be():
    # a plane of one value has only one smooth continuation; known pixels stay
    x = torch.full((1, 1, 37, 50), 0.3)
    seen = (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    torch.testing.assert_close(membrane(x * seen, seen), x)
    y = torch.rand(2, 3, 37, 50)
    some = torch.zeros(2, 1, 37, 50)
    some[:, :, 10:20] = 1
    guess = membrane(y * some, some)
    assert torch.equal(guess[:, :, 10:20], y[:, :, 10:20])
    assert float(guess.min()) >= float(y[:, :, 10:20].min())
    assert float(guess.max()) <= float(y[:, :, 10:20].max())
    assert not membrane(y * 0, some * 0).any()
    mean, there = halved(y[..., :36, :], torch.ones(2, 1, 36, 50))
    torch.testing.assert_close(mean, torch.nn.functional.avg_pool2d(y[..., :36, :], 2))
    assert bool(there.all())


def test_tables_and_series_with_the_same_call():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6))
    hidden = rng.random(X.shape) < 0.1
    holes = np.where(hidden, np.nan, X)
    model = Restorer(Imputer(Autoencoder(2, max_epochs=20)), random_state=0).fit(holes)
    full = model.transform(holes)
    np.testing.assert_array_equal(full[~hidden], X[~hidden])
    assert np.square(full - X)[hidden].mean() < 0.5 * X.var()
    frame = pl.DataFrame(holes)
    assert model.fit(frame).transform(frame).columns == frame.columns
    with pytest.raises(ValueError, match="a mask is for images"):
        model.transform(frame, mask=hidden)


def test_bad_input(fitted):
    image = CLEAN[0]
    mask = np.zeros(image.shape, dtype=bool)
    for call, message in (
        (lambda: fitted.transform([image], mask=[mask, mask]), r"a mask for each of 1 image\(s\), got 2"),
        (lambda: fitted.transform([image], mask=[mask[:-1]]), "mask 0 has shape"),
        (lambda: fitted.transform([image], mask=[mask.T]), "mask 0 has shape"),
        (lambda: fitted.transform([image], mask=[mask | True]), "image 0 has no pixel that is known"),
        (lambda: fitted.transform([np.zeros((9, 9, 3), np.uint8)]), r"3 channel\(s\), expected 1"),
        (lambda: fitted.transform(image), "A single image is a list of one"),
        (lambda: fitted.find_damage([np.full((20, 20), np.nan)]), "missing or infinite"),
        (lambda: fitted.transform([np.full((20, 20), np.inf)], mask=[np.ones((20, 20))]), "missing or infinite"),
        (lambda: Restorer().fit([np.full((20, 20), np.nan)]), "image 0 has no pixel that is known"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for parameters, message in (
        ({"holes": "lines"}, "expected"),
        ({"holes": ("blocks", "dust"), "share": 0.2}, "is for one kind of 2"),
        ({"share": {"blocks": 2.0}}, "share of pixels from 0 to 0.9"),
    ):
        with pytest.raises(ParameterError, match=message):
            Restorer(**parameters).fit(CLEAN)


# the command line ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch, small_training):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    for name in ("clean", "torn", "masks"):
        (tmp_path / name).mkdir()
    for i, pixels in enumerate(CLEAN[:3]):
        image.fromarray(pixels).save(f"clean/{i}.png")
    mask = lines((50, 70), 1)
    for name, shape in (("grey", (50, 70)), ("colour", (50, 70, 3))):
        pixels = np.broadcast_to(scene(50, 70, 7).reshape(50, 70, *[1] * (len(shape) - 2)), shape).copy()
        pixels[mask] = 0
        image.fromarray(pixels).save(f"torn/{name}.png")
        image.fromarray((mask * 255).astype(np.uint8)).save(f"masks/{name}.png")

    def opened(path):
        with image.open(path) as file:
            return np.array(file)

    return mask, opened


def test_files_are_restored(folder, capsys):
    mask, opened = folder
    few = ["--steps", "2", "--seed", "0", "--quiet"]
    for source, mask_file in (("torn/grey.png", "masks/grey.png"), ("torn/colour.png", "masks/colour.png")):
        assert main(["restore", source, "-o", "out.png", "--mask", mask_file, *few]) == 0
        filled, given = opened("out.png"), opened(source)
        assert filled.shape == given.shape
        np.testing.assert_array_equal(filled[~mask], given[~mask])
        assert (filled[mask] > 0).mean() > 0.9
    assert main(["restore", "torn/grey.png", "-o", "out.png", "--clean", "clean", "--save", "m", *few]) == 0
    (Path("torn") / "broken.png").write_bytes(b"no image")
    given = ["restore", "m", "torn", "-o", "whole", "--mask", "masks", "--report", "page.html"]
    assert main(given) == 1
    said = capsys.readouterr().err
    assert "broken.png cannot be read as an image" in said
    assert "restored 2 image(s); 1 could not be read" in said
    np.testing.assert_array_equal(opened("whole/colour.png")[~mask], opened("torn/colour.png")[~mask])
    page = Path("page.html").read_text()
    assert "2 images restored" in page
    assert "of them filled" in page
    assert main(["restore", "m", "torn/colour.png", "-o", "found.png", "--quiet"]) == 0
    assert main(["restore", "m", "torn/grey.png", "-o", "black.png", "--missing-value", "0", "--quiet"]) == 0
    there = opened("torn/grey.png") > 0
    np.testing.assert_array_equal(opened("black.png")[there], opened("torn/grey.png")[there])


def test_files_that_do_not_fit(folder, capsys):
    for arguments, code, message in (
        (["torn/grey.png"], 2, "name the holes with --mask or --missing-value, or --clean images"),
        (["torn/grey.png", "--mask", "masks"], 2, "a folder of masks for a folder"),
        (["torn/grey.png", "--mask", "masks/grey.png", "--missing-value", "0"], 2, "say the same"),
        (
            ["torn/grey.png", "--mask", "clean/0.png"],
            1,
            "the mask of torn/grey.png has 110 x 90 pixels, the image 70 x 50",
        ),
        (["torn/gone.png"], 1, "no such file"),
    ):
        assert main(["restore", *arguments, "-o", "out.png", "--quiet"]) == code
        assert message in capsys.readouterr().err
    assert main(["denoise", "torn/grey.png", "-o", "x.png", "--learn", "--steps", "1", "--save", "d", "--quiet"]) == 0
    assert main(["restore", "d", "torn/grey.png", "-o", "x.png"]) == 2
    assert "holds no Restorer of images" in capsys.readouterr().err
