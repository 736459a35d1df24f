"""Pictures for the tests of the image job: made, saved and compared."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageMath, ImageOps, ImageStat

from packmule.jobs.image import image
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "jobs/samples/photo.jpg"
LIMITS = InputLimits(file_bytes=20_000_000, attachment_bytes=1, pixels=200_000_000)


def upright() -> Image.Image:
    """The sample, upright, 1024x768."""
    with Image.open(PHOTO) as photo:
        return ImageOps.exif_transpose(photo)


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_claiming(width: int, height: int, bits: int = 8, kind: int = 2, before: bytes = b"") -> bytes:
    """A PNG whose header announces those pixels, and whose data end early."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + before + data + chunk(b"IEND", b"")


def with_scans(progressive: bytes, extra: int) -> bytes:
    """A progressive JPEG whose last scan is repeated `extra` times."""
    last = progressive.rindex(b"\xff\xda")
    return progressive[:-2] + progressive[last:-2] * extra + b"\xff\xd9"


def animation(format: str, count: int = 3, size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    """Red, green and blue frames, and so on."""
    colours = ["red", "lime", "blue"]
    frames = [Image.new("RGB", size, colours[at % 3]) for at in range(count)]
    for at, frame in enumerate(frames):
        # Encoders leave out frames that are equal to the last one.
        frame.putpixel((at % size[0], 0), (at % 256, 100, 200))
    options = {"duration": [50 * (at % 4 + 1) for at in range(count)], "loop": 0} | options
    return saved(frames[0], format, save_all=True, append_images=frames[1:], **options)


def made(storage: Storage, source: bytes, *renditions: dict | str, out: str = "out") -> list[Image.Image]:
    """The renditions of `source`, opened."""
    storage.write_bytes("in/source.bin", source)
    wishes = [each if isinstance(each, str) else {"quality": 95} | each for each in renditions]
    pictures = []
    for fact in image("in/source.bin", wishes, out)["renditions"]:
        picture = Image.open(BytesIO(storage.read_bytes(fact["path"])))
        picture.load()
        assert picture.size == (fact["width"], fact["height"])
        assert picture.format.lower() == fact["format"]
        assert storage.size(fact["path"]) == fact["bytes"]
        pictures.append(picture)
    return pictures


def mean_error(one: Image.Image, other: Image.Image) -> float:
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return max(ImageStat.Stat(difference).mean)


def nothing_written(storage: Storage, folder: Path) -> bool:
    left = folder / ".tmp"
    return storage.names("out/") == [] and (not left.exists() or list(left.iterdir()) == [])


def ssim(one: Image.Image, other: Image.Image) -> float:
    """Mean structural similarity of the luma over blocks of 8x8 pixels."""
    x, y = (picture.convert("L").convert("F") for picture in (one, other))

    def mean(picture: Image.Image) -> Image.Image:
        return picture.crop((0, 0, x.width // 8 * 8, x.height // 8 * 8)).reduce(8)

    def product(a: Image.Image, b: Image.Image) -> Image.Image:
        return ImageMath.lambda_eval(lambda given: given["a"] * given["b"], a=a, b=b)

    similarity = ImageMath.lambda_eval(
        lambda m: (
            ((2 * m["x"] * m["y"] + 6.5025) * (2 * (m["xy"] - m["x"] * m["y"]) + 58.5225))
            / (
                (m["x"] * m["x"] + m["y"] * m["y"] + 6.5025)
                * (m["xx"] - m["x"] * m["x"] + m["yy"] - m["y"] * m["y"] + 58.5225)
            )
        ),
        x=mean(x),
        y=mean(y),
        xy=mean(product(x, y)),
        xx=mean(product(x, x)),
        yy=mean(product(y, y)),
    )
    return similarity.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
