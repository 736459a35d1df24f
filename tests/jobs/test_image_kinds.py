"""Every kind of rendition from every kind of source: the right part, size, turn, format and frames."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageCms, ImageColor, ImageDraw, ImageFilter, ImageOps, ImageSequence

from packmule.jobs.image import ImageTooLarge, TooManyBytes, UnreadableImage, image
from packmule.jobs.image.resize import resizer
from packmule.jobs.job_type import InvalidCall
from packmule.tests.jobs.pictures import (
    PHOTO,
    animation,
    chunk,
    made,
    mean_error,
    nothing_written,
    saved,
    ssim,
    upright,
)
from packmule.tests.jobs.test_image import STORED_AS, oriented

LANCZOS = Image.Resampling.LANCZOS
HEIC = Path(__file__).with_name("photo.heic")
FORMATS = ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"]


@pytest.fixture(scope="module")
def photo():
    return upright()


def facts_of(storage, source, *wishes, **more):
    storage.write_bytes("in/source.bin", source)
    return image("in/source.bin", list(wishes), "facts", **more)["renditions"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("orientation", STORED_AS)
def test_every_orientation_in_every_format_has_the_right_part(storage, photo, format, orientation):
    """Each beside a reference of its own, made by Pillow from the upright photograph."""
    source = oriented(photo.resize((512, 384), LANCZOS), orientation, format)
    whole, crop, turned = made(
        storage,
        source,
        {"width": 240, "format": "png"},
        {"width": 90, "height": 120, "fit": "cover", "focus": (1, 0), "format": "png"},
        {"width": 90, "rotate": 90, "format": "png"},
    )
    assert ssim(whole, photo.resize((240, 180), LANCZOS)) > 0.94
    box = (1024 - 576, 0, 1024, 768)
    assert ssim(crop, photo.resize((90, 120), LANCZOS, box=box)) > 0.94
    assert ssim(turned, photo.resize((120, 90), LANCZOS).transpose(Image.Transpose.ROTATE_270)) > 0.94


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_a_turn_comes_after_the_cameras_own(storage, photo, orientation, degrees):
    source = oriented(photo.resize((512, 384), LANCZOS), orientation, "PNG")
    [turned] = made(storage, source, {"width": 96, "height": 96, "rotate": degrees})
    expected = photo.resize((96, 72), LANCZOS).rotate(-degrees, expand=True)
    assert mean_error(turned, expected) < 3


@pytest.mark.parametrize("width", [800, 799, 512, 500, 333, 200, 64, 17, 1])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_each_size_is_as_good_as_one_full_reduction(storage, photo, format, width):
    """A hundredth is far more than what the cascade and the decoder's own reduction may lose."""
    source = saved(photo, format, quality=95)
    wishes = [{"width": each, "format": "png"} for each in sorted({800, 400, width})]
    pictures = {picture.width: picture for picture in made(storage, source, *wishes)}
    with Image.open(storage.locate("in/source.bin")) as decoded:
        expected = decoded.resize(pictures[width].size, LANCZOS)
    if width >= 64:
        assert ssim(pictures[width], expected) > 0.99
    assert mean_error(pictures[width], expected) < 2.5


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"width": 2048, "enlarge": True}, (2048, 1536)),
        ({"width": 2000, "height": 900, "enlarge": True}, (1200, 900)),
        ({"width": 300, "height": 300, "fit": "fill"}, (300, 300)),
        ({"width": 2000, "height": 2000, "fit": "fill"}, (768, 768)),
        ({"width": 2000, "height": 1000, "fit": "fill"}, (1024, 512)),
        ({"width": 2000, "height": 1000, "fit": "fill", "enlarge": True}, (2000, 1000)),
        ({"width": 300, "height": 300, "fit": "pad"}, (300, 300)),
        ({"width": 1500, "height": 900, "fit": "pad"}, (1500, 900)),
        ({"height": 100, "rotate": 90}, (75, 100)),
        ({"width": 65_000, "height": 1, "fit": "stretch"}, (65_000, 1)),
    ],
)
def test_a_fit_has_the_exact_size(storage, asked, size):
    assert [picture.size for picture in made(storage, PHOTO.read_bytes(), asked)] == [size]


