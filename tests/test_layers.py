"""Imports go down the house and never up or sideways; one file reads the environment, one knows RQ's keys."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"__main__", "contrib"},
    {"cli"},
    {"terminal"},
    {"drill", "testing"},
    {"worker", "scheduler", "dashboard"},
    {"observe"},
    {"__init__"},
    {"jobs"},
    {"coordination"},
    {"config"},
    {"setting_values"},
    {"hooks"},
    {"errors", "extras", "plain_text", "project", "units"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in sorted(rooms)}


def modules() -> Iterator[tuple[str, Path]]:
    for room in sorted(FLOOR):
        folder = ROOT / room
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{room}.py"]:
            yield room, path


def imported(path: Path) -> Iterator[str]:
    """The rooms that a module of ours imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: give the full name of what is imported"
            assert node.module
            of_us = node.module == "packmule"
            names = [f"packmule.{alias.name}" for alias in node.names] if of_us else [node.module]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package == "packmule":
                yield rest[0] if rest and rest[0] in FLOOR else "__init__"


@pytest.mark.parametrize(
    ("room", "path"), list(modules()), ids=lambda value: str(value).removeprefix(str(ROOT))
)
def test_a_module_imports_only_from_its_own_room_and_below(room, path):
    for name in imported(path):
        if name != room:
            assert FLOOR[name] > FLOOR[room], f"{path.relative_to(ROOT)} imports {name}"


def test_only_settings_read_the_environment():
    readers = [
        path for _, path in modules() if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert [path.name for path in readers] == ["config.py"]


def test_only_one_module_knows_the_names_of_rqs_keys():
    knowing = [
        path
        for _, path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("rq:")
    ]
    assert {path.name for path in knowing} == {"keys.py"}
