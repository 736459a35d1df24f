"""The Lua library: files of functions that scripts require, and how a script is assembled with them.

The head of a script or library names others: `-- requires: clock, jobs/queues` is `lua/lib/clock.lua` of its
own package and `lua/lib/queues.lua` of `packmule.jobs`. `-- may use: groups` names what only some calls need.

A library is an ordinary Lua module that fills one table. Creating tables of functions at each call takes
longer than moving a job, so an assembled script has none for what every call needs: what `events.emit` is in
the files is a local `events_emit` there. What only some calls need are tables that a function keeps, each
filled when a call first uses it: `groups.join` is `rare().groups().join` there. A library's constant stands
where it is used, because a function that refers to a local takes longer to create. A function of a library
that every call needs is itself created only if the script, or what it calls, names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

Library = tuple[str, str]
"""Its package, without `packmule`, and its name."""

_NEEDS = re.compile(r"^-- (requires|may use): (.+)$", re.MULTILINE)
_COMMENT = re.compile(r"--[^\n]*")
_CONSTANTS = re.compile(
    r"^local ([A-Z][A-Z_]+(?:, [A-Z][A-Z_]+)*) = ([\d.]+(?:, [\d.]+)*|'[^'\n]*')(?= *(?:--|$)).*\n", re.M
)

_FUNCTION = re.compile(r"^function (\w+)\([^)]*\)(?: .* end|\n(?:.*\n)*?end)\n", re.M)
_PRIVATE = re.compile(r"^local (?:function )?(\w+(?:, \w+)*)", re.M)

_RARE = """\
local rare_made
rare = function()
if rare_made then return rare_made end
{tables}rare_made = {{{names}}}
return rare_made
end
"""


def assembled(package: str, name: str) -> str:
    """The text of a script behind all the libraries that it needs, each behind those that it needs itself."""
    script = read(package, f"{name}.lua")
    libraries = _in_order(package, script)
    always = _reachable(package, script)
    flat = {each: f"{each}_" for _, each in always}
    rare = {each: f"{each}()." for room, each in libraries if (room, each) not in always}
    outside = flat | {each: f"rare().{used}" for each, used in rare.items()}
    tables = "".join(
        _table(each, _linked(_text((room, each)), flat | rare, each))
        for room, each in libraries
        if each in rare
    )
    bodies = {
        each: _body(each, _linked(_text((room, each)), outside)) for room, each in libraries if each in flat
    }
    script = _linked(script, outside)
    bodies, moved = _without_unused(bodies, script, tables)
    parts = [_locals(each, body) for each, body in bodies.items()]
    if tables:
        parts = [
            "local rare\n",
            *parts,
            _RARE.format(tables=moved + tables, names=", ".join(f"{each} = {each}" for each in rare)),
        ]
    return "".join([*parts, script])


@cache
def needs(package: str, text: str) -> dict[Library, bool]:
    """The libraries that the head of a Lua file in `package` names, and whether every call needs them."""
    found = {}
    for kind, names in _NEEDS.findall(text):
        for each in names.split(", "):
            room, _, name = each.rpartition("/")
            found[room.replace("/", ".") or package, name] = kind == "requires"
    return found


@cache
def read(package: str, file: str) -> str:
    """The text of a Lua file of `package`."""
    return resources.files(f"packmule.{package}").joinpath("lua", file).read_text()


def _text(library: Library) -> str:
    package, name = library
    return _with_constants(read(package, f"lib/{name}.lua"))


def _with_constants(text: str) -> str:
    """A library's text with its numbers and texts, such as `local MOST = 10`, where it uses them."""
    for found in _CONSTANTS.finditer(text):
        text = text.replace(found[0], "")
        for name, value in zip(found[1].split(", "), found[2].split(", "), strict=True):
            text = re.sub(rf"\b{name}\b", value.replace("\\", r"\\"), text)
    return text


def _reachable(package: str, text: str) -> set[Library]:
    """The libraries that every call of a script needs."""
    found: set[Library] = set()
    for library, is_always in needs(package, text).items():
        if is_always:
            found |= {library, *_reachable(library[0], _text(library))}
    return found


def _in_order(package: str, text: str, above: tuple[Library, ...] = ()) -> dict[Library, None]:
    """All libraries that a file needs, each behind those that it needs itself."""
    found: dict[Library, None] = {}
    for library in needs(package, text):
        if library in above:
            raise RuntimeError(f"the Lua library {library[1]} needs itself")
        found |= _in_order(library[0], _text(library), (*above, library))
        found[library] = None
    return found


def _linked(text: str, names: dict[str, str], own: str = "") -> str:
    """A file's text with what `groups.` and the like, but its own name, are in the assembled script."""
    others = names.keys() - {own}
    if not others:
        return text
    return re.sub(rf"(?<![\w.])({'|'.join(sorted(others))})\.(?=\w)", lambda found: names[found[1]], text)


def _body(name: str, text: str) -> str:
    """A library's text without the table that it fills."""
    return text.replace(f"\nlocal {name} = {{}}\n", "\n").replace(f"\nreturn {name}\n", "\n")


def _without_unused(bodies: Mapping[str, str], script: str, tables: str) -> tuple[dict[str, str], str]:
    """The libraries of every call without the functions that only rare ones use, and the text of these.

    A function that refers to a private local of its library stays.
    """
    movable: dict[str, str] = {}
    for body in bodies.values():
        private = _words(", ".join(_PRIVATE.findall(body)))
        movable |= {each[1]: each[0] for each in _FUNCTION.finditer(body) if not private & _words(each[0])}

    def without(names: Mapping[str, str]) -> dict[str, str]:
        return {
            name: _FUNCTION.sub(lambda found: "" if found[1] in names else found[0], body)
            for name, body in bodies.items()
        }

    used = _used(movable, "".join([*without(movable).values(), script]))
    rare = {name: text for name, text in movable.items() if name not in used}
    needed = _used(rare, tables)
    moved = f"local {', '.join(needed)}\n{''.join(rare[each] for each in needed)}" if needed else ""
    return without(rare), moved


def _used(functions: Mapping[str, str], text: str) -> list[str]:
    """Those of `functions`, texts by name, that `text` uses, or that one of these uses."""
    found: list[str] = []
    texts = [text]
    while texts:
        words = _words(texts.pop())
        new = [each for each in functions if each in words and each not in found]
        found += new
        texts += [functions[each] for each in new]
    return found


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", _COMMENT.sub("", text)))


def _locals(name: str, body: str) -> str:
    """A library as locals."""
    fields = sorted(set(re.findall(rf"(?<![\w.]){name}_\w+", _COMMENT.sub("", body))))
    return f"local {', '.join(fields)} do\n{body}end\n" if fields else ""


def _table(name: str, text: str) -> str:
    """A library as a function that returns its table, and fills it when it is first called."""
    filled = text.replace(f"\nlocal {name} = {{}}\n", f"\nlocal {name} = {{}}\n{name}_made = {name}\n")
    made = f"if {name}_made then return {name}_made end"
    return f"local {name}_made\nlocal function {name}()\n{made}\n{filled}end\n"
