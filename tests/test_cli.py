"""The command line: what a user types, and what comes back."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

import diabolo
import diabolo.cli.data
import diabolo.zoo  # registers the models
from diabolo import datasets
from diabolo.checks import parameter_fields
from diabolo.cli import main
from diabolo.cli.catalog import cards, find_card
from diabolo.cli.data import read_data
from diabolo.cli.fit import _summary
from diabolo.cli.flags import offered, parse
from diabolo.cli.tables import read_csv
from diabolo.declare import REGISTRY
from diabolo.estimator import BaseAutoencoder

NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
QUICK = ["--max-epochs", "2", "--hidden", "8", "--latent-dim", "2", "--seed", "0", "--quiet"]


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_output(text):
    rows = list(csv.reader(io.StringIO(text)))
    return rows[0], np.array(rows[1:], dtype=float)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with data files and fitted models."""
    folder = tmp_path_factory.mktemp("cli")
    iris = load_iris()
    write_csv(
        folder / "iris.csv",
        [*NAMES, "species"],
        [[*row, iris.target_names[t]] for row, t in zip(iris.data.tolist(), iris.target, strict=True)],
    )
    images = load_digits().images[:60]
    np.save(folder / "digits.npy", images)
    np.savez(folder / "digits.npz", images=images, target=load_digits().target[:60])
    iris_csv = str(folder / "iris.csv")
    for name, flags in (("vae", ["--model", "vae"]), ("detector", ["--detector", "--contamination", "0.1"])):
        assert main(["fit", iris_csv, "-o", str(folder / name), "--exclude", "species", *flags, *QUICK]) == 0
    assert main(["fit", str(folder / "digits.npy"), "-o", str(folder / "images"), *QUICK]) == 0
    return folder


@pytest.fixture
def run(home, capsys, monkeypatch):
    """Run a command in the folder; return exit code, standard output and standard error."""
    monkeypatch.chdir(home)

    def call(*tokens):
        code = main([str(t) for t in tokens])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def shell(*tokens, env=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "diabolo", *tokens],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
        **options,
    )


# the catalogue ----------------------------------------------------------------------------------------------------------


def test_catalogue_equals_the_registry():
    registered = {name for name, cls in REGISTRY.items() if issubclass(cls, BaseAutoencoder)}
    assert set(cards()) == registered
    base = {f.name for f in parameter_fields(BaseAutoencoder)}
    for name, card in cards().items():
        there = parameter_fields(REGISTRY[name])
        assert [(f.name, f.kind, f.constraints, f.doc, f.default) for f in card.fields] == [
            (f.name, f.kind, f.constraints, f.doc, f.default) for f in there
        ]
        assert card.own == {f.name for f in there} - base
        assert card.summary == " ".join(REGISTRY[name].__doc__.split("\n\n")[0].split()).replace("``", "")


def test_every_flag_reaches_its_parameter():
    for card in cards().values():
        model = REGISTRY[card.name]()
        for f in offered(card):
            text = ",".join(map(str, f.default)) or "none" if isinstance(f.default, tuple) else str(f.default)
            assert parse(text, f.hint) == getattr(model, f.name), (card.name, f.name)


def test_model_names():
    assert find_card("beta-vae") is find_card("BetaVAE") is find_card("beta_vae") is cards()["BetaVAE"]
    assert cards()["BetaVAE"].command == "beta-vae"
    assert cards()["DenoisingAutoencoder"].command == "denoising-autoencoder"
    assert cards()["JumpReLUAutoencoder"].command == "jump-relu-autoencoder"
    assert next(iter(cards())) == "Autoencoder"


@pytest.mark.parametrize(
    ("text", "value"), [("128,64", (128, 64)), ("", ()), ("none", ()), ("()", ()), ("auto", "auto"), ("8,x", "8,x")]
)
def test_tuple_flags(text, value):
    hint = next(f.hint for f in cards()["Autoencoder"].fields if f.name == "hidden")
    assert parse(text, hint) == value


