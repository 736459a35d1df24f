"""The errors are one tree: each has its own name, one sentence, and a place beside its raise."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

import packmule
from packmule import cli, errors

ROOT = Path(packmule.__file__).parent
NO_PRODUCT = {"benchmarks", "build", "deploy", "docs", "tests"}
CONTROL_FLOW = {
    *(
        "Interrupted",
        "Killed",
        "Later",
        "NotLeading",
        "Retry",
        "Stopped",
        "Waiting",
        "_Abandoned",
        "Returned",
    ),
}
"""Exceptions that end a job or a step in order; no user, operator or author of a job has to handle them."""


def product() -> list[Path]:
    """The modules that are installed, but those that run something when they are imported."""
    paths = [path.relative_to(ROOT) for path in ROOT.rglob("*.py")]
    return [
        path
        for path in sorted(paths)
        if path.parts[0] not in NO_PRODUCT
        and not path.parts[0].startswith(".")
        and path.name != "__main__.py"
    ]


@functools.cache
def exceptions() -> list[tuple[Path, ast.ClassDef, type[BaseException]]]:
    """Each exception class of ours: where it is defined, its syntax, and the class."""
    found = []
    for path in product():
        classes = [
            node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.ClassDef)
        ]
        for node in classes:
            module = ".".join(["packmule", *path.with_suffix("").parts]).removesuffix(".__init__")
            kind = getattr(importlib.import_module(module), node.name, None) if node.bases else None
            if isinstance(kind, type) and issubclass(kind, BaseException):
                found.append((path, node, kind))
    return found


def problems() -> list[tuple[Path, ast.ClassDef, type[BaseException]]]:
    """Those that somebody has to handle."""
    return [each for each in exceptions() if each[1].name not in CONTROL_FLOW and each[0].name != "errors.py"]


def test_no_two_exceptions_have_the_same_name() -> None:
    names = Counter(node.name for _, node, _ in exceptions())
    assert [name for name, count in names.items() if count > 1] == []
    assert set(names) >= CONTROL_FLOW


def test_every_error_is_in_the_tree() -> None:
    assert [str(kind) for _, _, kind in problems() if not issubclass(kind, errors.Error)] == []
    assert {kind.exit_code for _, _, kind in problems()} == {1, 2, 3}


def test_every_error_says_in_one_sentence_what_it_is() -> None:
    said = {node.name: " ".join((ast.get_docstring(node) or "").split()) for _, node, _ in problems()}
    assert [name for name, text in said.items() if not text.endswith(".")] == []
    assert [name for name, text in said.items() if re.search(r"[.!?] +[A-Z`]", text)] == []


def test_every_error_is_defined_where_it_is_raised() -> None:
    """In its module, or in the `__init__` of its folder, which the module itself can't import."""
    elsewhere = []
    for path, node, _ in problems():
        nearby = {path, path.with_name("__init__.py")}
        texts = [(ROOT / each).read_text() for each in nearby if (ROOT / each).exists()]
        if not any(re.search(rf"(?<!class )\b{node.name}[(]|raise {node.name}\b", text) for text in texts):
            elsewhere.append(f"{path}: {node.name}")
    assert elsewhere == []


def test_an_error_ends_a_command_with_its_exit_code_and_a_bug_shows_its_traceback() -> None:
    from redis.exceptions import ConnectionError as NoConnection

    assert [cli._exit_code(kind("x")) for kind in (errors.Error, errors.NotFound, errors.Unavailable)] == [
        1,
        2,
        3,
    ]
    assert [cli._exit_code(error) for error in (NoConnection("x"), TimeoutError("x"))] == [3, 1]
    assert cli._exit_code(ValueError("a bug")) is None


NAMES = ("status", "jobs", "job", "limits", "locks", "schedule", "shop.report", "shop.add", "tally", "queue")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("reprot", "shop.report"),
        ("report", "shop.report"),
        ("desk.report", "shop.report"),
        ("Status", "status"),
        ("stat", "status"),
        ("jbo", "job"),
        ("qeueu", "queue"),
        ("sched", "schedule"),
        ("ad", "shop.add"),
        ("locsk", "locks"),
    ],
)
def test_a_name_that_is_nearly_right_gets_the_one_that_is_meant(name: str, meant: str) -> None:
    assert errors.meant(name, NAMES) == meant


@pytest.mark.parametrize("name", ["at_all", "list", "x", "", "invoice", "worker", "q" * 5000, "shop."])
def test_a_name_that_is_like_none_gets_none(name: str) -> None:
    assert errors.meant(name, NAMES) is None
