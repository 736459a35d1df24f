"""DOCX and PPTX: the text in their XML, of which no entity is expanded and no depth is too deep."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from xml.parsers import expat

from packmule.jobs.files.texts.documents import MOST_TEXT, Document
from packmule.jobs.files.unpacking import zips
from packmule.jobs.files.unpacking.bounds import Bounds
from packmule.units import GIB

BOUNDS = Bounds(members=20_000, bytes=GIB, ratio=500, depth=64, path=900, name=255)
MAX_DEPTH = 1_000
MOST_NAMESPACE = 1_000
"""Characters of a namespace, which the parser repeats before the name of each element and attribute."""
SIGNS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011"}

SLIDE = re.compile(r"ppt/slides/slide(\d+)\.xml")
FALLBACK = "http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""What a text box or drawing is to old programs; it repeats what new ones show."""
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"

Start = Callable[[str, dict[str, str]], None]


def docx_pages(document: Document) -> Iterator[str]:
    """Yield the text, foot- and endnotes behind it; how many pages that makes, Word decides each time."""
    wanted = ("word/document.xml", "word/footnotes.xml", "word/endnotes.xml")
    found = dict(_texts(document, lambda name: name in wanted))
    if wanted[0] not in found:
        raise document.broken(f"is damaged: it has no {wanted[0]}")
    yield "\n".join(found[name].strip("\n") for name in wanted if found.get(name, "").strip()) + "\n"


def pptx_pages(document: Document) -> Iterator[str]:
    """Yield the text of each slide, in the order in which they are shown."""
    slides = dict(_texts(document, lambda name: SLIDE.fullmatch(name) is not None))
    order = _order(document)
    names = [name for name in order if name in slides] or sorted(
        slides, key=lambda name: int(SLIDE.sub(r"\1", name))
    )
    document.check_pages(len(names))
    for name in names:
        yield slides[name]


def _order(document: Document) -> list[str]:
    """The slides as the presentation names them."""
    ids: list[str] = []
    targets: dict[str, str] = {}

    def slide(name: str, attributes: dict[str, str]) -> None:
        if name.endswith("}sldId"):
            ids.append(attributes.get(RELATIONS, ""))

    def relation(name: str, attributes: dict[str, str]) -> None:
        if name.endswith("}Relationship"):
            target = attributes.get("Target", "")
            targets[attributes.get("Id", "")] = target.lstrip("/") if target[:1] == "/" else f"ppt/{target}"

    parts = {"ppt/presentation.xml": slide, "ppt/_rels/presentation.xml.rels": relation}
    for name, content in _parts(document, parts.__contains__):
        _parse(document, name, content, parts[name], lambda name: None, lambda text: None)
    return [targets[id] for id in ids if id in targets]


def _texts(document: Document, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """The name and the text of each wanted part."""
    for part, content in _parts(document, is_wanted):
        collected = _Text()
        _parse(document, part, content, collected.start, collected.end, collected.data)
        yield part, "".join(collected.pieces)


class _Text:
    """Collects what is in elements `t` in `pieces`, a line a paragraph."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._is_text = False
        self._fallbacks = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._fallbacks += name == FALLBACK
        name = name.rpartition("}")[2]
        self._is_text = name == "t" and not self._fallbacks
        if name in SIGNS and not self._fallbacks:
            self.pieces.append(SIGNS[name])

    def end(self, name: str) -> None:
        self._is_text = False
        if name.endswith("}p") and not self._fallbacks:
            self.pieces.append("\n")
        self._fallbacks -= name == FALLBACK

    def data(self, text: str) -> None:
        if self._is_text:
            self.pieces.append(text)


def _parts(document: Document, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Iterable[bytes]]]:
    """The names and the content of the wanted parts."""
    with document.file.open("rb") as file:
        for member in zips.members(document.source, file, BOUNDS, None):
            if is_wanted(member.name) and member.fault is None:
                yield member.name, member.content


def _parse(
    document: Document,
    part: str,
    content: Iterable[bytes],
    start: Start,
    end: Callable[[str], None],
    data: Callable[[str], None],
) -> None:
    """Parse XML that declares nothing. Raises `BrokenDocument`."""
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    depth = size = 0

    def refuse(*_: object) -> None:
        raise document.broken(f"{part} declares a document type, as no Office file does")

    def named(prefix: str | None, namespace: str | None) -> None:
        if len(namespace or "") > MOST_NAMESPACE:
            raise document.broken(f"{part} has a namespace of more than {MOST_NAMESPACE:,} characters")

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise document.broken(f"{part} is more than {MAX_DEPTH:,} elements deep")
        start(name, attributes)

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(name)

    parser.StartDoctypeDeclHandler, parser.StartNamespaceDeclHandler = refuse, named
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = opened, closed, data
    try:
        for piece in content:
            size += len(piece)
            if size > MOST_TEXT:
                raise document.broken(f"{part} has more than {MOST_TEXT:,} bytes")
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two for an odd encoding
        raise document.broken(f"{part} is damaged: {error}") from None
