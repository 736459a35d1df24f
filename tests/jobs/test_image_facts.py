"""What a result tells of an image: metadata kept and listed, a colour, a placeholder, and an srcset."""

from __future__ import annotations

import base64
import json

import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from packmule.coordination.cache.cache import Cache
from packmule.jobs import context
from packmule.jobs.image import Rendition, UnknownPreset, image
from packmule.jobs.image.facts import dominant_colour
from packmule.jobs.image.presets import SHIPPED, Presets
from packmule.jobs.image.thumbhash import thumbhash
from packmule.jobs.preset_file import PresetFile
from packmule.jobs.storage import Storage
from packmule.jobs.toml_file import InvalidFile
from packmule.tests.jobs.pictures import LIMITS, PHOTO, animation, made, saved, upright

GPS, EXIF = ExifTags.IFD.GPSInfo, ExifTags.IFD.Exif


@pytest.fixture
def storage(tmp_path):
    storage = Storage(str(tmp_path / "store"))
    context.provide(storage, LIMITS, PresetFile(None))
    return storage


def described(**changes) -> Image.Exif:
    """What a camera writes."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112], exif[0x013B] = "Maker", "M1", 6, "Ada"
    exif[0x8298] = "© Ada Lovelace".encode()
    exif[0x010E] = "a secret description"
    exif.get_ifd(EXIF).update({0x9003: "2026:11:30 10:11:12", 0x829A: IFDRational(1, 200), 0x8827: 400})
    exif.get_ifd(EXIF)[0x927C] = b"maker note"
    exif.get_ifd(GPS).update({1: "N", 2: (IFDRational(50), IFDRational(3), IFDRational(3, 2)), 5: b"\0"})
    exif.update(changes)
    return exif


def source_of(storage, format="JPEG", exif=None) -> str:
    storage.write_bytes("a.bin", saved(upright().resize((200, 150)), format, exif=exif or described()))
    return "a.bin"


def exif_of(storage, **wish) -> Image.Exif:
    [fact] = image(source_of(storage), [{"width": 100} | wish], "out")["renditions"]
    with Image.open(storage.locate(fact["path"])) as picture:
        picture.load()
        exif = picture.getexif()
        for directory in (EXIF, GPS):
            exif.get_ifd(directory)
    return exif


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif"])
def test_only_what_is_asked_for_is_kept(storage, format):
    assert not exif_of(storage, format=format)
    kept = exif_of(storage, format=format, keep=["copyright"])
    assert kept[0x8298].encode("latin-1").decode() == "© Ada Lovelace"
    assert kept[0x013B] == "Ada"
    assert set(kept) == {0x8298, 0x013B}
    more = exif_of(storage, format=format, keep=["camera", "date"])
    assert set(more) == {0x010F, 0x0110, int(EXIF)}
    assert more.get_ifd(EXIF) == {0x9003: "2026:11:30 10:11:12", 0x829A: 0.005, 0x8827: 400}


@pytest.mark.parametrize("keep", [[], ["copyright"], ["copyright", "camera", "date"]])
def test_the_place_is_never_kept_unless_asked(storage, keep):
    data = image(source_of(storage), [{"width": 100, "keep": keep}], "out")["renditions"][0]["path"]
    with Image.open(storage.locate(data)) as picture:
        assert GPS not in picture.getexif()
    kept = exif_of(storage, keep=[*keep, "gps"])
    assert kept.get_ifd(GPS)[2] == (50.0, 3.0, 1.5)


def test_a_gif_says_that_it_dropped_what_should_be_kept(storage):
    wishes = [{"width": 100, "format": "gif", "keep": ["copyright"]}, {"width": 90, "keep": ["copyright"]}]
    gif, jpeg = image(source_of(storage), wishes, "out")["renditions"]
    assert gif["dropped"] == ["metadata"]
    assert "dropped" not in jpeg


def test_metadata_are_listed_on_wish_and_the_place_apart(storage):
    assert "exif" not in image(source_of(storage), [{"width": 10}], "out")["source"]
    listed = image(source_of(storage), [{"width": 10}], "out", ["exif"])["source"]
    assert listed["exif"] == {
        "Make": "Maker",
        "Model": "M1",
        "Artist": "Ada",
        "Copyright": "© Ada Lovelace",
        "DateTimeOriginal": "2026:11:30 10:11:12",
        "ExposureTime": 0.005,
        "ISOSpeedRatings": 400,
    }
    assert "gps" not in listed
    placed = image(source_of(storage), [{"width": 10}], "out", ["gps"])["source"]["gps"]
    assert placed == {"GPSLatitudeRef": "N", "GPSLatitude": [50.0, 3.0, 1.5]}


def test_hostile_metadata_are_cut_and_made_plain(storage):
    hostile = described(**{})
    hostile[0x8298] = "x" * 5000
    hostile[0x013B] = "a\x1b[2J\u202eb"
    hostile.get_ifd(EXIF)[0x829A] = IFDRational(1, 0)
    hostile.get_ifd(EXIF)[0x9003] = "\0\0"
    found = image(source_of(storage, exif=hostile), [{"width": 10, "keep": ["copyright"]}], "out", ["exif"])
    exif = found["source"]["exif"]
    assert exif["Copyright"] == "x" * 1000
    assert exif["Artist"].isprintable()
    assert not {"ExposureTime", "DateTimeOriginal"} & set(exif)
    json.dumps(found, allow_nan=False)


def test_the_dominant_colour_is_that_of_most_visible_pixels():
    picture = Image.new("RGBA", (100, 100), (200, 30, 40, 255))
    picture.paste((10, 20, 250, 255), (0, 0, 100, 30))
    assert dominant_colour(picture) == "#c81e28"
    picture.paste((0, 0, 0, 0), (0, 20, 100, 100))
    assert dominant_colour(picture) == "#0a14fa"
    assert dominant_colour(Image.new("RGBA", (9, 9))) == "#ffffff"
    assert dominant_colour(Image.new("L", (9, 1), 128)) == "#808080"


def gradient(size: tuple[int, int], alpha: bool) -> Image.Image:
    width, height = size
    pixels = bytearray()
    for y in range(height):
        for x in range(width):
            pixels += bytes(
                [
                    x * x // 20 % 256,
                    (y * y // 15 + x) % 256,
                    x * y // 7 % 256,
                    255 - (x * x // 50 + y * x // 30 + y) % 256 if alpha else 255,
                ]
            )
    return Image.frombytes("RGBA", size, bytes(pixels))


@pytest.mark.parametrize(
    ("size", "alpha", "expected"),
    [
        ((100, 75), False, "2ecNFY5Qh5Vkh4h0iHiJd5CcCMPZ"),
        ((40, 100), False, "EmcJGwxgcCiIlXlJ/o1I+eg="),
        ((64, 64), True, "0reJHQwqUHZBiZWIaPd6HfiZf3huh3iIiA=="),
        ((100, 10), True, "DEmKGYY6MIh2eIcgbRiAd294eHeHh3c="),
        ((31, 77), True, "jXeJGgwbcnA4mHivW2f42Ht4b3h3iHc="),
    ],
)
def test_a_thumbhash_is_that_of_the_reference(size, alpha, expected):
    """The expected ones come from the format's own JavaScript, thumbhash 0.1.1 on npm."""
    assert thumbhash(gradient(size, alpha)) == expected


