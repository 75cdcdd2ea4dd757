"""The command line with text files of one sequence a line."""

from __future__ import annotations

import json

import pytest

from diabolo.checks import parameter_fields
from diabolo.cli.app import main
from diabolo.cli.catalog import sequence_card
from diabolo.tasks.sequences import SequenceVAE

LINES = ["abab", "baba", "aabb", "", "bbaa", "abba"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines")
    (folder / "lines.txt").write_text("\n".join(LINES * 4) + "\n", encoding="utf-8")
    flags = ["--model", "sequence-vae", "--latent-dim", "2", "--width", "16", "--epochs", "2", "--seed", "0", "--quiet"]
    assert main(["fit", str(folder / "lines.txt"), "-o", str(folder / "model"), *flags]) == 0
    return folder


def test_the_card_is_the_class():
    card, there = sequence_card(), parameter_fields(SequenceVAE)
    assert [(f.name, f.kind, f.constraints, f.doc, f.default) for f in card.fields] == [
        (f.name, f.kind, f.constraints, f.doc, f.default) for f in there
    ]
    assert card.name == "SequenceVAE"
    assert card.summary == SequenceVAE.__doc__.split("\n\n")[0]


def test_new_lines(place):
    out = place / "new.txt"
    assert main(["sample", str(place / "model"), "-n", "12", "--seed", "0", "-o", str(out)]) == 0
    made = out.read_text(encoding="utf-8").split("\n")
    assert len(made) == 13
    assert set("".join(made)) <= {"a", "b"}


def test_lines_between_lines(place, capsys):
    assert main(["interpolate", str(place / "model"), str(place / "lines.txt"), "--rows", "0,2", "-n", "4"]) == 0
    assert len(capsys.readouterr().out.split("\n")) == 5


def test_codes_scores_and_facts(place, capsys):
    assert main(["embed", str(place / "model"), str(place / "lines.txt")]) == 0
    said = capsys.readouterr().out.split("\n")
    assert said[0] == "sequencevae0,sequencevae1"
    assert len(said) == len(LINES) * 4 + 2
    assert main(["score", str(place / "model"), str(place / "lines.txt")]) == 0
    capsys.readouterr()
    assert main(["info", str(place / "model"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["different tokens"] == 2
    assert facts["parameters"]["width"] == 16
    assert main(["latent", "diagnose", str(place / "model"), str(place / "lines.txt")]) == 0
    assert "of 2 units in use" in capsys.readouterr().out
    assert (
        main(["latent", "prior", str(place / "model"), str(place / "lines.txt"), "--method", "mixture", "--seed", "0"])
        == 0
    )
    assert "kept mixture" in capsys.readouterr().err
    assert main(["models"]) == 0
    assert "sequence-vae learns texts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["sample", "MODEL", "-o", "new.parquet"], 2, "sequences are lines of text"),
        (["sample", "MODEL", "--noise"], 2, "--noise is for rows of numbers"),
        (["sample", "MODEL", "-n", "0"], 1, "n=0"),
        (["report", "MODEL", "FILE"], 2, "holds a model of sequences"),
        (["fit", "FILE", "-o", "x", "--model", "sequence-vae", "--detector"], 2, "learns lines of text alone"),
        (["fit", "empty.txt", "-o", "x", "--model", "sequence-vae"], 1, "is empty"),
        (["anomalies", "FILE", "--model", "sequence-vae"], 2, "only `diabolo fit` takes it"),
        (["interpolate", "MODEL", "FILE", "--rows", "0,99"], 2, "has rows 0 to 23"),
    ],
)
def test_errors(arguments, code, said, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    (place / "empty.txt").write_text("", encoding="utf-8")
    known = {"MODEL": str(place / "model"), "FILE": str(place / "lines.txt")}
    assert main([known.get(a, a) for a in arguments]) == code
    assert said in capsys.readouterr().err