def test_padding_shows_the_whole_in_the_middle_of_the_background(storage, photo):
    wide, tall, clear = made(
        storage,
        PHOTO.read_bytes(),
        {"width": 300, "height": 150, "fit": "pad", "background": "#102030", "format": "png"},
        {"width": 100, "height": 300, "fit": "pad", "rotate": 180, "format": "png"},
        {"width": 1200, "height": 1000, "fit": "pad", "background": "#10203000", "format": "png"},
    )
    assert (wide.mode, tall.mode, clear.mode) == ("RGB", "RGB", "RGBA")
    assert wide.getpixel((0, 75)) == wide.getpixel((299, 75)) == ImageColor.getrgb("#102030")
    assert mean_error(wide.crop((50, 0, 250, 150)), photo.resize((200, 150), LANCZOS)) < 2
    assert tall.getpixel((50, 0)) == tall.getpixel((50, 299)) == (255, 255, 255)
    assert mean_error(tall.crop((0, 112, 100, 187)), photo.resize((100, 75), LANCZOS).rotate(180)) < 3
    assert clear.getpixel((0, 0))[3] == 0
    assert mean_error(clear.crop((88, 116, 1112, 884)), photo) < 1


def test_the_focus_stays_in_the_crop(storage, photo):
    for focus, box in (
        ((0, 0.5), (0, 0, 384, 768)),
        ((0.3, 0), (115, 0, 499, 768)),
        ((1, 1), (640, 0, 1024, 768)),
    ):
        [picture] = made(
            storage, PHOTO.read_bytes(), {"width": 100, "height": 200, "fit": "cover", "focus": focus}
        )
        assert mean_error(picture, photo.resize((100, 200), LANCZOS, box=box)) < 4


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_border_is_trimmed(storage, mode, orientation):
    drawing = Image.new(mode, (300, 200), "white" if mode != "RGBA" else (255, 255, 255, 0))
    ImageDraw.Draw(drawing).rectangle((60, 30, 219, 109), fill="black")
    trimmed, kept = made(
        storage,
        oriented(drawing, orientation, "PNG"),
        {"width": 400, "trim": 0},
        {"width": 300},
    )
    assert trimmed.size == (160, 80)
    assert trimmed.convert("L").getextrema() == (0, 0)
    assert kept.size == (300, 200)


def test_a_noisy_border_is_trimmed_within_its_tolerance(storage):
    noise = Image.effect_noise((200, 200), 6).point(lambda value: min(value + 100, 255))
    noise.paste(20, (50, 60, 150, 160))
    within, beyond = made(storage, saved(noise, "PNG"), {"width": 200, "trim": 60}, {"width": 200, "trim": 0})
    assert within.size == (100, 100)
    assert beyond.size == (200, 200)


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_a_turned_image_is_trimmed_where_its_border_is(storage, orientation):
    drawing = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(drawing).rectangle((60, 30, 219, 109), fill="black")
    drawing.paste("red", (60, 30, 80, 50))
    [picture] = made(
        storage,
        oriented(drawing, orientation, "PNG"),
        {"width": 400, "trim": 0, "rotate": 90, "format": "png"},
    )
    assert picture.tobytes() == drawing.crop((60, 30, 220, 110)).rotate(-90, expand=True).tobytes()


def test_an_image_of_one_colour_is_not_trimmed_away(storage):
    assert [
        p.size for p in made(storage, saved(Image.new("RGB", (30, 20)), "PNG"), {"width": 40, "trim": 9})
    ] == [(30, 20)]


def test_sharpening_adds_contrast_at_edges_and_leaves_transparency(storage, photo):
    plain, sharp = made(
        storage,
        PHOTO.read_bytes(),
        *({"width": 300, "format": "png", "sharpen": percent} for percent in (0, 150)),
    )
    edges = [
        sum(each.convert("L").filter(ImageFilter.FIND_EDGES).histogram()[60:]) for each in (plain, sharp)
    ]
    assert edges[1] > 1.2 * edges[0]
    clear = photo.convert("RGBA")
    clear.putalpha(Image.radial_gradient("L").resize(clear.size))
    plain, sharp = made(storage, saved(clear, "PNG"), {"width": 300}, {"width": 300, "sharpen": 150})
    assert plain.getchannel("A").tobytes() == sharp.getchannel("A").tobytes()


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "gif"])
def test_every_format_is_written_and_read_again(storage, photo, format):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    [first] = image("a.jpg", [{"width": 512, "format": format}], "out")["renditions"]
    [second] = image(first["path"], [{"width": 256, "format": "png"}], "out")["renditions"]
    with Image.open(storage.locate(second["path"])) as picture:
        assert mean_error(picture, photo.resize((256, 192), LANCZOS)) < (9 if format == "gif" else 4)


