"""The shape of the library, read from its syntax tree: who may import whom, what library code never does, what is public."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import diabolo
from diabolo.checks import parameter_fields
from diabolo.declare import REGISTRY

SOURCE = Path(diabolo.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# From the bottom up. A module imports from lines above its own, and from its own package.
LAYERS = [
    ["records"],
    ["seeding", "checks", "files", "launch", "notices", "saving"],
    ["declare"],
    ["data", "metrics", "datasets"],
    ["parts"],
    ["principal"],
    ["module"],
    ["objectives"],
    ["training"],
    ["parameters"],
    ["inference"],
    ["generation", "sizing", "warm"],
    ["estimator"],
    ["zoo"],
    ["latent"],
    ["tasks"],
    ["tuning"],
    ["persistence"],
    ["batches", "pretrained"],
    ["report"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Where a lower module may call a higher one, inside a function: saving, loading to start from and fitting a prior are methods.
DOORS = {("saving", "persistence"), ("estimator", "persistence"), ("generation", "latent")}


def relative(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Yield the dotted names under ``diabolo`` that a file imports, whether at its top level, and the line."""
    root = tree(path)
    functions = (n for n in ast.walk(root) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(root):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: relative import"
            base = node.module or ""
            found = [f"{base}.{a.name}" for a in node.names] if base == "diabolo" else [base]
        for name in found:
            if name.startswith("diabolo."):
                yield name.removeprefix("diabolo."), id(node) not in inside, node.lineno


LIBRARY = [p for p in FILES if p != SOURCE / "__init__.py"]


def test_every_module_has_a_place():
    assert {layer(p) for p in LIBRARY} <= set(RANK)


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_lower_never_imports_higher(path):
    here = layer(path)
    for name, at_top, line in imports(path):
        there = name.split(".")[0]
        if there == here or there not in RANK:  # `from diabolo import Autoencoder` names no module
            continue
        lower = RANK[there] < RANK[here]
        assert lower or (not at_top and (here, there) in DOORS), f"{relative(path)}:{line} imports diabolo.{name}"


def test_the_doors_are_used():
    used = {(layer(p), name.split(".")[0]) for p in LIBRARY for name, at_top, _ in imports(p) if not at_top}
    assert used >= DOORS


@pytest.mark.parametrize("path", sorted((SOURCE / "parts").rglob("*.py")), ids=relative)
def test_parts_know_nothing_of_each_other(path):
    allowed = {"records"}
    if path.parent.name == "networks":
        # the table of activations and the protocol; a layer that several share
        allowed |= {"parts.networks.base", "parts.networks.sparse"}
    if path.parent.name == "likelihoods":
        # the mixed one is made of others
        allowed |= {f"parts.likelihoods.{name}" for name in ("elements", "choices", "counts", "mixed")}
    assert {name for name, _, _ in imports(path)} <= allowed


def calls(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_what_library_code_never_does(path):
    nodes = list(ast.walk(tree(path)))
    asserts = [n.lineno for n in nodes if isinstance(n, ast.Assert)]
    assert not asserts, f"assert in lines {asserts}: raise an error that says what to do"
    modules = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    modules |= {(n.module or "").split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
    assert not modules & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "random"}
    for handler in (n for n in nodes if isinstance(n, ast.ExceptHandler)):
        caught = ast.unparse(handler.type) if handler.type else "everything"
        # too wide a net is fine only for what is raised again, in better words
        assert caught not in ("everything", "Exception", "RuntimeError") or isinstance(handler.body[-1], ast.Raise)
    forbidden = {"torch.load", "torch.save", "logging.basicConfig", "torch.set_num_threads", "breakpoint"}
    forbidden |= {"torch.set_default_dtype", "torch.set_default_device"}
    if layer(path) != "cli":  # which prints, and reads the declarations of this package's own source
        forbidden |= {"print", "eval", "exec"}
    found = [(name, line) for name, line in calls(path) if name in forbidden]
    assert not found
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b|pragma: no cover", text)


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "seeding.py"], ids=relative)
def test_only_seeding_touches_generators(path):
    pattern = re.compile(
        r"(np|numpy)\.random\.[a-z]\w*|torch(\.cuda|\.random|\.mps)?\.(manual_seed\w*|seed\w*|[gs]et_rng_state\w*|fork_rng)"
        r"|.*\.manual_seed"
    )
    allowed = {"np.random.default_rng"}  # a generator of its own, harmless to others, where a seed is passed
    found = [(n, line) for n, line in calls(path) if pattern.fullmatch(n) and n not in allowed]
    assert not found
    unseeded = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.random.default_rng" and not node.args
    ]
    assert not unseeded


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < 500


