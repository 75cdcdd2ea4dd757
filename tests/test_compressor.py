"""Images in real files: the same pixels anywhere, the estimated size, tiles, rates, damaged files, odd input."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch

import diabolo
from diabolo import Compressor
from diabolo.checks import ParameterError
from diabolo.metrics import psnr
from diabolo.parts.entropy import SCALES, FactorisedDensity, at_least, counted, normal_bits, normal_tables
from diabolo.parts.exact import exactly
from diabolo.tasks import image_codes
from diabolo.tasks.container import HEAD, PIECE, CompressedFileError, ContainerReader, ContainerWriter, Varints, varint
from diabolo.tasks.image_transform import ANCHORS, ImageCodec
from diabolo.tasks.pictures import read_pictures
from diabolo.tasks.symbols import BEYOND, MalformedError, SymbolReader, SymbolWriter

pytest.importorskip("constriction")


def scene(height, width, seed, channels=3):
    """Smooth colours with an edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [
        120 + 60 * np.sin(x / rng.uniform(8, 30) + y / rng.uniform(8, 30)) + 50 * (x > y + rng.integers(-40, 40))
        for _ in range(channels)
    ]
    return np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)


TRAINING = [scene(150, 170, i) for i in range(4)]


@pytest.fixture(scope="module")
def fitted():
    return Compressor(patches=64, max_steps=8, batch_size=8, device="cpu", precision="float32", random_state=0).fit(
        TRAINING
    )


# numbers ----------------------------------------------------------------------------------------------------------------------


def test_tables_are_distributions_close_to_the_normal_one():
    for scale, counts in zip(np.geomspace(0.11, 96, SCALES), normal_tables(), strict=True):
        assert counts.sum() == 2**16
        assert counts.min() >= 1
        k = len(counts) // 2 - 1
        numbers = np.arange(-k, k + 1)
        if scale > 1:  # below, few numbers are left of it; each count, also of the tails, is 1 of 65,536 too large
            assert np.sqrt((counts[:-1] * numbers**2).sum() / 2**16) == pytest.approx(
                np.sqrt(scale**2 + 1 / 12), rel=0.05
            )


def test_bits_of_a_normal_distribution_are_those_of_its_table():
    numbers = torch.arange(-3.0, 4.0)
    for index in (20, 40):
        counts = normal_tables()[index]
        k = len(counts) // 2 - 1
        wanted = -np.log2(counts[k - 3 : k + 4] / 2**16)
        bits = normal_bits(numbers, torch.zeros(()), torch.tensor(index)).numpy()
        rare = wanted > 10  # there a count of 1 more is a sizeable share
        np.testing.assert_allclose(bits[~rare], wanted[~rare], atol=0.05)


def test_counts_are_in_proportion():
    counts = counted(np.array([0.5, 0.25, 0.25, 0.0]))
    assert counts.sum() == 2**16
    np.testing.assert_allclose(counts / 2**16, [0.5, 0.25, 0.25, 0.0], atol=1e-4)  # of 65,536 none is 0


def test_a_learned_density_sums_to_one_and_its_bits_are_its_tables():
    torch.manual_seed(0)
    density = FactorisedDensity(3)
    with torch.no_grad():
        z = torch.arange(-200.0, 201.0)[None, None].expand(1, 3, -1)
        mass = torch.exp2(-density.bits(z))
        np.testing.assert_allclose(mass.sum(dim=2), 1, atol=1e-3)  # its tails end within 200
    for c, (first, counts) in enumerate(density.tables()):
        i = int(np.argmax(counts[:-1]))
        assert counts[i] / 2**16 == pytest.approx(float(mass[0, c, first + i + 200]), rel=0.02)


def test_a_bound_passes_gradients_that_lead_back():
    x = torch.tensor([-1.0, -1.0, 2.0], requires_grad=True)
    at_least(x, 0.0).backward(torch.tensor([1.0, -1.0, 1.0]))
    assert x.grad.tolist() == [0.0, -1.0, 1.0]


def test_exact_networks_do_not_depend_on_the_order_of_sums():
    torch.manual_seed(0)
    told = ImageCodec(3, width=8, codes=16, summary=8, blocks=1).teller.about
    for p in told.parameters():
        torch.nn.init.normal_(p, std=0.1)
    twin = exactly(told)
    z = torch.randint(-20, 20, (2, 8, 4, 4)).double()
    with torch.inference_mode():
        one, both = twin(z[:1]), twin(z)
        order = torch.randperm(8)
        shuffled = exactly(told)
        first = shuffled[0].map
        first.weight.copy_(first.weight[:, order])  # the same terms in another order
        again = shuffled(z[:, order])
        close = told(z.float())
    assert torch.equal(one, both[:1])
    assert torch.equal(again, both)
    # weights and steps are rounded to a 4096th
    torch.testing.assert_close(both.float(), close, atol=0.05, rtol=0.02)


