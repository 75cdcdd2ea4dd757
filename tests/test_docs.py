"""The documentation: its code runs, its links lead somewhere, and it knows every module."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import diabolo
import diabolo.tasks
import diabolo.zoo  # these register every model
from diabolo.declare import REGISTRY

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(path):
    return str(path.relative_to(ROOT))


def blocks(path):
    """Yield the Python blocks of a page, each with the number of the line above it."""
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match[1] == "python":
            yield match[2], text.count("\n", 0, match.start(2))


@pytest.fixture
def registry():
    """Forget the models that a page registers."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("path", PAGES, ids=name)
def test_the_code_of_a_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for code, line in blocks(path):
        if code.lstrip().startswith(">>> "):
            test = doctest.DocTestParser().get_doctest(code, names, name(path), str(path), line)
            assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False).failed == 0
            names.update(test.globs)
        else:  # blank lines above the code make the lines of a traceback those of the page
            exec(compile("\n" * line + code, str(path), "exec", dont_inherit=True), names)


def anchors(path):
    """Return the anchors that GitHub gives to the headings of a page."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue  # an address of the web
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{name(path)}: there is no {target}"
        assert not anchor or anchor in anchors(there), f"{name(path)}: there is no heading for {target}"


def test_the_layout_names_every_module():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    layout = text[text.index("## Layout") : text.index("## Data flow")]
    source = Path(diabolo.__file__).parent
    modules = {p.name for p in source.rglob("*.py")}
    named = set(re.findall(r"\w+\.py\b", layout))
    assert not modules - named
    assert not named - modules - {"rows.py"}


def test_every_model_is_in_the_guide_and_the_changelog():
    for page in ("docs/guide.md", "CHANGELOG.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert not [model for model in REGISTRY if f"`{model}" not in text], page
