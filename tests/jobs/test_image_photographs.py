"""The shipped photograph as every kind of source, each rendition beside a full-quality reference of its own.

It is a real one, in the public domain; no small package has others whose licence is as plain.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from itertools import product

import pytest
from PIL import Image, ImageCms, ImageOps

from packmule.jobs.image import resize
from packmule.tests.jobs.pictures import made, mean_error, saved, ssim, upright
from packmule.tests.jobs.test_image import ADOBE_RGB

LANCZOS = Image.Resampling.LANCZOS
SIZE = (512, 384)


def clear(photo: Image.Image, mode: str = "RGBA") -> Image.Image:
    """The photograph, seen through more and more towards its top."""
    seen = photo.convert(mode)
    seen.putalpha(Image.linear_gradient("L").resize(photo.size))
    return seen


def palette(photo: Image.Image) -> Image.Image:
    """256 colours with eight alphas, as pngquant writes them."""
    return clear(photo).quantize(256, Image.Quantize.FASTOCTREE)


def adobe(photo: Image.Image, format: str) -> bytes:
    profile = ImageCms.ImageCmsProfile(BytesIO(ADOBE_RGB))
    wide = ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), profile)
    return saved(wide, format, icc_profile=ADOBE_RGB, quality=95)


def deep(photo: Image.Image) -> bytes:
    """Sixteen bits of grey."""
    grey = photo.convert("L")
    return saved(Image.frombytes("I;16", grey.size, b"".join(bytes([v, v]) for v in grey.tobytes())), "PNG")


def moving(photo: Image.Image, format: str) -> bytes:
    return saved(
        photo, format, save_all=True, append_images=[ImageOps.mirror(photo)], duration=80, quality=95
    )


KINDS: dict[str, tuple[Callable[[Image.Image], bytes], float, float]] = {
    "JPEG": (lambda photo: saved(photo, "JPEG", quality=95), 0.98, 4),
    "JPEG 4:2:0, progressive": (
        lambda photo: saved(photo, "JPEG", quality=85, subsampling="4:2:0", progressive=True), 0.96, 4,
    ),
    "JPEG in grey": (lambda photo: saved(photo.convert("L"), "JPEG", quality=95), 0.98, 4),
    "JPEG in CMYK": (lambda photo: saved(photo.convert("CMYK"), "JPEG", quality=95), 0.98, 4),
    "JPEG in Adobe RGB": (lambda photo: adobe(photo, "JPEG"), 0.97, 4),
    "PNG": (lambda photo: saved(photo, "PNG"), 0.98, 4),
    "PNG in Adobe RGB": (lambda photo: adobe(photo, "PNG"), 0.97, 4),
    "PNG of 16 bits": (deep, 0.98, 4),
    "PNG with a clear palette": (lambda photo: saved(palette(photo), "PNG"), 0.8, 12),
    "PNG in grey, clear": (lambda photo: saved(clear(photo, "LA"), "PNG"), 0.98, 4),
    "PNG, clear": (lambda photo: saved(clear(photo), "PNG"), 0.98, 4),
    "PNG, moving": (lambda photo: moving(photo, "PNG"), 0.98, 4),
    "WebP": (lambda photo: saved(photo, "WEBP", quality=95), 0.96, 4),
    "WebP, clear and lossless": (lambda photo: saved(clear(photo), "WEBP", lossless=True), 0.98, 4),
    "WebP in Adobe RGB": (lambda photo: adobe(photo, "WEBP"), 0.95, 4),
    "WebP, moving": (lambda photo: moving(photo, "WEBP"), 0.96, 4),
    "AVIF": (lambda photo: saved(photo, "AVIF", quality=95), 0.97, 4),
    "AVIF in Adobe RGB": (lambda photo: adobe(photo, "AVIF"), 0.96, 4),
    "GIF": (lambda photo: saved(photo.convert("P", palette=Image.Palette.ADAPTIVE), "GIF"), 0.8, 8),
    "GIF, moving": (lambda photo: moving(photo, "GIF"), 0.8, 8),
    "TIFF": (lambda photo: saved(photo, "TIFF", compression="tiff_lzw"), 0.98, 4),
    "TIFF of JPEG": (lambda photo: saved(photo, "TIFF", compression="jpeg", quality=95), 0.97, 4),
    "TIFF in CMYK": (lambda photo: saved(photo.convert("CMYK"), "TIFF"), 0.98, 4),
    "TIFF in Adobe RGB": (lambda photo: adobe(photo, "TIFF"), 0.97, 4),
    "BMP": (lambda photo: saved(photo, "BMP"), 0.98, 4),
}  # fmt: skip
"""A kind of source, its least likeness (SSIM), and the most by which a colour may be off on average."""


def padded(photo: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (240, 240), "white")
    canvas.paste(photo.resize((240, 180), LANCZOS), (0, 30))
    return canvas


WISHES: list[tuple[dict[str, object], Callable[[Image.Image], Image.Image]]] = [
    ({"width": 320, "format": "png"}, lambda photo: photo.resize((320, 240), LANCZOS)),
    ({"width": 320, "format": "jpeg"}, lambda photo: photo.resize((320, 240), LANCZOS)),
    (
        {"width": 200, "height": 200, "fit": "cover", "format": "webp"},
        lambda photo: photo.resize((200, 200), LANCZOS, box=(64, 0, 448, 384)),
    ),
    (
        {"width": 160, "height": 320, "fit": "fill", "focus": (1, 0), "format": "jpeg"},
        lambda photo: photo.resize((160, 320), LANCZOS, box=(320, 0, 512, 384)),
    ),
    ({"width": 240, "height": 240, "fit": "pad", "format": "avif", "quality": 90}, padded),
    (
        {"width": 120, "height": 240, "fit": "stretch", "format": "webp"},
        lambda photo: photo.resize((120, 240), LANCZOS),
    ),
    (
        {"width": 240, "rotate": 270, "format": "jpeg"},
        lambda photo: photo.resize((320, 240), LANCZOS).transpose(Image.Transpose.ROTATE_90),
    ),
    (
        {"width": 640, "height": 640, "fit": "cover", "format": "webp"},
        lambda photo: photo.resize((640, 640), LANCZOS, box=(64, 0, 448, 384)),
    ),
]  # fmt: skip


def on_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    clear = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_what_its_reference_shows(storage, kind):
    save, likeness, most = KINDS[kind]
    photo = upright().resize(SIZE, LANCZOS)
    source = save(photo)
    expected = on_white(clear(photo) if "clear" in kind else photo)
    if "grey" in kind or "16" in kind:
        expected = on_white(clear(photo, "LA") if "clear" in kind else photo.convert("L"))
    pictures = made(storage, source, *({"still": True, **wish} for wish, _ in WISHES))
    for picture, (wish, reference) in zip(pictures, WISHES, strict=True):
        shown, wanted = on_white(picture), reference(expected)
        assert shown.size == wanted.size, wish
        assert ssim(shown, wanted) > likeness, (wish, ssim(shown, wanted))
        assert mean_error(shown, wanted) < most, (wish, mean_error(shown, wanted))
        assert not {"icc_profile", "exif"} & picture.info.keys(), wish


@pytest.mark.parametrize("resizer", ["cykooz-resizer", "Pillow"])
@pytest.mark.parametrize("format", ["JPEG", "BMP"])
@pytest.mark.parametrize("size", [(2000, 1500), (1991, 1507)])
def test_a_photograph_reduced_by_any_factor_is_as_like_it_as_one_full_reduction(
    storage, monkeypatch, size, format, resizer
):
    """At most .001 of SSIM, whatever the decoder leaves out, and whether its blocks fit the size or not."""
    if resizer != resize.resizer():
        if resizer != "Pillow":
            pytest.skip("the extra cykooz-resizer is not installed")
        monkeypatch.setattr("packmule.jobs.image.resize._cykooz", lambda: None)
    source = saved(mosaic().crop((0, 0, *size)), format, quality=90)
    with Image.open(BytesIO(source)) as whole:
        whole.load()
    for factor in (1.3, 2, 2.48, 2.5, 2.6, 3, 3.75, 4, 5, 6, 8, 8.1, 10, 13, 16, 20):
        [picture] = made(storage, source, {"width": int(size[0] / factor), "format": "jpeg", "quality": 80})
        wanted = whole.resize(picture.size, LANCZOS)
        with Image.open(BytesIO(saved(wanted, "JPEG", quality=80))) as best:
            loss = ssim(best, wanted) - ssim(picture, wanted)
        assert round(loss, 4) <= 0.001, (factor, loss)


def mosaic() -> Image.Image:
    """The photograph twice in each direction, sharp to the pixel."""
    photo = upright()
    whole = Image.new("RGB", (2 * photo.width, 2 * photo.height))
    for corner in product((0, photo.width), (0, photo.height)):
        whole.paste(photo, corner)
    return whole
