"""The image job: upright, true in colour, exact in size; hostile files are refused; no partial files."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import time
from io import BytesIO
from uuid import uuid4

import pytest
from PIL import Image, ImageCms, ImageEnhance, ImageOps

from packmule.coordination.cache.cache import Cache
from packmule.coordination.cache.link import Link
from packmule.jobs import context
from packmule.jobs.image import ImageTooLarge, Rendition, UnreadableImage, image
from packmule.jobs.image import making as decoding
from packmule.jobs.image.resize import _crisper_with_pillow, crisper, resize, resizer
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage, StorageError
from packmule.tests.jobs import pictures
from packmule.tests.jobs.pictures import (
    LIMITS,
    PHOTO,
    ROOT,
    made,
    mean_error,
    nothing_written,
    png_claiming,
    saved,
    with_scans,
)

STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(scope="module")
def upright():
    """The sample, upright, 1024x768."""
    return pictures.upright()


def oriented(upright: Image.Image, orientation: int, format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = STORED_AS[orientation]
    return saved(upright if turn is None else upright.transpose(turn), format, exif=exif)


@pytest.mark.parametrize("orientation", STORED_AS)
def test_every_orientation_of_a_jpeg_comes_out_upright(storage, upright, orientation):
    source = oriented(upright, orientation, "JPEG")
    whole, crop = made(storage, source, {"width": 480}, {"width": 300, "height": 100, "fit": "cover"})
    assert mean_error(whole, upright.resize((480, 360), Image.Resampling.LANCZOS)) < 4
    assert mean_error(crop, ImageOps.fit(upright, (300, 100), Image.Resampling.LANCZOS)) < 4


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [2, 6, 7])
def test_orientation_works_in_other_formats(storage, upright, format, orientation):
    [whole] = made(storage, oriented(upright, orientation, format), {"width": 480})
    assert mean_error(whole, upright.resize((480, 360), Image.Resampling.LANCZOS)) < 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_data_does_not_matter(storage, upright):
    [whole] = made(
        storage, saved(upright, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(9)), {"width": 480}
    )
    assert whole.size == (480, 360)


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"width": 800}, (800, 600)),
        ({"height": 300}, (400, 300)),
        ({"width": 500, "height": 500}, (500, 375)),
        ({"width": 333}, (333, 250)),
        ({"width": 1}, (1, 1)),
        ({"width": 4000}, (1024, 768)),
        ({"width": 4000, "height": 384}, (512, 384)),
        ({"width": 300, "height": 300, "fit": "cover"}, (300, 300)),
        ({"width": 90, "height": 700, "fit": "cover"}, (90, 700)),
        ({"width": 2000, "height": 100, "fit": "cover"}, (2000, 100)),
        ({"width": 123, "height": 457, "fit": "stretch"}, (123, 457)),
    ],
)
def test_a_rendition_has_the_exact_size(storage, asked, size):
    assert [picture.size for picture in made(storage, PHOTO.read_bytes(), asked)] == [size]


def test_covering_crops_the_middle_and_stretching_keeps_all(storage, upright):
    cover, stretch = made(
        storage,
        PHOTO.read_bytes(),
        {"width": 200, "height": 400, "fit": "cover"},
        {"width": 200, "height": 400, "fit": "stretch"},
    )
    assert mean_error(cover, ImageOps.fit(upright, (200, 400), Image.Resampling.LANCZOS)) < 5
    assert mean_error(stretch, upright.resize((200, 400), Image.Resampling.LANCZOS)) < 5


def test_a_small_rendition_made_from_a_large_one_is_as_good(storage, upright):
    many = made(storage, PHOTO.read_bytes(), *({"width": width} for width in (100, 900, 450, 850, 220)))
    for picture in many:
        assert mean_error(picture, upright.resize(picture.size, Image.Resampling.LANCZOS)) < 5


def test_the_result_has_the_facts_in_the_order_given_and_progress_if_it_takes_a_while(storage, monkeypatch):
    path = storage.put(PHOTO)
    reports, write = [], storage.write_bytes

    def write_slowly(path: str, data: bytes) -> None:
        deadline = time.monotonic() + 60
        while not reports:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        write(path, data)

    monkeypatch.setattr(storage, "write_bytes", write_slowly)
    with context.Running("job-7", 1, lambda *report: reports.append(report)):
        facts = image(path, [{"width": 100}, {"width": 400, "format": "webp"}, {"width": 50, "name": "tiny"}])
    assert facts["source"] == {"path": path, "format": "jpeg", "width": 1024, "height": 768}
    assert [fact["path"] for fact in facts["renditions"]] == [
        "renditions/job-7/photo-100x75.jpg",
        "renditions/job-7/photo-400x300.webp",
        "renditions/job-7/tiny.jpg",
    ]
    assert reports[0] == (1, 4, f"decoded {path}")
    assert reports[-1] == (4, 4, "renditions/job-7/tiny.jpg")


@pytest.mark.usefixtures("unhurried")
def test_an_image_that_is_made_at_once_costs_two_calls_for_the_cache_and_no_report(
    storage, cache, monkeypatch
):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    image("a.jpg", [{"width": 10}], "out")  # which lets the server know the scripts
    calls, reports, call = [], [], Link.call
    monkeypatch.setattr(Link, "call", lambda link, *commands: calls.append(commands) or call(link, *commands))
    with context.Running("job-7", 1, lambda *report: reports.append(report)):
        image("a.jpg", [{"width": 20}, {"width": 30}], "out")
    assert (len(calls), reports) == (2, [])


def test_after_its_first_import_nothing_is_left_to_import_in_each_process(folder):
    program = (
        "import sys\n"
        "from packmule.jobs import context\n"
        "from packmule.jobs.image import image\n"
        "from packmule.jobs.input_limits import InputLimits\n"
        "from packmule.jobs.storage import Storage\n"
        "context.provide(Storage(sys.argv[1]), InputLimits(10**7, 1, 10**8))\n"
        "before = set(sys.modules)\n"
        "for format in ('jpeg', 'png', 'webp', 'avif', 'gif'):\n"
        "    [made] = image('a.jpg', [{'width': 20, 'format': format}], 'out')['renditions']\n"
        "    image(made['path'], [{'width': 10}], 'again')\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    Storage(str(folder)).write_bytes("a.jpg", PHOTO.read_bytes())
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) <= {"PIL.PpmImagePlugin"}, "which Pillow itself asks for"


def test_two_renditions_of_the_same_name_get_different_paths(storage):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    facts = image("a.jpg", [{"width": 9000}, {"width": 5000, "quality": 5}], "out")
    assert [fact["path"] for fact in facts["renditions"]] == ["out/a-1024x768.jpg", "out/a-1024x768-2.jpg"]
    assert storage.names("out/") == ["out/a-1024x768-2.jpg", "out/a-1024x768.jpg"]
    assert facts["renditions"][0]["bytes"] > 2 * facts["renditions"][1]["bytes"]


def matrix_profile(gamma: float, red, green, blue) -> bytes:
    """An ICC profile of three primaries (XYZ under D50) and one gamma."""

    def fixed(*values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = fixed(0.9642, 1.0, 0.8249)
    tags = {name: b"XYZ " + bytes(4) + xyz for name, xyz in ((b"wtpt", white), (b"rXYZ", fixed(*red)))}
    tags |= {b"gXYZ": b"XYZ " + bytes(4) + fixed(*green), b"bXYZ": b"XYZ " + bytes(4) + fixed(*blue)}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value
    head = struct.pack(">I4xI", start + len(data), 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    return (head + bytes(28) + white).ljust(128, b"\0") + table + data


ADOBE_RGB = matrix_profile(
    563 / 256, (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)
)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_an_adobe_rgb_image_comes_out_in_srgb(storage, upright, format):
    srgb, adobe = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(BytesIO(ADOBE_RGB))
    vivid = ImageEnhance.Color(upright).enhance(2)
    wide = ImageCms.profileToProfile(vivid, srgb, adobe)
    expected = vivid.resize((512, 384), Image.Resampling.LANCZOS)
    assert mean_error(wide.resize((512, 384)), expected) > 8
    [picture] = made(storage, saved(wide, format, icc_profile=ADOBE_RGB, quality=95), {"width": 512})
    assert mean_error(picture, expected) < 4
    assert "icc_profile" not in picture.info


@pytest.mark.parametrize("profile", [b"not a profile", ADOBE_RGB[:200]])
def test_a_broken_profile_is_ignored(storage, upright, profile):
    [picture] = made(storage, saved(upright, "JPEG", icc_profile=profile), {"width": 512})
    assert mean_error(picture, upright.resize((512, 384), Image.Resampling.LANCZOS)) < 4


def test_a_cmyk_jpeg_comes_out_in_rgb(storage, upright):
    [picture] = made(storage, saved(upright.convert("CMYK"), "JPEG", quality=95), {"width": 512})
    assert picture.mode == "RGB"
    assert mean_error(picture, upright.resize((512, 384), Image.Resampling.LANCZOS)) < 4


def test_sixteen_bit_grey_is_not_clipped_to_white(storage, upright):
    grey = upright.convert("L")
    deep = Image.frombytes("I;16", grey.size, b"".join(bytes([value, value]) for value in grey.tobytes()))
    for source in (saved(deep, "PNG"), saved(deep, "TIFF")):
        [picture] = made(storage, source, {"width": 512, "format": "png"})
        assert picture.mode == "L"
        assert mean_error(picture, grey.resize((512, 384), Image.Resampling.LANCZOS)) < 3


def test_samples_of_32_bits_are_refused_with_the_reason(storage, upright, folder):
    with pytest.raises(UnreadableImage, match="32 bits"):
        made(storage, saved(upright.convert("F"), "TIFF"), {"width": 10})
    assert nothing_written(storage, folder)


def test_transparency_is_kept_except_in_jpeg_which_gets_a_white_background(storage, upright):
    clear = upright.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.paste((0, 0, 0, 0), (0, 0, 1024, 300))
    kept, webp, jpeg = made(
        storage,
        saved(clear, "PNG"),
        {"width": 512},
        *({"width": 512, "format": kind} for kind in ("webp", "jpeg")),
    )
    assert kept.format == "PNG"
    assert kept.mode == webp.mode == "RGBA"
    assert kept.getpixel((100, 50))[3] == webp.getpixel((100, 50))[3] == 0
    assert jpeg.mode == "RGB"
    assert min(jpeg.getpixel((100, 50))) > 250
    white = Image.new("RGBA", clear.size, "white")
    expected = Image.alpha_composite(white, clear).resize((512, 384), Image.Resampling.LANCZOS)
    assert mean_error(jpeg, expected) < 4


@pytest.mark.parametrize(
    ("source", "format"),
    [
        (lambda photo: saved(photo.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), "PNG"),
        (lambda photo: saved(photo.convert("P", palette=Image.Palette.ADAPTIVE), "GIF"), "JPEG"),
        (lambda photo: saved(photo, "BMP"), "JPEG"),
        (lambda photo: saved(photo, "TIFF", compression="tiff_lzw"), "JPEG"),
        (lambda photo: saved(photo, "WEBP", quality=90), "WEBP"),
        (lambda photo: saved(photo.convert("YCbCr"), "TIFF"), "JPEG"),
    ],
)
def test_other_kinds_of_image_are_read(storage, upright, source, format):
    [picture] = made(storage, source(upright), {"width": 512})
    assert picture.format == format
    assert mean_error(picture, upright.resize((512, 384), Image.Resampling.LANCZOS)) < 8


def test_a_transparent_gif_becomes_a_transparent_png(storage):
    drawing = Image.new("P", (40, 40), 0)
    drawing.putpalette([255, 0, 0, 0, 0, 255])
    drawing.paste(1, (0, 0, 20, 40))
    [picture] = made(storage, saved(drawing, "GIF", transparency=0), {"width": 40})
    assert picture.format == "PNG"
    assert picture.getpixel((10, 10)) == (0, 0, 255, 255)
    assert picture.getpixel((30, 10))[3] == 0


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_metadata_is_removed(storage, upright, format):
    exif = Image.Exif()
    exif[0x8298] = "someone's copyright"
    exif.get_ifd(0x8825)[1] = "N"
    source = saved(
        upright, "JPEG", exif=exif, comment=b"a secret comment", xmp=b"<x:xmpmeta/>", dpi=(300, 300)
    )
    [picture] = made(storage, source, {"width": 100, "format": format})
    assert not picture.getexif()
    assert not {"exif", "comment", "xmp", "dpi", "photoshop"} & set(picture.info)


def test_quality_changes_the_size(storage):
    low, high = (
        image("in/source.bin", [{"width": 400, "quality": quality}], f"out{quality}")["renditions"][0][
            "bytes"
        ]
        for quality in (20, 95)
        if made(storage, PHOTO.read_bytes(), {"width": 10})
    )
    assert high > 2 * low


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "is empty"),
        (b"Dear image,\nhow are you?\n", "not a readable image"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
            "not a readable image",
        ),
        (PHOTO.read_bytes()[:90_000], "truncated"),
        (PHOTO.read_bytes()[:300], "not a readable image"),
        (png_claiming(300, 300), "not a readable image"),
    ],
)
def test_a_file_that_is_not_a_whole_image_is_refused_in_one_line(storage, folder, source, reason):
    with pytest.raises(UnreadableImage, match=rf"^in/source\.bin.*{reason}") as refused:
        made(storage, source, {"width": 100}, {"width": 50})
    assert "\n" not in str(refused.value)
    assert str(folder) not in str(refused.value)
    assert nothing_written(storage, folder)


def test_a_header_that_claims_billions_of_pixels_is_refused_undecoded(storage, folder):
    with pytest.raises(ImageTooLarge, match=r"in/source\.bin has more pixels than the limit of 200,000,000"):
        made(storage, png_claiming(60_000, 60_000), {"width": 100})
    assert nothing_written(storage, folder)


def test_the_pixel_limit_applies_below_and_above_pillows_own(storage, upright, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    made(storage, PHOTO.read_bytes(), {"width": 10})
    context.provide(InputLimits(file_bytes=20_000_000, attachment_bytes=1, pixels=1024 * 768 - 1))
    with pytest.raises(ImageTooLarge, match="768x1024"):
        made(storage, PHOTO.read_bytes(), {"width": 10})


def test_a_rendition_over_a_limit_is_refused(storage, folder):
    for asked, reason in (
        ({"width": 60_000, "height": 60_000, "fit": "stretch"}, "over the limit"),
        ({"width": 20_000, "height": 10, "fit": "cover", "format": "webp"}, "too large for webp"),
    ):
        with pytest.raises(ImageTooLarge, match=reason):
            made(storage, PHOTO.read_bytes(), {"width": 10}, asked)
    assert nothing_written(storage, folder)


def test_a_jpeg_with_too_many_scans_is_refused_but_a_progressive_one_is_not(storage, upright, folder):
    progressive = saved(upright, "JPEG", progressive=True)
    with pytest.raises(ImageTooLarge, match="101 or more scans"):
        made(storage, with_scans(progressive, 100), {"width": 100})
    assert nothing_written(storage, folder)
    made(storage, with_scans(progressive, 50), {"width": 100})


def test_scan_markers_in_data_that_is_not_decoded_do_not_count(storage, upright):
    photo = saved(upright, "JPEG", comment=b"\xff\xda" * 200)
    made(storage, photo + b"\xff\xda" * 200, {"width": 100})


def test_a_source_over_the_byte_limit_is_refused(storage, folder):
    context.provide(InputLimits(file_bytes=100_000, attachment_bytes=1, pixels=1_000_000))
    with pytest.raises(FileTooLarge, match=r"in/source\.bin"):
        made(storage, PHOTO.read_bytes(), {"width": 100})
    assert nothing_written(storage, folder)


def test_a_failing_rendition_leaves_only_whole_files(storage, folder):
    storage.write_bytes("out/second.jpg/in-the-way.txt", b"x")
    with pytest.raises(StorageError, match=r"out/second\.jpg"):
        made(storage, PHOTO.read_bytes(), {"width": 400, "name": "first"}, {"width": 200, "name": "second"})
    assert storage.names("out/") == ["out/first.jpg", "out/second.jpg/in-the-way.txt"]
    with Image.open(storage.locate("out/first.jpg")) as first:
        first.load()
    assert list((folder / ".tmp").iterdir()) == []


def test_a_full_disk_leaves_nothing(storage, folder):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"can't write out/a-800x600\.jpg: File too large"):
            image("a.jpg", [{"width": 800}], "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert nothing_written(storage, folder)


@pytest.mark.parametrize("path", ["../photo.jpg", "/etc/hostname", "a/../../b.jpg"])
def test_no_path_leaves_the_storage(storage, folder, path):
    with pytest.raises(OutsideStorage):
        image(path, [{"width": 10}])
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    with pytest.raises(OutsideStorage):
        image("a.jpg", [{"width": 10}], path)
    assert storage.names() == ["a.jpg"]


def test_a_missing_source_is_named(storage):
    with pytest.raises(MissingFile, match=r"uploads/none\.jpg"):
        image("uploads/none.jpg", [{"width": 10}])


def test_a_store_behind_a_url_works_the_same():
    storage = Storage(f"memory://{uuid4().hex}")
    context.provide(storage, LIMITS)
    path = storage.put(PHOTO)
    facts = image(path, [{"width": 200}, {"width": 100, "format": "png"}], "out")
    assert storage.names("out/") == ["out/photo-100x75.png", "out/photo-200x150.jpg"]
    with Image.open(BytesIO(storage.read_bytes(facts["renditions"][0]["path"]))) as picture:
        assert picture.size == (200, 150)


def test_a_call_is_checked_before_it_is_enqueued():
    image.job.validate((), {"source": "a.jpg", "renditions": [{"width": 800}]})
    image.job.validate((), {"source": "a.jpg", "renditions": [Rendition(height=5, format="webp")]})
    for wrong in (
        {"width": "x"},
        {"width": 0},
        {"width": 1.5},
        {},
        {"width": 5, "fit": "cover"},
        {"width": 5, "format": "bmp"},
        {"width": 5, "quality": 101},
        {"width": 5, "name": "a/b"},
        {"width": 5, "name": "a\0b"},
        {"width": 5, "hight": 5},
    ):
        with pytest.raises(InvalidCall, match="renditions"):
            image.job.validate((), {"source": "a.jpg", "renditions": [wrong]})
    with pytest.raises(InvalidCall):
        image.job.validate((), {"source": "a.jpg", "renditions": []})


def test_the_optional_resizer_gives_the_same_result_as_pillow(upright):
    if resizer() == "Pillow":
        pytest.skip("the extra cykooz-resizer is not installed")
    for mode in ("L", "RGB", "RGBA", "CMYK"):
        picture, box = upright.convert(mode), (10.5, 0.0, 1000.25, 768.0)
        fast = resize(picture, (301, 77), box)
        slow = picture.resize((301, 77), Image.Resampling.LANCZOS, box=box)
        assert (fast.mode, fast.size) == (mode, slow.size)
        assert mean_error(fast, slow) < 1.5
        assert mean_error(crisper(slow, 0.4), _crisper_with_pillow(slow, 0.4)) < 1


def test_without_the_optional_resizer_pillow_is_used(storage, folder):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    here = image("a.jpg", [{"width": 320}, {"width": 99, "height": 301, "fit": "cover"}], "here")
    program = (
        "import sys\n"
        "sys.modules['cykooz_resizer'] = None\n"
        "from packmule.jobs import context\n"
        "from packmule.jobs.image import image\n"
        "from packmule.jobs.image.resize import resizer\n"
        "from packmule.jobs.input_limits import InputLimits\n"
        "from packmule.jobs.storage import Storage\n"
        "context.provide(Storage(sys.argv[1]), InputLimits(10**7, 1, 10**8))\n"
        "assert resizer() == 'Pillow'\n"
        "image('a.jpg', [{'width': 320}, {'width': 99, 'height': 301, 'fit': 'cover'}], 'there')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=True)
    for fact in here["renditions"]:
        with (
            Image.open(storage.locate(fact["path"])) as one,
            Image.open(storage.locate(fact["path"].replace("here/", "there/"))) as other,
        ):
            assert one.size == other.size
            assert mean_error(one, other) < 4


@pytest.fixture
def cache(client, storage):
    with Cache(client, "jobs") as lent:
        context.provide(lent)
        yield lent


@pytest.fixture
def decoded(monkeypatch):
    """Counts how often pixels are decoded."""
    counted = []
    eight_bit = decoding.eight_bit
    monkeypatch.setattr(decoding, "eight_bit", lambda picture: counted.append(1) or eight_bit(picture))
    return counted


SIZES = [{"width": 400, "name": "large"}, {"width": 100, "format": "webp"}]


def test_the_same_bytes_with_the_same_options_are_copied_instead_of_made_again(storage, cache, decoded):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    storage.write_bytes("b.jpg", PHOTO.read_bytes())
    first = image("a.jpg", SIZES, "first")
    second = image("b.jpg", SIZES, "second")
    assert len(decoded) == 1
    assert [fact["path"] for fact in second["renditions"]] == ["second/large.jpg", "second/b-100x75.webp"]
    for one, other in zip(first["renditions"], second["renditions"], strict=True):
        assert one | {"path": ""} == other | {"path": ""}
        assert storage.read_bytes(one["path"]) == storage.read_bytes(other["path"])


@pytest.mark.parametrize("change", [{"quality": 70}, {"width": 401}, {"format": "png"}, {"height": 10}])
def test_other_options_or_other_bytes_are_made(storage, cache, decoded, change):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    image("a.jpg", SIZES, "first")
    image("a.jpg", [SIZES[0] | change, SIZES[1]], "second")
    assert len(decoded) == 2
    storage.write_bytes("a.jpg", PHOTO.read_bytes() + b"\0")
    image("a.jpg", SIZES, "third")
    assert len(decoded) == 3


@pytest.mark.parametrize("harm", ["deleted", "overwritten", "same size", "all"])
def test_a_rendition_that_is_gone_or_has_changed_is_made_again(storage, folder, cache, decoded, harm):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    first = image("a.jpg", SIZES, "first")
    right = [storage.read_bytes(fact["path"]) for fact in first["renditions"]]
    if harm == "deleted":
        (folder / "first/large.jpg").unlink()
    elif harm == "all":
        for file in (folder / "first").iterdir():
            file.unlink()
    else:
        storage.write_bytes("first/large.jpg", bytes(len(right[0]) if harm == "same size" else 9))
    second = image("a.jpg", SIZES, "second")
    assert [storage.read_bytes(fact["path"]) for fact in second["renditions"]] == right
    assert [fact["bytes"] for fact in second["renditions"]] == [len(data) for data in right]
    assert len(decoded) == 2
    image("a.jpg", SIZES, "third")
    assert len(decoded) == 2
    assert list((folder / ".tmp").iterdir()) == []


def test_the_same_job_again_copies_onto_itself(storage, cache, decoded):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    assert image("a.jpg", SIZES, "out") == image("a.jpg", SIZES, "out")
    assert len(decoded) == 1


@pytest.mark.parametrize("known", [None, [], 5, [["a", "b"]], [["../a", "b", 1], ["/etc/passwd", "b", 1]]])
def test_a_wrong_value_in_the_cache_does_no_harm(storage, client, cache, decoded, known):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    image("a.jpg", SIZES, "first")
    (key,) = (key.decode().removeprefix("pm:cache:jobs:") for key in client.keys("pm:cache:*"))
    cache.put(key, known, ttl=60)
    image("a.jpg", SIZES, "second")
    assert len(decoded) == 2
