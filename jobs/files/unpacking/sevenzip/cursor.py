"""A place in the header of a 7z archive: no count in it is believed unless as many bytes follow."""

from __future__ import annotations

from packmule.jobs.files.unpacking.streams import BrokenArchive


class Cursor:
    """A place in a header, which is read forwards."""

    def __init__(self, source: str, data: bytes) -> None:
        self.source = source
        self._data, self._at = data, 0

    def damaged(self) -> BrokenArchive:
        """The error for what can't be meant."""
        return BrokenArchive(f"{self.source} is damaged: its header is wrong near byte {self._at:,}")

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > self.left:
            raise self.damaged()
        self._at += size
        return self._data[self._at - size : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def expect(self, *kinds: int) -> int:
        """The next byte, which is one of these."""
        if (kind := self.byte()) not in kinds:
            raise self.damaged()
        return kind

    def number(self) -> int:
        """A number: the bits set first in its first byte are how many bytes follow that."""
        first, value = self.byte(), 0
        for place in range(8):
            mask = 0x80 >> place
            if not first & mask:
                return value | (first & (mask - 1)) << 8 * place
            value |= self.byte() << 8 * place
        return value

    def count(self) -> int:
        """How many follow, of what takes a byte at least."""
        if (count := self.number()) > self.left:
            raise self.damaged()
        return count

    def bits(self, count: int) -> list[bool]:
        data = self.take((count + 7) // 8)
        return [bool(data[place // 8] & 0x80 >> place % 8) for place in range(count)]

    def defined(self, count: int) -> list[bool]:
        """Which of them are there: all, or those of the bits that follow."""
        return self.bits(count) if self.byte() == 0 else [True] * count

    def checksums(self, count: int) -> list[int | None]:
        return [self.word() if is_there else None for is_there in self.defined(count)]

    def word(self) -> int:
        return int.from_bytes(self.take(4), "little")