# the public surface -------------------------------------------------------------------------------------------------------------


def test_import_is_light():
    code = "import sys, diabolo; print(sorted({'torch', 'sklearn', 'pandas', 'numpy', 'cyclopts'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_public_names_are_sorted():
    def order(name: str) -> tuple[int, str]:  # constants, then classes, then functions, as ruff sorts them
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert diabolo.__all__ == sorted(diabolo.__all__, key=order)
    assert len(set(diabolo.__all__)) == len(diabolo.__all__)
    assert dir(diabolo) == sorted(diabolo.__all__)


@pytest.mark.parametrize("name", diabolo.__all__)
def test_public_names_resolve(name):
    thing = getattr(diabolo, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert thing.__name__ == name
        assert thing.__module__ == diabolo._HOME[name]
        assert inspect.getdoc(thing)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'diabolo' has no attribute 'Autoencodre'"):
        _ = diabolo.Autoencodre


def test_lazy_imports_are_those_the_type_checker_sees():
    typed = {}
    for node in tree(SOURCE / "__init__.py").body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                assert isinstance(statement, ast.ImportFrom)
                typed |= {alias.asname or alias.name: statement.module for alias in statement.names}
    # a whole submodule (`from diabolo import datasets`) has no home of its own
    assert {k: v for k, v in typed.items() if v != "diabolo"} == {
        k: v for k, v in diabolo._HOME.items() if v != "diabolo"
    }
    assert set(typed) | {"__version__"} == set(diabolo.__all__)


def everything_imported() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(diabolo.__path__, "diabolo.") if not m.name.endswith("__main__")]
    for name in names:
        importlib.import_module(name)
    return names


def test_every_module_has_a_docstring_and_an_all_that_resolves():
    for name in everything_imported():
        module = importlib.import_module(name)
        assert module.__doc__, name
        for public in getattr(module, "__all__", []):
            assert hasattr(module, public), f"{name}.{public}"


everything_imported()
ESTIMATORS = dict(sorted(REGISTRY.items()))


def test_models_and_tasks_are_registered():
    assert {"Autoencoder", "VAE", "AnomalyDetector"} <= set(ESTIMATORS)
    assert all(name == cls.__name__ for name, cls in ESTIMATORS.items())
    assert set(ESTIMATORS) <= set(diabolo.__all__)


@pytest.mark.parametrize("cls", ESTIMATORS.values(), ids=ESTIMATORS)
def test_every_field_is_declared_and_documented(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    declared = parameter_fields(cls)
    assert declared
    doc = inspect.getdoc(cls)
    assert "{parameters}" not in doc
    for f in declared:
        assert typing.get_origin(hints[f.name]) is typing.Annotated, f.name
        assert f.doc, f"{f.name} has no documentation"
        assert not f.doc.rstrip().endswith("."), f"{f.name}: the docstring adds the full stop"
        assert re.search(rf"^{f.name} : ", doc, re.MULTILINE), f.name
        assert f.doc[1:] in doc
    assert [f.name for f in declared] == list(inspect.signature(cls).parameters)


@pytest.mark.parametrize("cls", ESTIMATORS.values(), ids=ESTIMATORS)
def test_models_are_final_and_thin(cls):
    """No model inherits from another, and none overrides what the base does for all."""
    assert not set(cls.__mro__[1:]) & set(ESTIMATORS.values())
    if cls.__module__.startswith("diabolo.zoo."):
        assert not {"fit", "transform", "reconstruct", "score_samples", "sample"} & set(vars(cls))
