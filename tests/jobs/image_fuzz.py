"""Damaged images by the thousand: each ends in whole renditions or one plain line, within its bounds.

    python tests/jobs/image_fuzz.py [files of each format] [first seed]

A file is truncated, or has bits flipped, bytes replaced or parts doubled, chosen by its seed. Each batch is
made in a process of its own, so that a decoder that crashes is noticed, with the seed at which it did.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image

from packmule.jobs import context
from packmule.jobs.image import HOPELESS, image
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage
from packmule.tests.jobs.pictures import animation, saved, upright

BATCH = 50
MEMORY = 1 << 30
SECONDS = 60
"""Of processor time, for a batch."""

WISHES = [
    {"width": 64, "keep": ["copyright", "gps"]},
    {"width": 20, "height": 20, "fit": "cover", "format": "jpeg", "trim": 3},
]


def sources() -> dict[str, bytes]:
    """An image of each kind, small so that damage hits what matters."""
    photo = upright().resize((160, 120), Image.Resampling.LANCZOS)
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 6, "Ada"
    exif.get_ifd(0x8825)[1] = "N"
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    deep = Image.frombytes("I;16", (160, 120), os.urandom(160 * 120 * 2))
    return {
        "jpeg": saved(photo, "JPEG", exif=exif),
        "progressive": saved(photo, "JPEG", progressive=True),
        "cmyk": saved(photo.convert("CMYK"), "JPEG"),
        "png": saved(clear, "PNG", exif=exif),
        "palette": saved(photo.quantize(40), "PNG", transparency=3),
        "png16": saved(deep, "PNG"),
        "apng": animation("PNG", 4),
        "gif": animation("GIF", 4),
        "webp": saved(clear, "WEBP", exif=exif),
        "moving webp": animation("WEBP", 4),
        "avif": saved(photo, "AVIF", speed=10, exif=exif),
        "tiff": saved(photo, "TIFF", compression="tiff_lzw", exif=exif),
        "tiff jpeg": saved(photo, "TIFF", compression="jpeg"),
        "tiff deflate": saved(clear, "TIFF", compression="tiff_adobe_deflate"),
        "bmp": saved(photo, "BMP"),
        "heic": Path(__file__).with_name("photo.heic").read_bytes(),
    }


def damaged(data: bytes, seed: int) -> bytes:
    """`data` with damage of one kind."""
    chance = random.Random(seed)
    changed = bytearray(data)
    # Most of what decides is in the first bytes.
    span = min(len(data), 600) if chance.random() < 0.5 else len(data)
    kind = chance.randrange(4)
    if kind == 0:
        return data[: chance.randrange(len(data))]
    if kind == 1:
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(span)] ^= 1 << chance.randrange(8)
    elif kind == 2:
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(span)] = chance.choice((0, 0xFF, 0x7F, 0x80, chance.randrange(256)))
    else:
        at, length = chance.randrange(span), chance.randint(1, 64)
        changed[at:at] = changed[at : at + length] * chance.randint(1, 30)
    return bytes(changed)


def outcome(storage: Storage, data: bytes) -> str:
    """`made`, or the name of the error. Raises `AssertionError` if anything isn't as it should be."""
    storage.write_bytes("in.bin", data)
    try:
        result = image("in.bin", WISHES, "out", ["exif", "gps", "colour", "thumbhash"])
    except HOPELESS as error:
        text = str(error)
        assert text.startswith(
            ("in.bin", "the renditions of in.bin", "the animations of in.bin", "a rendition")
        ), text
        assert "\n" not in text, text
        assert text.isprintable(), repr(text)
        return type(error).__name__
    for fact in result["renditions"]:
        with Image.open(BytesIO(storage.read_bytes(fact["path"]))) as picture:
            picture.load()
            assert picture.size == (fact["width"], fact["height"])
    return "made"


def batch(name: str, data: bytes, seeds: range, folder: Path) -> Counter[str]:
    """The outcomes of those seeds, from a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            warnings.simplefilter("ignore")
            storage = Storage(str(folder / name))
            context.provide(storage, InputLimits(10_000_000, 1, 50_000_000))
            for seed in seeds:
                os.write(writer, f"{seed} ".encode())
                os.write(writer, (outcome(storage, damaged(data, seed)) + "\n").encode())
                left = list((folder / name / ".tmp").iterdir())
                assert not left, left
            status = 0
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as answers:
        lines = answers.read().splitlines()
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"{name}: process ended with {status} after: {lines[-2:]}")
    return Counter(line.split(" ", 1)[1] for line in lines)


def fuzz(count: int, first: int, report: Callable[[str], object]) -> Counter[str]:
    """Damage each source `count` times; the outcomes together."""
    together: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="packmule-fuzz-") as place:
        for name, data in sources().items():
            began = time.monotonic()
            found: Counter[str] = Counter()
            for start in range(first, first + count, BATCH):
                found += batch(name, data, range(start, min(start + BATCH, first + count)), Path(place))
            together += found
            counts = ", ".join(f"{number} {what}" for what, number in sorted(found.items()))
            report(f"{name}: {counts} in {time.monotonic() - began:.1f} s")
    return together


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    fuzz(*(given + [1000, 0][len(given) :]), print)