def test_the_same_bytes_come_out_every_time(storage, photo):
    wishes = [{"width": 300, "format": kind} for kind in ("jpeg", "png", "webp", "avif", "gif")]
    wishes += [{"width": 90, "height": 90, "fit": "cover", "format": kind} for kind in ("jpeg", "webp")]
    for source in (PHOTO.read_bytes(), animation("GIF")):
        first, second = (
            [storage.read_bytes(fact["path"]) for fact in facts_of(storage, source, *wishes)]
            for _ in range(2)
        )
        assert first == second


def test_a_moving_avif_does_not_say_when_it_was_made(storage):
    [fact] = facts_of(storage, animation("GIF"), {"width": 20, "format": "avif"})
    data = storage.read_bytes(fact["path"])
    at = data.index(b"mvhd") + 8
    assert data[at : at + 16] == bytes(16)


def test_a_heic_photograph_is_read_upright_with_its_copyright(storage, photo):
    pytest.importorskip("pillow_heif")
    storage.write_bytes("a.heic", HEIC.read_bytes())
    result = image("a.heic", [{"width": 128, "keep": ["copyright"]}], "out", ["exif"])
    assert result["source"]["format"] == "heic"
    assert result["source"]["exif"] == {"Copyright": "Ada"}
    assert (result["source"]["width"], result["source"]["height"]) == (256, 192)
    with Image.open(storage.locate(result["renditions"][0]["path"])) as picture:
        assert picture.format == "JPEG"
        assert ssim(picture, photo.resize((128, 96), LANCZOS)) > 0.9


def test_without_its_decoder_a_heic_photograph_is_refused_with_the_way_out(storage, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImage, match=r"is a HEIC image.*pip install 'packmule\[heic\]'$"):
        made(storage, HEIC.read_bytes(), {"width": 10})


def test_a_progressive_jpeg_is_written_on_wish(storage):
    plain, progressive = made(storage, PHOTO.read_bytes(), {"width": 90}, {"width": 90, "progressive": True})
    assert "progressive" not in plain.info
    assert progressive.info["progressive"]


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_the_highest_quality_within_max_bytes_is_found(storage, format):
    free, bound = facts_of(
        storage,
        PHOTO.read_bytes(),
        {"width": 400, "format": format},
        {"width": 400, "format": format, "max_bytes": 9000},
    )
    assert "quality" not in free
    assert bound["bytes"] <= 9000 < free["bytes"]
    higher = {"width": 400, "format": format, "quality": bound["quality"] + 1}
    assert facts_of(storage, PHOTO.read_bytes(), higher)[0]["bytes"] > 9000


@pytest.mark.parametrize(
    ("format", "reason"),
    [
        ("jpeg", "at quality 5: choose a smaller size"),
        ("png", "png has no quality to lower: choose another format"),
    ],
)
def test_bytes_that_no_quality_reaches_are_refused(storage, folder, format, reason):
    with pytest.raises(
        TooManyBytes, match=rf"^a rendition of 400x300 has [\d,]+ bytes as {format}.*{reason}$"
    ):
        made(storage, PHOTO.read_bytes(), {"width": 400, "format": format, "max_bytes": 600})
    assert nothing_written(storage, folder)


def test_auto_loses_what_max_bytes_demands(storage):
    noise = Image.effect_noise((200, 200), 100).quantize(200)
    free, bound = facts_of(
        storage,
        saved(noise, "PNG"),
        {"width": 200, "format": "auto"},
        {"width": 200, "format": "auto", "max_bytes": 15_000},
    )
    assert bound["bytes"] <= 15_000 < free["bytes"]


