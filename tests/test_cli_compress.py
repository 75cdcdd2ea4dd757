"""`diabolo compress` and `diabolo decompress`: files, folders, a model of one's own, what goes wrong."""

import numpy as np
import pytest

import diabolo
from diabolo.cli.app import main
from diabolo.metrics import psnr
from diabolo.pretrained import photo_compressor

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("constriction")


@pytest.fixture(scope="module")
def photo():
    from sklearn.datasets import load_sample_image

    return load_sample_image("flower.jpg")[100:260, 200:420]


def test_a_photograph_goes_to_a_file_and_comes_back(photo, tmp_path, capsys):
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(photo).save(tmp_path / "a.jpg", quality=30, optimize=True)
    rate = (tmp_path / "a.jpg").stat().st_size * 8 / photo[..., 0].size
    words = ["compress", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.dbl"), "--bits-per-pixel", f"{rate}"]
    assert main(words) == 0
    assert "bits per pixel" in capsys.readouterr().err
    assert main(["decompress", str(tmp_path / "a.dbl"), "-o", str(tmp_path / "b.png"), "--quiet"]) == 0
    back = np.asarray(Image.open(tmp_path / "b.png"))
    jpeg = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert (tmp_path / "a.dbl").stat().st_size < (tmp_path / "a.jpg").stat().st_size + 50  # heading and end
    assert psnr(photo, back, 255) > psnr(photo, jpeg, 255)


def test_a_folder_with_a_file_that_is_no_image(photo, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(photo).save(source / "colour.png")
    Image.fromarray(photo[..., 0]).save(source / "grey.png")
    (source / "bad.png").write_bytes(b"no image")
    (source / "about.csv").write_text("name,place\ncolour,here\n")  # beside images it is none of them
    assert main(["compress", str(source), "-o", str(tmp_path / "out"), "--bits-per-pixel", "0.5"]) == 1
    said = capsys.readouterr().err
    assert "bad.png cannot be read" in said
    assert "2 image(s)" in said
    assert main(["decompress", str(tmp_path / "out"), "-o", str(tmp_path / "back")]) == 0
    assert np.asarray(Image.open(tmp_path / "back" / "grey.png")).shape == photo.shape[:2]
    assert np.asarray(Image.open(tmp_path / "back" / "colour.png")).shape == photo.shape


def test_a_compressor_of_ones_own(photo, tmp_path, capsys):
    source = tmp_path / "photos"
    source.mkdir()
    for i in range(2):
        Image.fromarray(photo[i:]).save(source / f"{i}.png")
    model, file, out = tmp_path / "model", tmp_path / "a.dbl", tmp_path / "a.png"
    learn = ["--learn-from", str(source), "--save", str(model), "--steps", "1", "--seed", "0", "--quiet"]
    assert main(["compress", str(source / "0.png"), "-o", str(file), *learn]) == 0
    assert main(["decompress", str(file), "-o", str(out), "--model", str(model)]) == 0
    assert main(["decompress", str(file), "-o", str(out)]) == 1
    said = capsys.readouterr().err
    assert diabolo.load(model).fingerprint_ in said
    assert photo_compressor().fingerprint_ in said


def test_what_goes_wrong(photo, tmp_path, capsys):
    clear = np.dstack([photo, np.full(photo.shape[:2], 9, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(photo).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    a, out = str(tmp_path / "a.png"), ["-o", str(tmp_path / "x.dbl")]
    for words, said in (
        (["compress", str(tmp_path / "clear.png"), *out], "partly transparent"),
        (["compress", a, *out, "--quality", "101"], "from 0 to 100"),
        (["compress", a, *out, "--learn-from", str(tmp_path)], "go together"),
        (["decompress", a, *out], "no file that a Compressor wrote"),
        (["decompress", str(tmp_path / "none"), *out], "no such file"),
        (["decompress", str(tmp_path / "empty"), *out], "no compressed file"),
    ):
        assert main(words) != 0
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x.dbl").exists()
