"""What an image may cost: bombs are refused before they are decoded, finally and in one plain line."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from packmule.coordination.cache.cache import Cache
from packmule.jobs import context
from packmule.jobs.handle import JobRaised
from packmule.jobs.host_shares import HostMemory
from packmule.jobs.image import HOPELESS, ImageTooLarge, OverwritesSource, Rendition, image, memory
from packmule.jobs.image.colour import eight_bit
from packmule.jobs.image.hostile import MAX_CHUNKS, MAX_SEGMENTS, refuse_bomb
from packmule.jobs.image.source import UnreadableImage, opened
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage
from packmule.tests.jobs.pictures import (
    PHOTO,
    ROOT,
    animation,
    chunk,
    made,
    mean_error,
    nothing_written,
    png_claiming,
    saved,
    upright,
    with_scans,
)
from packmule.worker import Worker


def refused(storage, source, *renditions, match):
    with pytest.raises(ImageTooLarge, match=match) as error:
        made(storage, source, *(renditions or [{"width": 10}]))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(("in/source.bin", "the renditions of in/", "the animations of in/"))


def test_nothing_is_made_from_an_enlargement(storage):
    photo = upright().resize((200, 150), Image.Resampling.LANCZOS)
    source = saved(photo, "PNG")
    for wishes in (
        [{"width": 800, "height": 800, "fit": "cover"}, {"width": 190}],
        [{"width": 1600, "height": 1200, "fit": "stretch"}, {"width": 380, "height": 150, "fit": "stretch"}],
        [{"width": 900, "enlarge": True}, {"width": 150}],
        [{"width": 400, "height": 75, "fit": "stretch"}, {"width": 190}],
    ):
        together, alone = made(storage, source, *wishes)[-1], made(storage, source, wishes[-1])[0]
        assert together.tobytes() == alone.tobytes()


def test_a_tiny_source_beside_its_enlargement_keeps_its_pixels(storage):
    drawing = Image.effect_noise((3, 2), 90)
    *_, small = made(
        storage, saved(drawing, "PNG"), {"width": 300, "height": 300, "fit": "cover"}, {"width": 3}
    )
    assert small.tobytes() == drawing.tobytes()


def test_every_refusal_is_final():
    assert {ImageTooLarge, OverwritesSource} < set(HOPELESS)


@pytest.mark.parametrize(("bits", "kind"), [(16, 0), (8, 2), (8, 6), (16, 4)])
def test_pixels_that_would_take_too_much_memory_are_refused_undecoded(
    storage, folder, bits, kind, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000_000)
    context.provide(InputLimits(file_bytes=20_000_000, attachment_bytes=1, pixels=2_000_000_000))
    refused(
        storage,
        png_claiming(40_000, 30_000, bits, kind),
        match=r"takes [\d,]+ MiB to decode, but .* 1,536 MiB",
    )
    assert nothing_written(storage, folder)


def test_renditions_that_would_take_too_much_memory_together_are_refused(storage, folder):
    square = {"width": 8000, "height": 8000, "fit": "cover"}
    refused(storage, PHOTO.read_bytes(), *[square] * 6, match=r"take [\d,]+ MiB together.*fewer$")
    assert nothing_written(storage, folder)


KINDS = {
    "l.png": ("L", {}),
    "p.png": ("P", {}),
    "rgba.png": ("RGBA", {}),
    "i16.png": ("I;16", {}),
    "rgb.jpg": ("RGB", {}),
    "progressive.jpg": ("RGB", {"progressive": True, "subsampling": 0}),
    "cmyk.jpg": ("CMYK", {}),
    "rgba.webp": ("RGBA", {"method": 0}),
    "rgb.avif": ("RGB", {"speed": 10}),
    "lab.tif": ("LAB", {"compression": "tiff_lzw"}),
    "i16.tif": ("I;16", {}),
    "p.gif": ("P", {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_decoding_takes_no_more_memory_than_was_estimated(tmp_path, name):
    """In a process of its own, since memory that was freed doesn't count."""
    mode, options = KINDS[name]
    grey = Image.effect_noise((2000, 1500), 60)
    picture = Image.merge("RGB", (grey, grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT), grey))
    picture = (
        Image.frombytes("I;16", picture.size, os.urandom(2000 * 1500 * 2))
        if mode == "I;16"
        else picture.convert(mode)
    )
    file = tmp_path / name
    picture.save(file, **options)
    program = (
        "import sys; from packmule.tests.jobs import test_image_bounds as t; "
        "t.opened_beforehand(); print(t.decoded_in(t.Path(sys.argv[1])))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program, str(file)], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    grown, estimate = map(int, output.strip("()\n").split(","))
    assert grown < estimate + 6_000_000


def opened_beforehand() -> None:
    with PHOTO.open("rb") as content, opened(content, "a", 10**9):
        pass


def decoded_in(file: Path) -> tuple[int, int]:
    """How much this process grew at most, and the estimate."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with file.open("rb") as content, opened(content, "a", 10**9) as original:
        estimate = memory.decoding(original.picture, original.size[0] * original.size[1])
        original.decode(None)
        eight_bit(original.picture)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, estimate


def test_running_out_of_memory_is_said_in_one_line(tmp_path):
    """The estimate can be wrong: what the allocator refuses is no bare MemoryError, and no retry."""
    program = (
        "import resource, sys\n"
        "from packmule.jobs import context\n"
        "from packmule.jobs.image import image, ImageTooLarge\n"
        "from packmule.jobs.input_limits import InputLimits\n"
        "from packmule.jobs.storage import Storage\n"
        "context.provide(Storage(sys.argv[1]), InputLimits(10**8, 1, 10**8))\n"
        "image('a.jpg', [{'width': 10}], 'first')\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 30_000_000,) * 2)\n"
        "try:\n"
        "    image('b.png', [{'width': 10}], 'second')\n"
        "except ImageTooLarge as error:\n"
        "    print(error)\n"
    )
    storage = Storage(str(tmp_path))
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    storage.write_bytes("b.png", saved(Image.new("RGB", (6000, 5000)), "PNG"))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "b.png and its renditions take more memory than the 2 GiB of an image job\n"


def test_scans_and_pixels_of_a_jpeg_are_one_bound(storage, folder):
    large = saved(Image.new("L", (6000, 5000)), "JPEG", progressive=True, quality=20)
    refused(
        storage,
        with_scans(large, 40),
        match=r"is a JPEG with 34 or more scans of 30,000,000 pixels, a decompression bomb",
    )
    assert nothing_written(storage, folder)


def test_scans_of_jpegs_in_a_tiff_are_bounded_too(storage, folder):
    scans = with_scans(saved(upright(), "JPEG", progressive=True), 200)
    refused(storage, tiff_of(scans, (768, 1024)), match=r"is a TIFF of JPEGs with 2\d\d scans")
    refused(storage, tiff_of(scans, (768, 1024), compression=6), match="old-style JPEG")
    few = with_scans(saved(upright(), "JPEG", progressive=True), 40)
    refused(storage, tiff_of(few, (768, 64), strips=16), match="parts overlap")
    assert nothing_written(storage, folder)


def test_a_tiff_of_ordinary_jpegs_is_read(storage):
    [picture] = made(storage, saved(upright(), "TIFF", compression="jpeg", quality=95), {"width": 512})
    assert mean_error(picture, upright().resize((512, 384), Image.Resampling.LANCZOS)) < 5


def tiff_of(jpeg: bytes, part: tuple[int, int], strips: int = 1, compression: int = 7) -> bytes:
    """A TIFF of `strips` strips, of which each is the same `jpeg`."""
    width, rows = part
    tags = [
        (256, 4, 1, width), (257, 4, 1, rows * strips), (258, 3, 1, 8), (259, 3, 1, compression),
        (262, 3, 1, 6), (273, 4, strips, 0), (277, 3, 1, 3), (278, 4, 1, rows), (279, 4, strips, 0),
    ]  # fmt: skip
    after = 8 + 2 + 12 * len(tags) + 4
    data = after + 8 * strips
    where = {273: (after, [data] * strips), 279: (after + 4 * strips, [len(jpeg)] * strips)}
    entries, arrays = b"", b""
    for tag, kind, count, value in tags:
        offset, values = where.get(tag, (value, [value]))
        arrays += struct.pack(f"<{strips}I", *values) if tag in where else b""
        entries += struct.pack("<HHII", tag, kind, count, offset if count > 1 else values[0])
    return (
        struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + bytes(4) + arrays + jpeg
    )


def test_a_flood_of_chunks_or_segments_is_refused_without_reading_them(storage, folder):
    flood = chunk(b"tEXt", b"a\0b") * MAX_CHUNKS
    refused(storage, png_claiming(10, 10, before=flood), match=r"is a PNG with over 100,000 chunks")
    photo = PHOTO.read_bytes()
    flood = photo[:2] + b"\xff\xfe\x00\x02" * MAX_SEGMENTS + photo[2:]
    refused(storage, flood, match=r"is a JPEG with over 10,000 segments, a decompression bomb")
    assert nothing_written(storage, folder)


def test_a_gif_is_counted_without_being_decoded(tmp_path):
    file = tmp_path / "a.gif"
    for count in (1, 7):
        file.write_bytes(animation("GIF", count))
        assert frames_of(file) == count
    file.write_bytes(gif_of(5000))
    assert frames_of(file) == 1001


def frames_of(file: Path) -> int:
    with file.open("rb") as content:
        return refuse_bomb(content, "a.gif")


def gif_of(frames: int, size: tuple[int, int] = (1, 1), extent: tuple[int, int] = (1, 1)) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, *extent, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * frames + b";"


def test_an_animation_of_too_many_frames_is_refused_but_its_first_frame_is_not(storage, folder):
    refused(storage, gif_of(60_000), match=r"over 1,000 frames, the most: make still renditions of it")
    assert nothing_written(storage, folder)
    still, jpeg = made(storage, gif_of(60_000), {"width": 4, "still": True}, {"width": 4, "format": "jpeg"})
    assert still.size == jpeg.size == (1, 1)


@pytest.mark.parametrize("format", ["WEBP", "PNG", "GIF"])
def test_frames_and_pixels_of_an_animation_are_one_bound(storage, folder, format, monkeypatch):
    monkeypatch.setattr("packmule.jobs.image.hostile.MAX_WORK", 60 * 40 * 5 - 1)
    refused(storage, animation(format, 5), match=r"of 5 frames with 2,400 pixels each, over 11,999 together")
    assert nothing_written(storage, folder)
    made(storage, animation(format, 4), {"width": 10})


def test_the_pixels_of_all_frames_of_all_renditions_are_bounded(storage, folder):
    wide = {"width": 4000, "enlarge": True, "format": "webp"}
    refused(storage, animation("GIF", 30), wide, match=r"have 320,\d+,\d+ pixels in all frames")
    assert nothing_written(storage, folder)


def test_a_frame_cannot_enlarge_the_canvas_of_a_gif(storage, folder):
    grown = gif_of(1)[:-1] + gif_of(1, extent=(60_000, 60_000))[19:]
    refused(storage, grown, match="with a frame beyond its canvas")
    refused(storage, gif_of(1, extent=(60_000, 60_000)), match="more")
    assert nothing_written(storage, folder)


def test_an_animation_that_announces_more_frames_than_it_has_is_refused(storage, folder):
    from packmule.jobs.image import UnreadableImage

    moving = animation("PNG", 3)
    at = moving.index(b"acTL")
    claiming = moving[: at - 4] + chunk(b"acTL", struct.pack(">II", 900, 0)) + moving[at + 16 :]
    with pytest.raises(UnreadableImage, match=r"^in/source\.bin is not a readable image"):
        made(storage, claiming, {"width": 10})
    assert nothing_written(storage, folder)


@pytest.mark.parametrize("stem", ["é" * 120, "𝄞" * 60, "長" * 80 + "x"])
def test_a_long_name_is_cut_by_bytes_and_not_within_a_character(storage, stem):
    storage.write_bytes(f"{stem}.jpg", PHOTO.read_bytes())
    [fact] = image(f"{stem}.jpg", [{"width": 20}], "out")["renditions"]
    name = fact["path"].removeprefix("out/")
    assert len(name.encode()) <= 200
    assert stem.startswith(name.removesuffix("-20x15.jpg"))
    assert storage.size(fact["path"]) == fact["bytes"]


def test_a_rendition_never_replaces_its_source(storage):
    for source, wish in (
        ("in/a.jpg", {"width": 9, "name": "a"}),
        ("in/a-9x7.jpg", {"width": 9, "name": "a-9x7"}),
    ):
        storage.write_bytes(source, PHOTO.read_bytes())
        with pytest.raises(OverwritesSource, match=rf"over its source {source}: choose another out or name"):
            image(source, [wish], "in")
        assert storage.read_bytes(source) == PHOTO.read_bytes()
    assert storage.names() == ["in/a-9x7.jpg", "in/a.jpg"]


@pytest.mark.usefixtures("produce")
def test_in_a_worker_a_bomb_fails_its_job_alone_and_is_not_tried_again(storage, client):
    context.provide(Cache(client, "jobs"))
    flood = chunk(b"tEXt", b"a\0b") * MAX_CHUNKS
    scans = with_scans(saved(upright(), "JPEG", progressive=True), 200)
    bombs = [
        png_claiming(60_000, 60_000),
        png_claiming(9, 9, before=flood),
        scans,
        gif_of(2000),
        b"%!PS-Adobe",
    ]
    storage.write_bytes("good.jpg", PHOTO.read_bytes())
    handles = []
    for at, bomb in enumerate(bombs):
        storage.write_bytes(f"{at}.jpg", bomb)
        handles.append(image.enqueue(f"{at}.jpg", [Rendition(width=10)], "out"))
    good = image.enqueue("good.jpg", ["thumb"], "out")
    Worker(["default"], connection=client).work(burst=True)
    for at, handle in enumerate(handles):
        with pytest.raises(JobRaised, match=rf"(ImageTooLarge|UnreadableImage): {at}\.jpg"):
            handle.result(timeout=0)
        assert handle.refresh().attempts == 0
    assert good.result(timeout=0)["renditions"][0]["path"] == "out/good-200x200.jpg"
    assert storage.names("out/") == ["out/good-200x200.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="libtiff is found by /proc")
def test_a_damaged_tiff_writes_nothing_by_itself(storage, capfd):
    data = bytearray(saved(upright(), "TIFF", compression="tiff_adobe_deflate"))
    data[1000:1100] = bytes(100)
    with pytest.raises(UnreadableImage, match=r"source\.bin is not a readable image"):
        made(storage, bytes(data), {"width": 10})
    assert capfd.readouterr().err == ""


LATE = {
    "eXIf": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
    "iTXt": b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>',
    "tEXt": b"date:create\0today",
}


@pytest.mark.parametrize(("kind", "trim"), [(None, None), (None, 5), *((kind, None) for kind in LATE)])
def test_no_image_waits_for_memory_while_its_pixels_take_some(storage, tmp_path, monkeypatch, kind, trim):
    waits, wait = [], HostMemory._waited_for

    def waited_for(self, number, size):
        waits.append(size)
        return wait(self, number, size)

    monkeypatch.setattr(HostMemory, "_waited_for", waited_for)
    context.provide(HostMemory(256 << 20, tmp_path))
    source = saved(Image.effect_noise((400, 300), 40), "PNG")
    if kind:
        source = source[:-12] + chunk(kind.encode(), LATE[kind]) + source[-12:]
    [picture] = made(storage, source, {"width": 150, "trim": trim})
    assert picture.size == ((150, 200) if kind in {"eXIf", "iTXt"} else (150, 112))
    assert len(waits) == 1
    # Only one that must be decoded before it is planned reckons with the largest renditions.
    assert (waits[0] > 1 << 30) == bool(trim or kind in {"eXIf", "iTXt"})
