"""The glossary holds in the code, private words are gone from it, and a picture shows a job's states."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from rq.job import JobStatus

from packmule.tests.docs.pages import PAGES, ROOT, named, page, rows

ROOMS = ("coordination", "jobs", "observe", "worker", "scheduler", "dashboard", "drill", "terminal")
SOURCES = [
    *sorted(ROOT.glob("*.py")),
    *(
        path
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.*"))
        if path.suffix in {".py", ".lua"}
    ),
]
PRIVATE = {
    "budget", "bury", "certificate", "clerk", "counsel", "ear", "gate", "gates", "handover", "lane",
    "lanes", "mend", "mended", "mending", "parked", "poison", "relief", "relieve", "shut", "sweep",
    "sweeping", "tally", "ticket", "tickets", "walk",
}  # fmt: skip
"""Words of our own where the field has others. A call of what others named so, such as `os.walk`, is fine."""

_LUA_TEXT = re.compile(r"--[^\n]*|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")
_KEY = re.compile(r"pm:[a-z:-]+")


def terms() -> list[str]:
    """The words that the glossary explains."""
    return [term for row in rows(page("glossary")) for term in row[0].split(", ")]


def words(name: str) -> set[str]:
    """The words that make up a name: `BlockingWait` and `blocking_wait` have the same two."""
    return set(
        re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.replace("shut_down", "")).lower())
    )


def defined(path: Path) -> Iterator[str]:
    """The names that a source gives to things, and the keys that it writes."""
    text = path.read_text()
    yield from _KEY.findall(text)
    yield path.stem
    if path.suffix == ".lua":
        yield from re.findall(r"[A-Za-z_]\w*", _LUA_TEXT.sub("", text))
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name):
                yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_name_is_made_of_a_private_word(path):
    assert {name for name in defined(path) if words(name) & PRIVATE} == set()


@pytest.mark.parametrize("name", PAGES)
def test_no_page_uses_a_private_word(name):
    assert {*re.findall(r"[a-z]+", page(name).lower())} & PRIVATE == set()


def test_each_term_of_the_glossary_is_in_the_code():
    text = "\n".join(path.read_text() for path in SOURCES).lower().replace("_", " ")
    found = words(text)
    assert len(terms()) == len(set(terms()))
    for term in terms():
        *front, last = term.split()
        known = term in text if front else any(re.fullmatch(rf"{last[:-1]}\w{{1,4}}", word) for word in found)
        assert known, term


def test_the_picture_of_states_is_what_the_script_draws():
    script = runpy.run_path(str(ROOT / "docs" / "draw_states.py"))
    assert (ROOT / "docs" / "states.svg").read_text() == script["drawing"](), (
        "run: python docs/draw_states.py"
    )
    statuses = {status.value for status in JobStatus} - {"created"}  # which no stored job has
    assert {state.name for state in script["STATES"]} == statuses | {"blocked"}


def test_the_page_of_states_explains_each_status():
    table = page("states").partition("\n## ")[0]
    assert {name for row in rows(table) for name in named(row[0])} == {
        status.value for status in JobStatus
    } - {"created"}