# start-up ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens", [["--help"], ["fit", "--help"], ["fit", "--model", "beta-vae", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(tokens):
    code = (
        "import sys; from diabolo.cli import main; rc = main(sys.argv[1:]); "
        "heavy = {'torch', 'sklearn', 'numpy', 'pandas', 'polars', 'pyarrow', 'matplotlib', 'scipy', 'jinja2'}; "
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules)))); sys.exit(rc)"
    )
    done = subprocess.run([sys.executable, "-c", code, *tokens], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_help_of_a_model_lists_its_flags(capsys):
    assert main(["fit", "--model", "beta-vae", "--help"]) == 0
    text = capsys.readouterr().out
    assert all("--" + f.name.replace("_", "-") in text for f in offered(cards()["BetaVAE"]))
    assert "4.0" in text  # the default of beta
    assert "--callbacks" not in text
    assert main(["fit", "--help"]) == 0
    assert "--beta" not in capsys.readouterr().out


def test_no_arguments_and_version(capsys):
    assert main([]) == 0
    assert "anomalies" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == diabolo.__version__


def test_process_exit_codes_and_debug(tmp_path):
    wrong = shell("info", "missing.csv", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("error: missing.csv")
    assert "Traceback" not in wrong.stderr
    assert shell("fitt", cwd=tmp_path).returncode == 2
    assert "Traceback" in shell("info", "missing.csv", cwd=tmp_path, env={"DIABOLO_DEBUG": "1"}).stderr
    assert "Traceback" in shell("info", "missing.csv", "--debug", cwd=tmp_path).stderr


def test_a_reader_that_leaves_is_no_error(tmp_path):
    header = [f"column number {j}" for j in range(2000)]  # a JSON of more than a pipe holds
    write_csv(tmp_path / "wide.csv", header, [range(2000)])
    with subprocess.Popen(
        [sys.executable, "-m", "diabolo", "info", "wide.csv", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


# fit and use ------------------------------------------------------------------------------------------------------------


def test_embed_equals_the_api(run, home):
    code, out, err = run("embed", "vae", "iris.csv")
    assert code == 0
    header, codes = read_output(out)
    assert header == ["vae0", "vae1"]
    assert "left out columns that the model was not fitted on: species" in err
    frame = read_data(home / "iris.csv", exclude="species").for_fit()
    # written in the digits that give each number back
    np.testing.assert_array_equal(codes, diabolo.load(home / "vae").transform(frame))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npy", "npz"])
def test_output_formats_agree(run, home, suffix):
    code, out, _ = run("embed", "vae", "iris.csv", "-o", f"codes.{suffix}")
    assert (code, out) == (0, "")
    _, out, _ = run("embed", "vae", "iris.csv")
    _, expected = read_output(out)
    data = read_data(home / f"codes.{suffix}")
    assert data.named == (suffix in ("csv", "parquet"))
    np.testing.assert_array_equal(data.array if data.array is not None else data.for_fit().to_numpy(), expected)


def test_reconstruct_keeps_names(run):
    code, out, _ = run("reconstruct", "vae", "iris.csv")
    header, values = read_output(out)
    assert (code, header, values.shape) == (0, NAMES, (150, 4))
    run("reconstruct", "vae", "iris.csv", "-o", "rebuilt.csv")
    assert run("embed", "vae", "rebuilt.csv")[0] == 0


@pytest.mark.parametrize("library", ["polars", "pandas", "pyarrow", None])
def test_any_frame_library_will_do(run, home, monkeypatch, tmp_path, library):
    monkeypatch.setattr(diabolo.cli.data, "FRAMES", () if library is None else (library,))
    assert run("fit", "iris.csv", "-o", tmp_path / "m", "--exclude", "species", *QUICK)[0] == 0
    for _ in range(2):
        code, out, _ = run("reconstruct", tmp_path / "m", "iris.csv", "--exclude", "species")
        header, values = read_output(out)
        assert code == 0
        assert values.shape == (150, 4)
        assert header == (["x0", "x1", "x2", "x3"] if library is None else NAMES)
        monkeypatch.setattr(diabolo.cli.data, "FRAMES", ())  # another machine, without any


def test_score(run, home):
    code, out, _ = run("score", "vae", "iris.csv")
    header, table = read_output(out)
    assert (code, header) == (0, ["row", "score"])
    np.testing.assert_array_equal(table[:, 0], np.arange(150))
    run("score", "vae", "iris.csv", "-o", "scores.npy")
    np.testing.assert_array_equal(np.load(home / "scores.npy"), table[:, 1])


def test_sample(run):
    code, out, _ = run("sample", "vae", "-n", "5", "--seed", "0")
    header, rows = read_output(out)
    assert (code, header, rows.shape) == (0, NAMES, (5, 4))
    assert run("sample", "vae", "-n", "5", "--seed", "0")[1] == out
    assert run("sample", "vae", "-n", "5", "--seed", "0", "--noise")[1] != out
    code, _, err = run("sample", "images")
    assert code == 1
    assert "no prior" in err


def test_images(run, home):
    assert run("embed", "images", "digits.npy", "-o", "z.npy")[0] == 0
    assert np.load(home / "z.npy").shape == (60, 2)
    assert run("reconstruct", "images", "digits.npz", "--key", "images", "-o", "x.npz")[0] == 0
    assert np.load(home / "x.npz")["rows"].shape == (60, 8, 8)
    code, out, _ = run("reconstruct", "images", "digits.npy")
    header, values = read_output(out)
    assert (code, header[:2], header[-1], values.shape) == (0, ["pixel_0_0", "pixel_0_1"], "pixel_7_7", (60, 64))
    assert run("score", "images", "digits.npy")[0] == 0


def test_standard_input(run, home, monkeypatch):
    _, expected, _ = run("embed", "vae", "iris.csv")
    monkeypatch.setattr(sys, "stdin", io.StringIO((home / "iris.csv").read_text()))
    assert run("embed", "vae", "-")[:2] == (0, expected)


def test_parquet(run, home, monkeypatch, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = dict(zip(NAMES, load_iris().data.T, strict=True))
    rows = pa.table({**columns, "species": ["a"] * 150})
    pq.write_table(rows, tmp_path / "iris.parquet")
    assert run("embed", "vae", tmp_path / "iris.parquet")[1] == run("embed", "vae", "iris.csv")[1]
    monkeypatch.setattr(diabolo.cli.data.importlib.util, "find_spec", lambda name: None)
    code, _, err = run("embed", "vae", tmp_path / "iris.parquet")
    assert code == 1
    assert "pip install 'diabolo[arrow]'" in err


def test_parquet_into_a_folder(run, home, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = dict(zip(NAMES, load_iris().data.T, strict=True))
    rows = pa.table({**columns, "id": range(150)})
    (tmp_path / "rows").mkdir()
    for i in range(3):
        pq.write_table(rows.slice(50 * i, 50), tmp_path / "rows" / f"{i}.parquet")
    vae, detector = diabolo.load(home / "vae"), diabolo.load(home / "detector")
    X = load_iris().data
    expected = {
        "embed": vae.transform,
        "score": lambda X: vae.score_samples(X)[:, None],
        "reconstruct": vae.reconstruct,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows without names
        for command, method in expected.items():
            out = tmp_path / command
            for _ in range(2):  # the second call finds all done
                code, text, err = run(command, "vae", tmp_path / "rows", "-o", out, "--keep", "id", "--memory", "100MB")
                assert (code, text) == (0, "")
                assert f"wrote {out}" in err
            found = pq.read_table(out).to_pandas()
            assert list(found["id"]) == list(range(150))
            np.testing.assert_allclose(found.drop(columns="id"), method(X), rtol=1e-9)
        assert run("anomalies", "detector", tmp_path / "rows", "-o", tmp_path / "judged")[0] == 0
        found = pq.read_table(tmp_path / "judged").to_pandas()
        assert list(found.columns) == ["score", "anomaly"]
        assert (found["anomaly"] == (detector.predict(X) == -1)).all()
    code, _, err = run("score", "vae", tmp_path / "rows", "-o", tmp_path / "embed")
    assert code == 1
    assert "holds results of another run" in err
    for wrong, told in (
        (("score", "vae", "iris.csv", "-o", tmp_path / "new"), "is for Parquet files"),
        (("score", "vae", "iris.csv", "--keep", "id"), "--keep is for Parquet files that are written into a folder"),
        (("anomalies", tmp_path / "rows" / "0.parquet", "-o", tmp_path / "new"), "for a fitted detector"),
        (("anomalies", "vae", tmp_path / "rows", "-o", tmp_path / "new"), "needs an AnomalyDetector"),
    ):
        code, _, err = run(*wrong)
        assert code in (1, 2)
        assert told in err


def test_parameters_given_are_those_of_the_model(home):
    model = diabolo.load(home / "vae")
    assert (model.latent_dim, model.hidden, model.max_epochs, model.random_state) == (2, (8,), 2, 0)
    assert model.verbose == 0
    assert model.beta == diabolo.VAE().beta
    assert list(model.feature_names_in_) == NAMES


def test_progress_goes_to_standard_error(run, tmp_path):
    shown = [t for t in QUICK if t != "--quiet"]
    code, out, err = run("fit", "digits.npy", "-o", tmp_path / "m", *shown)
    assert (code, out) == (0, "")
    assert "epoch 2/2" in err
    assert "saved Autoencoder" in err
    assert run("fit", "digits.npy", "-o", tmp_path / "n", *QUICK) == (0, "", "")


def test_interrupted_training_is_saved(run, tmp_path, monkeypatch):
    from diabolo.training.progress import Progress

    def interrupt(self, epoch, row):
        if epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "update", interrupt)
    code, _, _ = run("fit", "digits.npy", "-o", tmp_path / "m", *QUICK, "--max-epochs=9")[0:3]
    assert code == 2  # given twice
    code, _, _ = run("fit", "digits.npy", "-o", tmp_path / "m", "--max-epochs", "9", "--hidden", "8")
    assert code == 130
    model = diabolo.load(tmp_path / "m")
    assert (len(model.history_), model.history_.stop_reason) == (3, "interrupted")


def test_interrupted_before_the_first_epoch(run, tmp_path, monkeypatch):
    import diabolo.training.loop

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(diabolo.training.loop, "_run_epoch", interrupt)
    code, _, err = run("fit", "digits.npy", "-o", tmp_path / "m", *QUICK)
    assert code == 130
    assert "nothing is saved" in err
    assert not (tmp_path / "m").exists()


# anomalies --------------------------------------------------------------------------------------------------------------


def ranked(text):
    rows = list(csv.DictReader(io.StringIO(text)))
    scores = [float(r["score"]) for r in rows]
    assert scores == sorted(scores)
    assert sorted(int(r["row"]) for r in rows) == list(range(len(rows)))
    return rows


def test_anomalies_of_a_detector(run, home):
    code, out, err = run("anomalies", "detector", "iris.csv")
    rows = ranked(out)
    assert code == 0
    detector = diabolo.load(home / "detector")
    predicted = detector.predict(read_data(home / "iris.csv", exclude="species").for_fit())
    assert [int(r["anomaly"]) for r in rows] == [int(predicted[int(r["row"])] == -1) for r in rows]
    assert f"flagged {(predicted == -1).sum()} of 150" in err
    assert {r[f"feature_{j}"] for r in rows for j in (1, 2, 3)} <= set(NAMES)
    more = ranked(run("anomalies", "detector", "iris.csv", "--contamination", "0.5")[1])
    assert sum(int(r["anomaly"]) for r in more) > (predicted == -1).sum()


def test_anomalies_names_the_planted_cell(run, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1)) * np.array([1.0, 2.0, -1.0, 3.0]) + rng.normal(size=(300, 4)) * 0.1
    X[17, 2] += 8
    write_csv(tmp_path / "planted.csv", ["a", "b", "c", "d"], X)
    code, out, err = run(
        "anomalies", tmp_path / "planted.csv", "--latent-dim", 1, "--max-epochs", 60, "--seed", 0, "--quiet"
    )
    worst = ranked(out)[0]
    assert (code, worst["row"], worst["anomaly"], worst["feature_1"]) == (0, "17", "1", "c")
    assert err.startswith("flagged")


def test_anomalies_of_a_plain_model_flags_none(run):
    code, out, err = run("anomalies", "images", "digits.npy")
    rows = ranked(out)
    assert code == 0
    assert not any(int(r["anomaly"]) for r in rows)
    assert rows[0]["feature_1"].startswith("pixel_")
    assert "--detector" in err
    code, out, err = run("anomalies", "detector", "iris.csv", "--epochs", "3", "--model", "vae")
    assert (code, out) == (2, "")
    assert "--max-epochs" in err
    assert run("anomalies", "images", "digits.npy", "--contamination", "0.1")[0] == 2
    assert run("anomalies", "detector")[0] == 2
    assert run("anomalies", "images", "digits.npy", "-o", "a.npy")[0] == 2
    assert run("anomalies", "images", "digits.npy", "-o", "a.npz")[0] == 0


# report, info, models, demo ---------------------------------------------------------------------------------------------


def test_report(run, home):
    code, out, err = run("report", "vae", "iris.csv", "-o", "r.html", "--labels", "species", "--title", "Flowers")
    assert (code, out) == (0, "")
    assert "wrote r.html" in err
    page = (home / "r.html").read_text()
    assert "Flowers" in page
    assert "setosa" in page
    assert run("report", "images", "digits.npz", "--labels", "target", "-o", "r2.html")[0] == 0
    assert run("report", "detector", "iris.csv", "-o", "r3.html")[0] == 0


def test_info_of_a_model(run):
    code, out, _ = run("info", "detector", "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["model"], facts["detector"], facts["contamination"], facts["generative"]) == (
        "Autoencoder",
        True,
        0.1,
        False,
    )
    assert facts["parameters"]["latent_dim"] == 2
    assert facts["training"]["epochs"] == 2
    assert facts["columns"][0] == {"column": NAMES[0], "lowest": 4.3, "highest": 7.9}
    code, out, _ = run("info", "vae")
    assert code == 0
    assert all(name in out for name in [*NAMES, "learned_gaussian", "reached max_epochs=2"])


def test_info_of_data(run, tmp_path):
    write_csv(
        tmp_path / "d.csv", ["a", "b", "c", "d", "e"], [[1, 0, "x", 7, 0.5], [2, 1, "y", 7, ""], [3, 1, "", 7, 1]]
    )
    facts = json.loads(run("info", tmp_path / "d.csv", "--json")[1])
    assert [c["kind"] for c in facts["columns"]] == ["integer", "binary", "text", "constant", "real"]
    assert [c["missing"] for c in facts["columns"]] == [0, 0, 1, 0, 1]
    assert (facts["rows"], facts["text"], facts["constant"]) == (3, ["c"], ["d"])
    code, out, _ = run("info", "digits.npy")
    assert code == 0
    assert "images" in out
    assert run("info", "iris.csv")[0] == 0


def test_models(run):
    facts = {row["class"]: row for row in json.loads(run("models", "--json")[1])}
    assert set(facts) == set(cards())
    assert facts["VAE"]["generative"]
    assert not facts["Autoencoder"]["generative"]
    assert facts["BetaVAE"]["name"] == "beta-vae"
    code, out, _ = run("models")
    assert code == 0
    assert all(name in out for name in cards())


def test_demo(run, tmp_path):
    folder = tmp_path / "demo"
    code, out, err = run("demo", "-o", folder, "--max-epochs", "2", "--quiet")
    assert (code, err) == (0, "")
    assert str(folder / "vae.html") in out.replace("\n", "")
    assert (folder / "autoencoder.html").exists()
    assert type(diabolo.load(folder / "vae")).__name__ == "VAE"

    def numbers(text):
        return [line.split()[:-1] for line in text.splitlines() if line.startswith(("raw", "PCA", "Auto", "VAE"))]

    code, again, _ = run("demo", "-o", folder, "--max-epochs", "2", "--quiet")
    assert code == 0
    assert len(numbers(out)) == 4
    assert numbers(again) == numbers(out)


# errors -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "code", "message"),
    [
        (["fit", "missing.csv", "-o", "q"], 1, "error: missing.csv: No such file"),
        (["fit", "iris.csv", "-o", "q", "--columns", "species=number"], 1, "holds text such as"),
        (["fit", "iris.csv", "-o", "q", "--exclude", "specie"], 1, "Did you mean 'species'?"),
        (["fit", "iris.csv", "-o", "vae", "--exclude", "species"], 1, "--force"),
        (["fit", "iris.csv", "-o", "iris.csv", "--exclude", "species"], 1, "expected a folder"),
        (
            ["fit", "iris.csv", "-o", "q", "--exclude", "species", "--latent-dim", "0"],
            1,
            "expected int or {'auto', 'search'} >= 1",
        ),
        (["fit", "iris.csv", "-o", "q", "--exclude", "species", "--likelihood", "mse"], 1, "likelihood='gaussian'"),
        (["fit", "iris.csv", "-o", "q", "--exclude", "species", "--contamination", "0.1"], 2, "add --detector"),
        (
            ["fit", "iris.csv", "-o", "q", "--detector", "--contamination", "7", "--exclude", "species"],
            1,
            "contamination",
        ),
        (["fit", "iris.csv", "-o", "q", "--latnt-dim", "3"], 2, "Did you mean --latent-dim?"),
        (
            ["fit", "iris.csv", "-o", "q", "--beta", "3"],
            2,
            "It is a flag of --model beta-vae and of --model compressive-autoencoder and of --model conditional-vae and of "
            "--model mult-vae and of --model vae.",
        ),
        (["fit", "iris.csv", "-o", "q", "--model", "vea"], 2, "Did you mean 'vae'?"),
        (["fit", "iris.csv", "-o", "q", "--model", "custom-autoencoder"], 2, "there is no model"),
        (["fit", "iris.csv"], 2, "--output"),
        (["fit", "digits.npz", "-o", "q"], 1, "choose one with --key"),
        (["fit", "digits.npz", "-o", "q", "--key", "image"], 1, "Did you mean 'images'?"),
        (["fit", "iris.csv", "-o", "q", "--key", "a"], 1, "--key names an array of an NPZ file"),
        (["fit", "digits.npy", "-o", "q", "--exclude", "a"], 1, "no column names"),
        (["fit", "vae", "-o", "q"], 1, "is a folder; expected a data file"),
        (["fitt"], 2, 'Did you mean "fit"?'),
        (["embed", "images", "iris.csv", "--exclude", "species"], 1, "expecting 64 features"),
        (["embed", "vae", "digits.npy"], 1, "expected (4,)"),
        (["embed", "nothing", "iris.csv"], 1, "not a Diabolo model"),
        (["embed", "vae", "iris.csv", "-o", "codes.xlsx"], 2, ".csv, .parquet, .npy, .npz"),
        (["embed", "vae", "iris.csv", "-o", "none/codes.csv"], 1, "no such folder"),
        (["report", "vae", "iris.csv", "--labels", "specis"], 1, "Did you mean 'species'?"),
        (["sample", "vae", "-n", "0"], 1, "expected at least 1"),
        (["sample", "vae", "-n", "x"], 2, "int"),
    ],
)
def test_errors(run, home, tokens, code, message):
    found, out, err = run(*tokens)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert message in err
    assert not (home / "q").exists()


def test_missing_columns_and_corrupt_models(run, home, tmp_path):
    write_csv(tmp_path / "short.csv", NAMES[:3], [[1, 2, 3]])
    code, _, err = run("embed", "vae", tmp_path / "short.csv")
    assert code == 1
    assert "lacks 1 of the 4 columns that the model was fitted on: petal width (cm)" in err
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in (home / "vae").iterdir():
        (folder / path.name).write_bytes(path.read_bytes()[:-9] if path.suffix == ".safetensors" else path.read_bytes())
    code, _, err = run("embed", folder, "iris.csv")
    assert code == 1
    assert "damaged" in err


def test_refuses_pickles_and_damaged_arrays(run, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut short")
    np.save(tmp_path / "flat.npy", np.arange(4))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    for name in ("objects.npy", "broken.npz", "flat.npy", "words.npy", "broken.parquet", "binary.csv"):
        code, _, err = run("fit", tmp_path / name, "-o", "q", "--quiet")
        assert (code, err[:6]) == (1, "error:"), name
        assert name in err


def test_force_replaces_a_model(run, tmp_path):
    assert run("fit", "digits.npy", "-o", tmp_path / "m", *QUICK)[0] == 0
    assert run("fit", "digits.npy", "-o", tmp_path / "m", "--model", "vae", "--force", *QUICK)[0] == 0
    assert type(diabolo.load(tmp_path / "m")).__name__ == "VAE"


# CSV --------------------------------------------------------------------------------------------------------------------


def table(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_csv(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(tmp_path, delimiter):
    columns, named = table(tmp_path, "a,b\n1,2.5\n3,4\n".replace(",", delimiter))
    assert named
    assert columns["a"].dtype == np.int64
    np.testing.assert_array_equal(columns["b"], [2.5, 4.0])


@pytest.mark.parametrize(
    ("text", "names", "named", "rows"),
    [
        ("a,b\n1,2\n", ["a", "b"], True, 1),
        ("1,2\n3,4\n", ["x0", "x1"], False, 2),
        ("0,1,2\n5,6,7\n", ["0", "1", "2"], True, 1),  # how pandas writes a frame without names
        ("5.1,3,setosa\n4.9,3,setosa\n", ["x0", "x1", "x2"], False, 2),
        ("1,2,label\n5,6,7\n", ["1", "2", "label"], True, 1),
        (",b\n0,2\n", ["column_1", "b"], True, 1),
        ('"a, b",c\n1,2\n', ["a, b", "c"], True, 1),
        ("a\n1\n2\n", ["a"], True, 2),
        ("\ufeffa,b\r\n\r\n1,2\r\n", ["a", "b"], True, 1),
    ],
)
def test_headers(tmp_path, text, names, named, rows):
    columns, found = table(tmp_path, text)
    assert (list(columns), found) == (names, named)
    assert {len(v) for v in columns.values()} == {rows}


def test_cells(tmp_path):
    text = "i,f,m,b,t,u\n1152921504606846977,1e-3,NA,true,x,1_0\n-2, 2 ,4,FALSE,,2\n3,nan,?,True,NA,3\n"
    columns, _ = table(tmp_path, text)
    assert columns["i"].tolist() == [2**60 + 1, -2, 3]  # beyond what float64 holds
    np.testing.assert_array_equal(columns["f"], [0.001, 2, np.nan])
    np.testing.assert_array_equal(columns["m"], [np.nan, 4, np.nan])
    assert columns["b"].tolist() == [True, False, True]
    assert columns["t"].tolist() == ["x", "", ""]
    assert columns["u"].dtype == object  # Python reads 1_0 as ten, a table does not


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2\n3\n", "line 3: 1 cells"),
        ("a,a\n1,2\n", "more than one column is named 'a'"),
        (b"a,b\n\xff\xfe,2\n", "UTF-8"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        table(tmp_path, text)


def test_columns_are_found_by_name(run, home, tmp_path):
    rows = load_iris().data
    write_csv(tmp_path / "moved.csv", [*NAMES[::-1], "extra"], np.column_stack([rows[:, ::-1], np.ones(150)]))
    assert run("embed", "vae", tmp_path / "moved.csv")[1] == run("embed", "vae", "iris.csv")[1]
    np.save(tmp_path / "rows.npy", rows)
    assert run("embed", "vae", tmp_path / "rows.npy")[1] == run("embed", "vae", "iris.csv")[1]
    np.savetxt(tmp_path / "bare.csv", rows, delimiter=",", fmt="%.17g")
    assert run("embed", "vae", tmp_path / "bare.csv")[1] == run("embed", "vae", "iris.csv")[1]


def test_missing_cells_are_filled(run, tmp_path):
    write_csv(tmp_path / "holes.csv", NAMES, [[5.1, "", 1.4, 0.2], ["NA", 3.0, 1.4, 0.2]])
    code, out, _ = run("reconstruct", "vae", tmp_path / "holes.csv")
    assert code == 0
    assert np.isfinite(read_output(out)[1]).all()


# data sets --------------------------------------------------------------------------------------------------------------


def test_datasets():
    for name in datasets.available():
        if name != "mnist":
            data = datasets.load(name)
            assert len(data.X) == len(data.y)
            assert len(np.unique(data.y)) == len(data.classes)
            assert data.X.ndim == 3 or data.X.shape[1] == len(data.names)
            assert data.description in repr(data)
    with pytest.raises(ValueError, match="Did you mean 'digits'"):
        datasets.load("digit")
    with pytest.raises(ValueError, match="is for 'mnist'"):
        datasets.load("iris", path="x")


def test_mnist(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.arange(6, dtype=np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=X[:4], y_train=y[:4], x_test=X[4:], y_test=y[4:])
    data = datasets.load("mnist", path=tmp_path / "mnist.npz")
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, y)
    monkeypatch.setattr(
        "sklearn.datasets.fetch_openml", lambda *a, **k: (X.reshape(6, -1).astype(float), y.astype(str).astype(object))
    )
    fetched = datasets.load("mnist")
    np.testing.assert_array_equal(fetched.X, X)
    np.testing.assert_array_equal(fetched.y, y)
    np.savez(tmp_path / "other.npz", x=X)
    np.save(tmp_path / "plain.npy", X)
    for name in ("other.npz", "plain.npy"):
        with pytest.raises(ValueError, match="x_train, y_train"):
            datasets.load("mnist", path=tmp_path / name)
    with pytest.raises(FileNotFoundError):
        datasets.load("mnist", path=Path(tmp_path / "none.npz"))


def test_a_start_that_no_epoch_bettered_has_no_figures(tmp_path, capsys):
    model = diabolo.Autoencoder(2, hidden=(8,), max_epochs=3, random_state=0).fit(load_iris().data)
    model.history_.best_epoch = 0
    model.save(tmp_path / "model")
    assert _summary(model) == "epoch 0 of 3: the start, which no epoch bettered"
    assert main(["info", str(tmp_path / "model"), "--json"]) == 0
    training = json.loads(capsys.readouterr().out)["training"]
    assert training["best epoch"] == 0
    assert "val_loss" not in training