@pytest.mark.parametrize("kind", [2, 6])
def test_sixteen_bits_of_a_colour_become_eight(storage, photo, kind):
    small = photo.resize((64, 48), LANCZOS).convert("RGB" if kind == 2 else "RGBA")
    rows = [small.crop((0, y, 64, y + 1)).tobytes() for y in range(48)]
    data = b"".join(b"\0" + bytes(value for each in row for value in (each, each)) for row in rows)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, kind, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    [picture] = made(storage, png, {"width": 64})
    assert mean_error(picture, small) < 1


def test_auto_keeps_a_drawing_and_compresses_a_photograph(storage, photo):
    drawing = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(drawing).text((20, 30), "Packmule", fill="navy")
    [kept] = made(storage, saved(drawing, "PNG"), {"width": 200, "format": "auto"})
    assert kept.format == "WEBP"
    assert ImageChops.difference(kept.convert("RGB"), drawing).getbbox() is None
    [lossy] = made(storage, saved(photo, "PNG"), {"width": 200, "format": "auto"})
    assert lossy.format == "WEBP"
    assert ImageChops.difference(lossy, photo.resize((200, 150), LANCZOS)).getbbox()
    wide = Image.new("RGB", (17_000, 2))
    assert [
        each.format for each in made(storage, saved(wide, "PNG"), {"width": 17_000, "format": "auto"})
    ] == ["JPEG"]


@pytest.mark.parametrize("written", ["gif", "webp", "png", "avif", None])
@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_stays_one(storage, source, written):
    moving = animation(source, 5)
    [picture] = made(storage, moving, {"width": 30, "format": written, "name": "a"})
    assert picture.format == (written or source).upper()
    assert picture.n_frames == 5
    durations = []
    for frame, colour in zip(
        ImageSequence.Iterator(picture), ["red", "lime", "blue", "red", "lime"], strict=True
    ):
        frame.load()
        durations.append(frame.info["duration"])
        assert mean_error(frame.convert("RGB").crop((5, 5, 25, 15)), Image.new("RGB", (20, 10), colour)) < 25
    assert durations == [50, 100, 150, 200, 50]
    assert picture.info.get("loop", 0) == 0
    [fact] = facts_of(storage, moving, {"width": 30, "format": written})
    assert fact["frames"] == 5
    assert "dropped" not in fact


def test_how_often_an_animation_is_shown_is_kept(storage):
    once = animation("GIF", 3, loop=None)
    gif, webp = made(storage, once, {"width": 30}, {"width": 30, "format": "webp"})
    assert "loop" not in gif.info
    assert webp.info["loop"] == 1


def test_a_transparent_animation_stays_transparent(storage):
    frames = []
    for at in range(3):
        frame = Image.new("RGBA", (60, 40))
        ImageDraw.Draw(frame).ellipse((at * 10, 5, at * 10 + 25, 30), fill="red")
        frames.append(frame)
    source = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=80, disposal=2)
    for picture in made(storage, source, {"width": 60}, {"width": 60, "format": "webp"}):
        for frame, expected in zip(ImageSequence.Iterator(picture), frames, strict=True):
            shown = frame.convert("RGBA")
            assert shown.getpixel((59, 39))[3] == 0
            assert mean_error(shown.getchannel("A"), expected.getchannel("A")) < 12


def test_the_result_says_what_was_dropped(storage, photo):
    jpeg, still, gif = facts_of(
        storage,
        animation("GIF"),
        {"width": 20, "format": "jpeg"},
        {"width": 20, "still": True},
        {"width": 20},
    )
    assert jpeg["dropped"] == ["animation"]
    assert "dropped" not in still
    assert "dropped" not in gif
    assert still["format"] == "gif"
    pages = saved(photo, "TIFF", save_all=True, append_images=[photo])
    assert facts_of(storage, pages, {"width": 20})[0]["dropped"] == ["pages"]
    clear = photo.convert("RGBA")
    assert "dropped" not in facts_of(storage, saved(clear, "PNG"), {"width": 20, "format": "jpeg"})[0]
    clear.putalpha(100)
    assert facts_of(storage, saved(clear, "PNG"), {"width": 20, "format": "jpeg"})[0]["dropped"] == [
        "transparency"
    ]