def test_symbols_come_back_and_cost_what_the_table_says():
    rng = np.random.default_rng(0)
    counts = counted(np.array([0.2, 0.5, 0.2, 0.1]))  # of -1, 0, 1 and others
    numbers = rng.choice([-1, 0, 1], 5000, p=[0.2, 0.6, 0.2])
    numbers[:3] = [7, -BEYOND, BEYOND - 1]
    each = rng.integers(1, 50, (300, 6))
    symbols = np.array([rng.choice(6, p=row / row.sum()) for row in each])
    writer = SymbolWriter()
    writer.put(numbers, -1, counts)
    writer.put_each(symbols, each)
    data = writer.bytes()
    reader = SymbolReader(data)
    np.testing.assert_array_equal(reader.get(5000, -1, counts), numbers)
    np.testing.assert_array_equal(reader.get_each(each), symbols)
    bits = -np.log2(counts[np.where(np.abs(numbers) <= 1, numbers + 1, 3)] / 2**16).sum() + 3 * 24
    bits -= np.log2(each[np.arange(300), symbols] / each.sum(axis=1)).sum()
    assert len(data) * 8 == pytest.approx(bits, abs=64)  # up to the last word


def test_numbers_of_variable_length():
    values = [0, 1, 127, 128, 300, 2**40]
    numbers = Varints(varint(*values) + b"rest")
    assert [numbers.next() for _ in values] == values
    assert numbers.rest == b"rest"
    with pytest.raises(ValueError, match="cut short"):
        Varints(b"\x80").next()


# files ------------------------------------------------------------------------------------------------------------------------


def test_images_come_back_alike_and_finer_costs_more(fitted, tmp_path):
    image = scene(130, 90, 50)
    sizes, errors = [], []
    for quality in (0, 50, 100):
        path = tmp_path / f"{quality}.dbl"
        sizes.append(fitted.compress([image], path, quality=quality))
        assert sizes[-1] == path.stat().st_size
        (back,) = fitted.decompress(path)
        assert back.shape == image.shape
        assert back.dtype == np.uint8
        errors.append(psnr(image, back, 255))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors)
    assert errors[-1] > 30  # the start at principal components alone does that


def test_a_file_is_as_long_as_estimated(fitted, tmp_path):
    picture = read_pictures([scene(400, 400, 51)])[0]
    rates = []

    def choose(rate):
        rates.append(rate(80))
        return 80

    data = b"".join(fitted._coder().pieces(picture, choose, torch.device("cpu")))
    # a heading and the last word more; the coder rounds shares to 24 bits
    assert len(data) * 8 == pytest.approx(rates[0] * 400 * 400, rel=0.001, abs=100)


def test_another_process_with_another_number_of_threads_reads_the_same_pixels(fitted, tmp_path):
    image = scene(100, 120, 52)
    fitted.save(tmp_path / "model")
    fitted.compress([image], tmp_path / "a.dbl", quality=70)
    (here,) = fitted.decompress(tmp_path / "a.dbl")
    code = (
        "import sys, numpy as np, torch, diabolo; torch.set_num_threads(int(sys.argv[2]));"
        "m = diabolo.load(sys.argv[1] + '/model');"
        "np.save(sys.argv[1] + '/back.npy', m.decompress(sys.argv[1] + '/a.dbl')[0])"
    )
    for threads in ("1", "2"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path), threads], check=True, env=os.environ, timeout=120)
        np.testing.assert_array_equal(np.load(tmp_path / "back.npy"), here)


