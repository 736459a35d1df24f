"""The encoding of text that is not UTF-8: found where only one fits well, and otherwise not guessed."""

from __future__ import annotations

import re
from collections.abc import Callable

CLOSE = 0.1
"""Two encodings whose disorder differs by less are equally likely."""
SURE = 0.85
"""The share of the other than ASCII characters that must be common in an encoding."""

WESTERN = "àáâãäåæçèéêëìíîïñòóôõöøùúûüÿœšžßªº’"
SIGNS = "°€£©®™²³«»“”‘’„‚–—…·•§½¼¾±µ×÷¿¡\xa0´¨†‰"
OPENING = "¿¡“‘„«’°"
"""Signs that a letter may follow."""
WORD = re.compile(r"[^\W\d_]+(?:’[^\W\d_]+)?")

Share = Callable[[str], float]
"""How many of a text's other than ASCII characters are common ones, as a share."""


def _latin(letters: str, most: int = 2) -> Share:
    """For alphabets whose words have ASCII letters too, and at most `most` times as many others."""

    def share(text: str) -> float:
        good = 0
        for word in WORD.findall(text):
            others = sum(character.lower() in letters for character in word)
            if most * sum(map(str.isascii, word)) >= others:
                good += others
        for sign in re.finditer(f"[{re.escape(SIGNS)}](?=(.?))", text):
            good += sign[0] not in letters and (sign[0] in OPENING or not sign[1].isalpha())
        return good / _others(text)

    return share


def _script(first: str, last: str) -> Share:
    """For alphabets whose words have no ASCII letters, and capitals only at the beginning, or throughout."""

    def share(text: str) -> float:
        words = (word for word in WORD.findall(text) if all(first <= letter <= last for letter in word))
        good = (len(word) for word in words if word.islower() or word.istitle() or word.isupper())
        return sum(good) / _others(text)

    return share


def _leads(encoding: str, *ranges: tuple[int, int]) -> Share:
    """For encodings of many characters, whose common ones begin with a byte in `ranges`."""

    def share(text: str) -> float:
        leads = [(each.encode(encoding, "replace"))[0] for each in text if not each.isascii()]
        return sum(any(low <= lead <= high for low, high in ranges) for lead in leads) / _others(text)

    return share


def _others(text: str) -> int:
    return max(1, sum(not character.isascii() for character in text))


western = _latin(WESTERN)

COMMON: dict[str, Share] = {
    "cp1252": _latin(WESTERN + "þðý"),
    "cp1250": _latin("áâăäąçćčďđéęëěíîĺľłńňóôőöŕřśšşťţúůűüýźžżß"),
    "cp1254": _latin("âçéğıi̇îöşüû"),
    "cp1251": _script("Ѐ", "ӿ"),
    "koi8_r": _script("Ѐ", "ӿ"),
    "cp866": _script("Ѐ", "ӿ"),
    "cp1253": _script("Ͱ", "Ͽ"),
    "cp932": _leads("cp932", (0x81, 0x83), (0x88, 0x98), (0xA6, 0xDF)),
    "gb18030": _leads("gb18030", (0xA1, 0xA3), (0xB0, 0xD7)),
    "big5": _leads("big5", (0xA1, 0xA1), (0xA4, 0xC6)),
    "cp949": _leads("cp949", (0xB0, 0xC8)),
    "euc_jp": _leads("euc_jp", (0xA1, 0xA5), (0xB0, 0xCF)),
}


def found_encoding(content: bytes) -> tuple[str | None, list[str]]:
    """The only encoding that fits lines which aren't UTF-8, or None; and those that are likely."""
    if western(content.decode("cp1252", "replace")) >= SURE:
        return "cp1252", ["cp1252"]
    from charset_normalizer import from_bytes  # noqa: PLC0415  only for texts that aren't UTF-8

    likely = sorted(
        (match.chaos, -match.coherence, encoding)
        for match in from_bytes(content, cp_isolation=list(COMMON))
        for encoding in {match.encoding, *match.could_be_from_charset} & COMMON.keys()
        if COMMON[encoding](content.decode(encoding, "replace")) >= SURE
    )
    names = [encoding for *_, encoding in likely]
    is_sure = len(likely) == 1 or (len(likely) > 1 and likely[1][0] - likely[0][0] > CLOSE)
    return names[0] if is_sure else None, names
