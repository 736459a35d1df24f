"""The Lua files: each assembles, says what it needs and takes, names it, and stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from packmule.coordination.redis.library import needs
from packmule.coordination.redis.scripts import Script

ROOT = Path(__file__).parents[1]
ROOMS = ("coordination", "jobs", "worker", "scheduler", "observe", "dashboard", "terminal")
SCRIPTS = sorted(path for room in ROOMS for path in (ROOT / room).rglob("lua/*.lua"))
LIBRARIES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("lua/lib/*.lua"))

MOST_LINES = 110
LONGER: set[str] = set()
"""Files that are still longer. None may be added."""

LOWER = {"coordination": 0, "jobs": 1, "observe": 2, "worker": 2, "scheduler": 2, "dashboard": 2}

TEXT = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")
COMMENT = re.compile(r"--[^\n]*")
BUILT_IN = {
    "and", "break", "cjson", "cmsgpack", "do", "else", "elseif", "end", "error", "false", "for", "function",
    "if", "in", "ipairs", "local", "math", "next", "nil", "not", "or", "pairs", "pcall", "redis", "repeat",
    "return", "setmetatable", "string", "table", "then", "tonumber", "tostring", "true", "type", "unpack",
    "until", "while", "KEYS", "ARGV",
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package_of(path: Path) -> str:
    """The package, without `packmule`, that a Lua file belongs to."""
    return name_of(path).partition("/lua/")[0].replace("/", ".")


def head_of(path: Path) -> str:
    """The comment lines at the top of a file."""
    head = re.match(r"(?:--[^\n]*\n)+", path.read_text())
    assert head, f"{path} has no head"
    return head[0]


def code_of(path: Path) -> str:
    """A file's code: its texts are empty, and comments are gone."""
    return COMMENT.sub("", TEXT.sub("''", path.read_text()))


def libraries_of(path: Path) -> list[str]:
    return [name for _, name in needs(package_of(path), path.read_text())]


def locals_of(code: str) -> list[str]:
    """The names that a file declares at its top level, in order."""
    found = []
    for names in re.findall(r"^local (?:function )?([\w, ]+)", code, re.MULTILINE):
        found += [name.strip() for name in names.split(",")]
    return found


def declared_in(code: str) -> set[str]:
    """All names that a file declares anywhere."""
    found = set()
    for names in re.findall(r"\b(?:local|for) (?!function\b)([\w, ]+?)(?= in\b| *=|$)", code, re.MULTILINE):
        found |= {name.strip() for name in names.split(",")}
    for name, names in re.findall(r"\bfunction\b *([\w.]*)\(([\w,\s.]*)\)", code):
        found |= {name, *(each.strip() for each in names.split(","))}
    return found


def fields_of(library: str) -> set[str]:
    """What a library puts in its table."""
    (path,) = [path for path in LIBRARIES if path.stem == library]
    return set(re.findall(rf"\b{library}\.(\w+)(?=\(| = |, {library}\.)", code_of(path)))


every_file = pytest.mark.parametrize("path", [*SCRIPTS, *LIBRARIES], ids=name_of)
every_script = pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
every_library = pytest.mark.parametrize("path", LIBRARIES, ids=name_of)


@every_script
def test_a_script_assembles_with_what_it_needs_in_front(path, client):
    script = Script(package_of(path), path.stem)
    loaded = client.script_load(script.source)
    assert (loaded.decode() if isinstance(loaded, bytes) else loaded) == script.sha
    tables = re.findall(r"^local (\w+)_made$", script.source, re.MULTILINE)
    flat = [
        name
        for names in re.findall(r"^local ([\w, ]+) do$", script.source, re.MULTILINE)
        for name in names.split(", ")
    ]
    names = [*tables, *flat, *locals_of(code_of(path))]
    assert len(names) == len(set(names)), "a name is declared twice"
    code = COMMENT.sub("", TEXT.sub("''", script.source))
    elsewhere = declared_in(re.sub(r"^local [\w, ]+ do$|^function \w+", "", code, flags=re.MULTILINE))
    assert not set(flat) & elsewhere, "a name is declared twice"
    for library in {name.partition("_")[0] for name in flat}:
        assert not re.search(rf"\b{library}\.", code), f"{library} is no table in this script"


@every_script
def test_a_script_says_what_it_takes_and_returns(path):
    head = head_of(path)
    assert "-- KEYS[1]" in head, "a script without a key"
    assert "-- Returns " in head
    assert head.splitlines()[0].endswith((".", ",")) or not head.splitlines()[1].startswith("-- KEYS")


