"""Constraints on hyperparameters and the wording of their errors; files that are whole or not there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diabolo.checks import Ge, Gt, Le, Lt, ParameterError, check_parameters, describe, did_you_mean, parameter_fields
from diabolo.files import make_folder, write_atomic


@dataclass
class Model:
    """Declares one parameter of each kind."""

    width: Annotated[int, Ge(1), "units"] = 3
    share: Annotated[float, Ge(0), Lt(1), "a share"] = 0.5
    rate: Annotated[float, Gt(0), Le(1), "a rate"] = 0.1
    layers: Annotated[tuple[int, ...] | Literal["auto"], Ge(1), "widths"] = "auto"
    kind: Annotated[Literal["relu", "tanh"] | None, "a function"] = "relu"
    limit: Annotated[float | None, Gt(0), "a limit"] = None
    flag: Annotated[bool, "a switch"] = False
    name: Annotated[str | Path, "a name"] = "x"
    call: Annotated[Callable[[int], Any] | None, "a function"] = None
    extra: Annotated[tuple[Any, ...], "anything"] = ()
    seed: Annotated[int | np.random.RandomState | None, "a seed"] = None
    level: Annotated[Literal[0, 1, 2], "how much"] = 0
    free: Annotated[float, "any number"] = 0.0
    plain: int = 1
    hidden_state: int = field(default=0, init=False)


GOOD = {
    "width": [1, np.int64(5), np.uint8(3), 10**30],
    "share": [0, 0.0, 0.999, np.float32(0.5), np.int64(0)],
    "rate": [1, 1.0, 1e-300, np.float64(0.5)],
    "layers": ["auto", (), (1,), [4, 2], (np.int32(7),)],
    "kind": ["relu", "tanh", None, np.str_("relu")],
    "limit": [None, 0.5, 3, float("inf")],
    "flag": [True, False],
    "name": ["", Path("y")],
    "call": [None, len, lambda x: x],
    "extra": [(), (1, "a", None), [print]],
    "seed": [None, 0, np.int64(3), np.random.RandomState(0)],
    "level": [0, 2],
    "free": [-1e30, 3, float("inf")],
    "plain": [-5],
}

BAD = {
    "width": [0, -1, 1.0, True, "3", None, np.float64(2.0), (1,), np.bool_(True)],
    "share": [1, 1.0, -0.1, float("nan"), np.float32("nan"), True, "0.5", None, float("inf"), 1j],
    "rate": [0, 0.0, 1.0000001, float("nan"), -float("inf")],
    "layers": [(0,), (3, -1), (1.5,), (True,), 3, "none", None, ("auto",), np.array([3]), ((1,),)],
    "kind": ["relux", 3, True, ""],
    "limit": [0, -1.0, float("nan"), "1", True],
    "flag": [0, 1, None, "true"],
    "name": [None, 3, b"x"],
    "call": [3, "len"],
    "extra": [3, "abc", None],
    "seed": [1.5, "0", True, np.random.default_rng(0)],
    "level": [3, True, "1", 1.0],
    "free": [float("nan"), np.float64("nan"), None, True],
    "plain": [1.5, True],
}


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, vs in GOOD.items() for v in vs], ids=repr)
def test_good_values_pass(name, value):
    check_parameters(Model(**{name: value}))


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, vs in BAD.items() for v in vs], ids=repr)
def test_bad_values_are_named_with_what_was_expected(name, value):
    kind = next(f.kind for f in parameter_fields(Model) if f.name == name)
    with pytest.raises(ParameterError) as caught:
        check_parameters(Model(**{name: value}))
    first, line = str(caught.value).split("\n")
    assert first == "Model cannot be fitted:"
    assert line.startswith(f"  {name}={value!r}: expected {kind}.")


def test_every_field_is_tried():
    assert set(GOOD) == set(BAD) == {f.name for f in parameter_fields(Model)}


def test_error_is_both_a_value_and_a_type_error():
    for kind in (ValueError, TypeError):
        with pytest.raises(kind):
            check_parameters(Model(width=0))


def test_all_problems_are_listed_at_once():
    with pytest.raises(ParameterError) as caught:
        check_parameters(Model(width=0, share=2.0, kind="rellu", rate=0))
    assert str(caught.value).split("\n") == [
        "Model cannot be fitted:",
        "  width=0: expected int >= 1.",
        "  share=2.0: expected float >= 0 and < 1.",
        "  rate=0: expected float > 0 and <= 1.",
        "  kind='rellu': expected {'relu', 'tanh'} or None. Did you mean 'relu'?",
    ]


def test_advice_comes_before_a_guess():
    with pytest.raises(ParameterError, match=r"expected .* or None\. write None without quotes\.$"):
        check_parameters(Model(kind="none"), {"none": "write None without quotes."})
    with pytest.raises(ParameterError, match=r"or None\.$"):
        check_parameters(Model(kind="zzz"), {"none": "write None without quotes."})
    with pytest.raises(ParameterError, match=r"Did you mean 'auto'\?$"):
        check_parameters(Model(layers="autos"))


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "int"),
        (float | None, "float or None"),
        (tuple[int, ...], "tuple of int"),
        (tuple[int, ...] | Literal["auto"], "tuple of int or {'auto'}"),
        (Literal["a", 1], "{'a', 1}"),
        (Callable[[int], Any], "callable"),
        (np.random.RandomState | None, "RandomState or None"),
        (None, "None"),
        (str | Path, "str or Path"),
    ],
)
def test_types_in_words(hint, words):
    assert describe(hint) == words


def test_fields_keep_order_and_documentation():
    declared = parameter_fields(Model)
    assert [f.name for f in declared][:4] == ["width", "share", "rate", "layers"]
    assert declared[1].doc == "a share"
    assert declared[1].constraints == (Ge(0), Lt(1))
    assert declared[1].default == 0.5
    assert declared[-1].name == "plain"
    assert declared[-1].doc == ""
    with pytest.raises(TypeError, match="int is not a dataclass"):
        parameter_fields(int)


@settings(max_examples=50, deadline=None)
@given(bound=st.floats(-1e6, 1e6), value=st.floats(-1e6, 1e6))
def test_constraints_are_the_operators(bound, value):
    assert Ge(bound).holds(value) == (value >= bound)
    assert Gt(bound).holds(value) == (value > bound)
    assert Le(bound).holds(value) == (value <= bound)
    assert Lt(bound).holds(value) == (value < bound)


def test_constraints_in_words():
    assert [str(c(0.5)) for c in (Ge, Gt, Le, Lt)] == [">= 0.5", "> 0.5", "<= 0.5", "< 0.5"]
    assert str(Ge(1)) == ">= 1"


@pytest.mark.parametrize(
    ("name", "guess"),
    [("latent_dims", " Did you mean 'latent_dim'?"), ("Latent_dim", " Did you mean 'latent_dim'?"), ("xyz", "")],
)
def test_did_you_mean(name, guess):
    assert did_you_mean(name, ["latent_dim", "hidden"]) == guess


# files --------------------------------------------------------------------------------------------------------------------------


def test_write_creates_and_replaces(tmp_path):
    path = tmp_path / "a.bin"
    for data in (b"", b"one", b"two" * 1000):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["a.bin"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444  # others may read a model


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("exists", [True, False])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, exists, error):
    path = tmp_path / "a.bin"
    if exists:
        path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_atomic(path, b"new")
    assert os.listdir(tmp_path) == (["a.bin"] if exists else [])
    if exists:
        assert path.read_bytes() == b"old"


def test_a_failed_rename_leaves_what_was_there(tmp_path):
    path = tmp_path / "taken"
    path.mkdir()
    (path / "inside").write_bytes(b"old")
    with pytest.raises(OSError, match="taken"):
        write_atomic(path, b"new")
    assert os.listdir(tmp_path) == ["taken"]
    assert (path / "inside").read_bytes() == b"old"


def test_writing_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot write here \(Not a directory\); choose another folder") as caught:
        write_atomic(tmp_path / "file" / "a.bin", b"new")
    assert caught.value.filename == str(tmp_path / "file" / "a.bin")
    with pytest.raises(OSError, match=r"cannot write here \(No such file or directory\)"):
        write_atomic(tmp_path / "missing" / "a.bin", b"new")


def test_making_a_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert make_folder(folder).is_dir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"cannot create the folder \(.*\); choose another") as caught:
            make_folder(path)
        assert caught.value.filename == str(path)