def test_a_thumbhash_of_a_large_image_is_small(storage):
    found = image(storage.put(PHOTO), [{"width": 10}], "out", ["thumbhash", "colour"])["source"]
    assert 20 <= len(base64.b64decode(found["thumbhash"])) <= 25
    assert found["colour"].startswith("#")


def test_an_srcset_lists_each_format_by_width_without_other_crops(storage):
    storage.write_bytes("my photo.jpg", PHOTO.read_bytes())
    wishes = [
        {"width": 400},
        {"width": 200, "format": "webp"},
        {"width": 800},
        {"width": 100, "height": 100, "fit": "cover"},
    ]
    assert image("my photo.jpg", wishes, "out", ["srcset"])["srcset"] == {
        "jpeg": "out/my%20photo-400x300.jpg 400w, out/my%20photo-800x600.jpg 800w",
        "webp": "out/my%20photo-200x150.webp 200w",
    }


def test_facts_are_remembered_with_the_renditions(storage, client):
    with Cache(client, "jobs") as cache:
        context.provide(cache)
        wanted = ["exif", "colour", "thumbhash", "srcset"]
        first, second = (image(source_of(storage), [{"width": 100}], out, wanted) for out in ("one", "two"))
        assert first["source"] == second["source"]
        assert second["srcset"] == {"jpeg": "two/a-100x133.jpg 100w"}
        assert "exif" not in image(source_of(storage), [{"width": 100}], "three")["source"]