def test_saved_and_loaded_it_is_the_same_model(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    again = diabolo.load(tmp_path / "model")
    assert again.fingerprint_ == fitted.fingerprint_
    image = scene(64, 64, 53)
    for model in (fitted, again):
        model.compress([image], tmp_path / f"{id(model)}.dbl")
    assert (tmp_path / f"{id(fitted)}.dbl").read_bytes() == (tmp_path / f"{id(again)}.dbl").read_bytes()


def test_tiles_have_no_seams(fitted, tmp_path, monkeypatch):
    image = scene(300, 420, 54)
    found = []
    for side in (1024, 128):
        monkeypatch.setattr(image_codes, "TILE", side)
        fitted.compress([image], tmp_path / "a.dbl", quality=60)
        found.append(fitted.decompress(tmp_path / "a.dbl")[0].astype(int))
    # what is told of a tile knows less of its border, so that numbers there may be rounded otherwise
    assert psnr(found[0], found[1], 255) > 45


def test_a_part_is_the_same_pixels_from_the_tiles_around_it(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(image_codes, "TILE", 128)
    image, path = scene(500, 620, 54), tmp_path / "a.dbl"
    fitted.compress([image], path, quality=60)
    (whole,) = fitted.decompress(path)
    read, old = [], image_codes.ImageCoder._read
    monkeypatch.setattr(image_codes.ImageCoder, "_read", lambda *args: read.append(args[3:]) or old(*args))
    for region in (
        (slice(0, 100), slice(0, 100)),
        (slice(130, 131), slice(300, 310)),
        (slice(100, 300), slice(500, 620)),
        (slice(-40, None), slice(None)),
        (slice(None), slice(None)),
    ):
        np.testing.assert_array_equal(fitted.decompress(path, region=region), whole[region])
    read.clear()
    fitted.decompress(path, items=0, region=(slice(0, 50), slice(0, 50)))
    assert sorted(read) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for region in ((slice(3, 3), slice(None)), (slice(0, 9, 2), slice(None)), (slice(600, 700), slice(None))):
        with pytest.raises(ValueError, match="expected slices of its rows and columns"):
            fitted.decompress(path, region=region)
    fitted.compress([image, image], path)
    with pytest.raises(ValueError, match="holds 2; name it: items=0"):
        fitted.decompress(path, region=(slice(0, 9), slice(0, 9)))


def test_stacks_layouts_and_types(fitted, tmp_path):
    stack = np.stack([scene(40, 50, i) for i in range(3)])
    fitted.compress(stack, tmp_path / "a.dbl")
    back = fitted.decompress(tmp_path / "a.dbl")
    assert back.shape == stack.shape
    first = np.ascontiguousarray(stack.transpose(0, 3, 1, 2))
    fitted.compress(first, tmp_path / "b.dbl")
    np.testing.assert_array_equal(fitted.decompress(tmp_path / "b.dbl"), back.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(fitted.decompress(tmp_path / "a.dbl", items=1), back[1])
    assert len(fitted.decompress(tmp_path / "a.dbl", items=slice(1, None))) == 2
    deep = (stack[0].astype(np.uint16) << 8) | 128
    fitted.compress([deep], tmp_path / "c.dbl")
    (deep_back,) = fitted.decompress(tmp_path / "c.dbl")
    assert deep_back.dtype == np.uint16
    assert psnr(deep, deep_back, 65535) == pytest.approx(psnr(stack[0], back[0], 255), abs=1)
    with pytest.raises(IndexError, match=r"holds 3 image\(s\)"):
        fitted.decompress(tmp_path / "a.dbl", items=3)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (65, 64)])
def test_any_size(fitted, tmp_path, shape):
    image = scene(*shape, 55)
    fitted.compress(iter([image, image]), tmp_path / "a.dbl", quality=90)
    back = fitted.decompress(tmp_path / "a.dbl")
    assert [b.shape for b in back] == [image.shape] * 2
    if shape == (1, 1):
        assert back[0].shape == (1, 1, 3)


def test_grey_images_of_floats(tmp_path):
    images = [scene(80, 80, i, 1)[..., 0] / 10.0 - 3 for i in range(3)]
    model = Compressor(patches=16, max_steps=2, batch_size=8, device="cpu", random_state=0).fit(images)
    model.compress(images, tmp_path / "a.dbl", quality=100)
    back = model.decompress(tmp_path / "a.dbl")
    assert back[0].dtype == np.float64
    assert psnr(images[0], back[0], 25.5) > 30


def test_a_grey_image_goes_to_a_model_of_colours(fitted, tmp_path):
    image = scene(70, 80, 57)[..., 0]
    fitted.compress([image], tmp_path / "a.dbl", quality=100)
    (back,) = fitted.decompress(tmp_path / "a.dbl")
    assert back.shape == image.shape
    assert psnr(image, back, 255) > 30


def test_bits_per_pixel(fitted, tmp_path):
    image = scene(200, 200, 56)
    sizes = [fitted.compress([image], tmp_path / "a.dbl", quality=q) for q in (10, 90)]
    wanted = sum(sizes) / 2 * 8 / 200**2
    size = fitted.compress([image], tmp_path / "a.dbl", bits_per_pixel=wanted)
    assert 0.9 * wanted < size * 8 / 200**2 < wanted * 1.01 + 320 / 200**2  # of 101 qualities the next is too much


def test_an_interrupted_file_is_not_there(fitted, tmp_path):
    path = tmp_path / "a.dbl"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="image 1 has"):
        fitted.compress([scene(40, 40, 0), scene(40, 40, 0, 4)], path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


# damage -----------------------------------------------------------------------------------------------------------------------


def test_a_file_of_another_model_names_both(fitted, tmp_path):
    other = Compressor(patches=16, max_steps=1, batch_size=8, device="cpu", random_state=1).fit(TRAINING[:2])
    fitted.compress(TRAINING[:1], tmp_path / "a.dbl")
    with pytest.raises(CompressedFileError, match=f"{fitted.fingerprint_}.*{other.fingerprint_}"):
        other.decompress(tmp_path / "a.dbl")


def test_damaged_files_are_refused(fitted, tmp_path):
    path, bad = tmp_path / "a.dbl", tmp_path / "bad.dbl"
    fitted.compress([scene(60, 60, i) for i in range(2)], path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        kind = rng.integers(3)
        if kind == 0:
            broken = broken[: rng.integers(len(data))]
        elif kind == 1:
            place = int(rng.integers(len(data)))
            broken[place] ^= 1 << int(rng.integers(8))
        else:
            broken = bytearray(rng.bytes(int(rng.integers(1, 200))))
        bad.write_bytes(bytes(broken))
        with pytest.raises(CompressedFileError):
            fitted.decompress(bad)


def test_bytes_that_match_their_checksum_but_no_writer_made(fitted, tmp_path):
    """Whatever stands in the pieces, an image or a clear error comes out."""
    rng = np.random.default_rng(1)
    fingerprint = fitted._coder().fingerprint
    for _ in range(40):
        with ContainerWriter(tmp_path / "a.dbl", 2, fingerprint) as file:
            for _ in range(int(rng.integers(1, 4))):
                head = varint(*(int(v) for v in rng.integers(0, 200, 2))) + bytes(rng.integers(0, 255, 2).tolist())
                file.write(head + rng.bytes(4 * int(rng.integers(0, 30))))
        try:
            images = fitted.decompress(tmp_path / "a.dbl")
        except CompressedFileError:
            continue
        assert all(image.ndim in (2, 3) for image in images)


def test_a_declared_size_is_checked_before_memory_is_taken(fitted, tmp_path):
    with ContainerWriter(tmp_path / "a.dbl", 2, fitted._coder().fingerprint) as file:
        file.write(varint(2**31, 2**31) + bytes([50, 2]))
    with pytest.raises(CompressedFileError, match="declares 2147483648 x 2147483648 pixels"):
        fitted.decompress(tmp_path / "a.dbl")
    with ContainerWriter(tmp_path / "a.dbl", 2, fitted._coder().fingerprint) as file:
        file.write(varint(30_000, 30_000) + bytes([50, 2]))
    with pytest.raises(CompressedFileError, match="pieces of an image are missing"):
        fitted.decompress(tmp_path / "a.dbl")


def test_a_newer_format_and_foreign_files(tmp_path):
    path = tmp_path / "a.dbl"
    path.write_bytes(HEAD.pack(b"\x89DBL", 9, 2, bytes(8)))
    with pytest.raises(CompressedFileError, match="version 9"):
        ContainerReader(path)
    path.write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(CompressedFileError, match="no file that a Compressor wrote"):
        ContainerReader(path)
    path.write_bytes(HEAD.pack(b"\x89DBL", 1, 2, bytes(8)) + PIECE.pack(0, zlib.crc32(b"", 5)) + struct.pack("<I", 0))
    with pytest.raises(CompressedFileError, match="damaged"):
        ContainerReader(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"quality": 101}, "from 0 to 100"), ({"quality": 1.5}, "whole number"), ({"bits_per_pixel": 0}, "above 0")],
)
def test_impossible_rates(fitted, tmp_path, options, said):
    with pytest.raises(ParameterError, match=said):
        fitted.compress(TRAINING, tmp_path / "a.dbl", **options)


def test_what_is_no_image(fitted, tmp_path):
    with pytest.raises(ValueError, match="expected a stack of images"):
        Compressor().fit(np.zeros(5))
    with pytest.raises(ValueError, match="expected images"):
        fitted.compress("photo.png", tmp_path / "a.dbl")
    with pytest.raises(MalformedError):
        SymbolReader(b"123")


def test_levels_of_quality_join(fitted):
    gain, _ = fitted.module_.gains(torch.tensor([0.0, 1.0, ANCHORS - 1.0]))
    expected = fitted.module_.gain[[0, 1, ANCHORS - 1]].exp()
    torch.testing.assert_close(gain[:, :, 0, 0], expected)