@pytest.mark.parametrize("background", ["#ff0000", "#ff000080", "#ff000000"])
def test_jpeg_shows_the_background_where_the_source_is_transparent(storage, background):
    [picture] = made(
        storage,
        saved(Image.new("RGBA", (20, 20)), "PNG"),
        {"width": 20, "format": "jpeg", "background": background},
    )
    assert mean_error(picture, Image.new("RGB", (20, 20), "red")) < 3


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_display_p3_comes_out_in_srgb(storage, photo, format):
    from packmule.tests.jobs.test_image import matrix_profile

    display_p3 = matrix_profile(
        2.2, (0.5151, 0.2412, -0.0011), (0.292, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)
    )
    srgb, profile = (
        ImageCms.createProfile("sRGB"),
        ImageCms.ImageCmsProfile(__import__("io").BytesIO(display_p3)),
    )
    wide = ImageCms.profileToProfile(photo, srgb, profile)
    expected = photo.resize((256, 192), LANCZOS)
    [picture] = made(
        storage, saved(wide, format, icc_profile=display_p3, quality=95), {"width": 256, "format": "png"}
    )
    assert mean_error(picture, expected) < 3
    assert mean_error(wide.resize((256, 192), LANCZOS), expected) > 4


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 3), (2500, 2000)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_the_tiny_the_thin_and_the_huge_are_right(storage, size, format):
    source = saved(Image.new("RGB", size, (200, 30, 60)), format)
    for picture in made(
        storage,
        source,
        {"width": 40, "height": 40, "format": "png"},
        {"width": 40, "height": 40, "fit": "cover", "format": "png"},
        {"width": 40, "height": 40, "fit": "fill", "format": "png"},
        {"width": 40, "height": 40, "fit": "pad", "background": "#c81e3c", "format": "png"},
    ):
        assert mean_error(picture, Image.new("RGB", picture.size, (200, 30, 60))) < 4


def test_both_resizers_give_nearly_the_same_renditions(storage, photo, monkeypatch):
    if resizer() == "Pillow":
        pytest.skip("the extra cykooz-resizer is not installed")
    wishes = [{"width": 400, "format": "png"}, {"width": 90, "height": 60, "fit": "cover", "format": "png"}]
    fast = made(storage, PHOTO.read_bytes(), *wishes)
    monkeypatch.setattr("packmule.jobs.image.resize._cykooz", lambda: None)
    slow = made(storage, PHOTO.read_bytes(), *wishes)
    for one, other in zip(fast, slow, strict=True):
        assert ssim(one, other) > 0.99


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 5, "background": "red"},
        {"width": 5, "background": "#12345"},
        {"width": 5, "focus": [0.5, 1.5]},
        {"width": 5, "rotate": 45},
        {"width": 5, "trim": 255},
        {"width": 5, "sharpen": -1},
        {"width": 5, "max_bytes": 0},
        {"width": 5, "keep": ["everything"]},
        {"width": 5, "fit": "fill"},
        {"width": 5, "fit": "pad"},
        {"width": 5, "name": "長" * 70},
        {"width": 5, "format": "heic"},
        "",
        "x" * 81,
        7,
    ],
)
def test_a_wrong_wish_is_refused_when_it_is_enqueued(wrong):
    with pytest.raises(InvalidCall, match="renditions") as refused:
        image.job.validate((), {"source": "a.jpg", "renditions": [wrong]})
    assert "\n" not in str(refused.value)


def test_a_format_that_cannot_hold_the_image_is_named(storage, folder):
    for kind, side in (("webp", 16_384), ("avif", 16_385)):
        with pytest.raises(
            ImageTooLarge, match=rf"of {side}x2 is too large for {kind}, with at most 16,38\d a side"
        ):
            made(storage, PHOTO.read_bytes(), {"width": side, "height": 2, "fit": "stretch", "format": kind})
    assert nothing_written(storage, folder)


def test_what_an_optical_reference_makes_of_a_cover_is_the_same(storage, photo):
    [cover] = made(storage, saved(photo, "PNG"), {"width": 300, "height": 300, "fit": "cover"})
    assert ssim(cover, ImageOps.fit(photo, (300, 300), LANCZOS)) > 0.995