def test_a_source_says_how_many_frames_it_has(storage):
    storage.write_bytes("a.gif", animation("GIF", 4))
    result = image("a.gif", [{"width": 10}], "out")
    assert result["source"] == {"path": "a.gif", "format": "gif", "width": 60, "height": 40, "frames": 4}


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_the_facts_of_an_animation_are_those_of_its_first_frame(storage, format):
    storage.write_bytes("a", animation(format, 3))
    colour = image("a", [{"width": 30}], "out", ["colour"])["source"]["colour"]
    assert int(colour[1:3], 16) > 240
    assert int(colour[3:5], 16) < 30


def test_shipped_presets_are_made_by_name(storage):
    thumb, card, hero = made(storage, PHOTO.read_bytes(), "thumb", "card@2x", "hero")
    assert (thumb.size, card.size, hero.size) == ((200, 200), (1200, 800), (1024, 768))
    for name in SHIPPED:
        assert Presets().find(f"{name}@3x").width == 3 * SHIPPED[name].width


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("heroo", "did you mean hero?"),
        ("zzz", "there are card, hero, thumb"),
        ("hero@9x", "after hero only @2x, @3x and @4x may follow"),
        ("hero@", "after hero only"),
        ("\x1b[2J" * 20, "there are card"),
    ],
)
def test_an_unknown_preset_is_refused_with_those_there_are(storage, name, way_out):
    storage.write_bytes("a.jpg", PHOTO.read_bytes())
    with pytest.raises(UnknownPreset) as refused:
        image("a.jpg", [name], "out")
    assert way_out in str(refused.value)
    assert str(refused.value).isprintable()
    assert storage.names("out/") == []


def test_presets_of_a_file_win_over_shipped_ones(storage, tmp_path):
    file = tmp_path / "presets.toml"
    file.write_text(
        '[hero]\nwidth = 300\nformat = "webp"\nname = "top"\n[avatar]\nwidth = 9\nheight = 9\nfit = "cover"\n'
    )
    context.provide(PresetFile(file))
    avatar, hero, dense = made(storage, PHOTO.read_bytes(), "avatar", "hero", "hero@2x")
    assert (avatar.size, hero.size, dense.size, hero.format) == ((9, 9), (300, 225), (600, 450), "WEBP")
    assert storage.names("out/") == ["out/source-9x9.jpg", "out/top.webp", "out/top@2x.webp"]
    assert Presets(file).find("hero") == Rendition(width=300, format="webp", name="top")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a]\nwidth = 0", "preset a: Expected `int` >= 1 - at `$.width`"),
        ("[a]\nwidht = 10", "preset a: Object contains unknown field `widht`"),
        ("[a]\nfit = 'cover'\nwidth = 3", "preset a: a rendition with fit cover needs both width and height"),
        ("a = 5", "preset a: Expected `object`, got `int`"),
        ("['a b']\nwidth = 1", "'a b' can't name a preset: use letters, digits, - and _"),
        ("[a", "is not valid TOML"),
    ],
)
def test_a_fault_in_a_file_of_presets_is_named(tmp_path, text, fault):
    file = tmp_path / "presets.toml"
    file.write_text(text)
    with pytest.raises(InvalidFile) as refused:
        Presets(file)
    assert str(refused.value).startswith(str(file))
    assert fault in str(refused.value)
    assert "\n" not in str(refused.value)