@every_script
def test_a_script_names_its_keys_and_arguments_before_anything_else(path):
    code = [line for line in code_of(path).splitlines() if line.strip()]
    named = [line for line in code if re.search(r"\b(KEYS|ARGV)\b", line)]
    assert code[: len(named)] == named, "KEYS or ARGV is used without a name"
    assert all(line.startswith("local ") for line in named)
    head = head_of(path)
    for kind in ("KEYS", "ARGV"):
        numbers = {int(each) for each in re.findall(rf"{kind}\[(\d+)\+?\]", head)}
        assert numbers == set(range(1, len(numbers) + 1)) or f"{kind}[#]" in head, (
            "the head leaves a number out"
        )


@every_library
def test_a_library_fills_one_table_and_has_no_keys_of_its_own(path):
    text, code = path.read_text(), code_of(path)
    assert text.count(f"\nlocal {path.stem} = {{}}\n") == 1
    assert text.endswith(f"\nreturn {path.stem}\n")
    assert not re.search(r"\b(KEYS|ARGV)\b", code)
    top = locals_of(code)
    assert len(top) == len(set(top)), "a name is declared twice"


@every_library
def test_a_library_reads_who_calls_when_a_function_is_called(path):
    code = code_of(path).replace(f"{path.stem}.", "")
    assert not re.search(r"^\S[^\n]*\bcaller\.", code, re.MULTILINE), "the script has not said it yet"


def test_no_two_libraries_have_the_same_name():
    names = [path.stem for path in LIBRARIES]
    assert len(names) == len(set(names))


@every_file
def test_a_file_requires_what_it_uses_and_nothing_else(path):
    libraries, code = libraries_of(path), code_of(path)
    assert len(libraries) == len(set(libraries))
    assert not set(libraries) & declared_in(code), "a name is declared twice"
    used = set(re.findall(r"(?<![\w.:])[A-Za-z_]\w*|(?<=\.\.)[A-Za-z_]\w*", code)) - {"_"}
    table_fields = set(re.findall(r"[{,]\s*(\w+) = ", code))
    unknown = used - declared_in(code) - set(libraries) - BUILT_IN - table_fields
    assert unknown == set(), "used, but neither declared nor required"
    assert set(libraries) - used == set(), "required, but not used"
    for library in libraries:
        used_of_it = set(re.findall(rf"(?<![\w.]){library}\.(\w+)", code))
        assert used_of_it <= fields_of(library), f"{library} has no such function"


@every_file
def test_a_file_requires_only_what_stands_below_it(path):
    package = package_of(path)
    for other, _ in needs(package, path.read_text()):
        room, below = package.partition(".")[0], other.partition(".")[0]
        assert below == room or LOWER[below] < LOWER[room]


@every_file
def test_a_file_is_short_and_calls_no_slow_command(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES or path.name in LONGER
    assert lines > MOST_LINES or path.name not in LONGER, "short enough: take it off the list"
    assert not re.search(r"call\('(KEYS|FLUSHALL|FLUSHDB)'", path.read_text())


def test_one_library_knows_the_keys_of_queues():
    knowing = [path.name for path in [*SCRIPTS, *LIBRARIES] if "'rq:queue:" in path.read_text()]
    assert knowing == ["queues.lua"]


def test_one_library_ends_jobs():
    knowing = [path.name for path in [*SCRIPTS, *LIBRARIES] if "'rq:failed:" in path.read_text()]
    assert knowing == ["ending.lua"]
    deletion = re.compile(r"'(DEL|UNLINK)', *(records\.key\(\w+\)[,)]|record\b)")
    deleting = {path.stem for path in [*SCRIPTS, *LIBRARIES] if deletion.search(path.read_text())}
    rewritten = {"enqueueing", "finishing"}  # one writes the record again, one deletes what it has just made
    assert deleting == {"ending", *rewritten}


@every_script
def test_a_script_that_may_end_a_job_counts_it_in_its_batch(path):
    """What `counting` has noted is lost unless the script has it counted."""
    source = Script(package_of(path), path.stem).source
    notes = re.search(r"counting(?:\(\)\.|_)note\(", source) is not None
    counts = re.search(r"^(?!function )[^\n]*count_noted\(\)", source, re.MULTILINE) is not None
    assert notes == counts or path.stem == "prune"  # it only expires records
