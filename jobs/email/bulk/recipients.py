"""The recipients of a list: each row checked before anything is sent, each address once, kept on disk."""

from __future__ import annotations

import secrets
import shutil
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b, sha256
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from packmule.errors import UsageError
from packmule.jobs.email.bulk.columns import SAMPLED, VariableNames, column_of
from packmule.jobs.email.bulk.table import Listed, UnreadableList
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.jobs.files.refusals import Refusals, RefusedRow
from packmule.jobs.job_type import InvalidCall
from packmule.units import KIB

MAX_ROW = 32 * KIB
"""Bytes of JSON that a recipient's variables may take."""

MAX_BAD = 0.05
"""The share of bad rows above which a list is refused as a whole, unless the caller sets another."""

EXAMPLES = 3
"""Bad rows that an error quotes."""


class TooManyBad(UsageError, ValueError):
    """More rows of a list are bad than its sender allows; nothing was enqueued."""


class Checked(msgspec.Struct, frozen=True):
    """What became of the rows of a list: `recipients` are good and each address is there once.

    `bad` rows can't be sent to, and `bad_rows` are the first of them. `digest` depends on the recipients and
    their variables.
    """

    source: str
    column: str
    variable: str
    encoding: str
    rows: int
    recipients: int
    duplicates: int
    bad: int
    bad_rows: list[RefusedRow]
    digest: str


class Recipients:
    """Checked recipients, as JSON Lines in a file of a private folder; `checked` says what they are."""

    def __init__(self, checked: Checked, file: Path) -> None:
        self.checked = checked
        self._file = file

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the variables of each recipient, its address among them."""
        with self._file.open("rb") as content:
            yield from map(msgspec.json.Decoder(dict[str, Any]).decode, content)


def check(
    listed: Listed,
    folder: Path,
    column: str | None = None,
    max_bad: float = MAX_BAD,
    bad_rows: Path | None = None,
) -> Recipients:
    """Check the rows of a list and keep the good ones in `folder`; bad ones are written to `bad_rows`, too.

    An address counts once, as mail servers compare it: the case of its domain doesn't matter. Raises
    `NoColumn` and `UnreadableList`, and `TooManyBad` if a larger share of the rows than `max_bad` is bad.
    """
    if not (isinstance(max_bad, int | float) and 0 <= max_bad <= 1):
        raise InvalidCall(f"max_bad={max_bad!r}: give a share from 0 to 1, such as 0.05")
    column = _column(listed, folder, column)
    names = VariableNames(listed.source)
    seen, digest = Seen(), sha256()
    recipients = duplicates = 0
    with ExitStack() as closing:
        refusals = closing.enter_context(Refusals(listed.source, folder / "bad", None))
        spool = closing.enter_context((folder / "recipients").open("wb"))
        for row in listed.rows(refusals):
            text = row.values.get(column)
            try:
                spec = _spec(text)
                written = _written(names.variables(row.values))
            except (InvalidAddress, InvalidCall) as error:
                refusals.add(
                    row.line, column if isinstance(error, InvalidAddress) else None, str(error), str(text)
                )
                continue
            if seen.add(spec):
                recipients += 1
                digest.update(written)
                spool.write(written)
            else:
                duplicates += 1
        bad = refusals.count
    rows = recipients + duplicates + bad
    first = [msgspec.convert(each, RefusedRow) for each in refusals.first]
    checked = Checked(
        listed.source, column, names.of(column), listed.encoding, rows, recipients, duplicates, bad, first,
        digest.hexdigest(),
    )  # fmt: skip
    if bad_rows is not None:
        _copy(folder / "bad", bad_rows)
    _refuse(checked, max_bad)
    return Recipients(checked, folder / "recipients")


def _column(listed: Listed, folder: Path, wanted: str | None) -> str:
    with Refusals(listed.source, folder / "bad", None) as refusals:
        sample = list(islice(listed.rows(refusals), SAMPLED))
    if not sample and refusals.first:
        raise UnreadableList(f"{listed.source} has no row that can be read: {_example(refusals.first[0])}")
    if not sample:
        raise UnreadableList(f"{listed.source} has no rows below its header: there is nobody to send to")
    return column_of(listed.source, sample, wanted)


def _copy(found: Path, target: Path) -> None:
    try:
        shutil.copyfile(found, target)
    except OSError as error:
        raise UnreadableList(f"can't write the bad rows to {target}: {error.strerror}") from None


def _refuse(checked: Checked, max_bad: float) -> None:
    if checked.bad > max_bad * checked.rows:
        share = 100 * checked.bad / checked.rows
        examples = "; ".join(_example(msgspec.to_builtins(each)) for each in checked.bad_rows[:EXAMPLES])
        more = "; ..." if checked.bad > EXAMPLES else ""
        raise TooManyBad(
            f"{checked.source}: {checked.bad:,} of {checked.rows:,} rows are bad ({share:.3g} %, and "
            f"{100 * max_bad:g} % are allowed): {examples}{more}; fix them, or raise --max-bad (max_bad=)"
        )
    if not checked.recipients:
        raise UnreadableList(f"{checked.source} has no recipients: there is nobody to send to")


def _example(bad: dict[str, Any]) -> str:
    column = f", column {bad['column']}" if bad["column"] else ""
    return f"line {bad['line']:,}{column}: {bad['reason']}"


def _spec(text: Any) -> str:
    """The bare address in `text`, as servers compare it. Raises `InvalidAddress`."""
    if text is None or text == "":
        raise InvalidAddress("it is empty")
    if not isinstance(text, str):
        raise InvalidAddress(f"{text!r:.80} is not text")
    return parse(text).spec


def _written(variables: dict[str, Any]) -> bytes:
    """The variables as a line of JSON. Raises `InvalidCall` if they take too much."""
    try:
        written = msgspec.json.encode(variables)
    except ValueError as error:  # half of a character
        raise InvalidCall(f"a value is not text: {error}") from None
    if len(written) > MAX_ROW:
        raise InvalidCall(f"its values take {len(written):,} bytes, and at most {MAX_ROW:,} are allowed")
    return written + b"\n"


class Seen:
    """The addresses so far, as digests in 12 to 24 bytes each: a set would take ten times that.

    They have 64 bits and a secret key, so nobody can make two addresses meet, and by chance two of a million
    do once in 30 million lists.

    >>> seen = Seen()
    >>> seen.add("ada@example.org"), seen.add("ada@example.org")
    (True, False)
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)
        self._slots = array("Q", bytes(8 << 10))
        self._count = 0

    def add(self, address: str) -> bool:
        """Add one; False if it was there."""
        digest = blake2b(address.encode(errors="surrogatepass"), digest_size=8, key=self._key).digest()
        if not self._placed(int.from_bytes(digest, "little") or 1):
            return False
        self._count += 1
        if self._count * 3 > len(self._slots) * 2:
            old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
            for each in old:
                if each:
                    self._placed(each)
        return True

    def _placed(self, digest: int) -> bool:
        slots = self._slots
        mask = len(slots) - 1
        at = digest & mask
        while (found := slots[at]) and found != digest:
            at = (at + 1) & mask
        slots[at] = digest
        return not found
