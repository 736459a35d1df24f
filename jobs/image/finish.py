"""The last touches on a small image: sharpened, padded, without transparency where the format has none."""

from __future__ import annotations

from PIL import Image, ImageColor, ImageFilter

from packmule.jobs.image.plan import Plan

_RADIUS = 0.8
"""Pixels around an edge that sharpening changes: what resizing has softened is no wider."""


def finished(image: Image.Image, plan: Plan) -> Image.Image:
    """`image` (mode `L`, `RGB` or `RGBA`) as `plan` wants it."""
    if plan.wish.sharpen:
        image = _sharpened(image, plan.wish.sharpen)
    if plan.canvas != plan.size:
        image = _padded(image, plan)
    if plan.format == "jpeg" and image.mode == "RGBA":
        # The background may itself be transparent, where JPEG shows its colour.
        image = _over(image, (*ImageColor.getrgb(plan.wish.background)[:3], 255)).convert("RGB")
    return image


def is_transparent(image: Image.Image) -> bool:
    """Whether one can see through any of its pixels."""
    return image.mode == "RGBA" and image.getchannel("A").getextrema()[0] != 255  # noqa: PLR2004


def _sharpened(image: Image.Image, percent: int) -> Image.Image:
    sharp = image.filter(ImageFilter.UnsharpMask(_RADIUS, percent, threshold=1))
    if image.mode == "RGBA":
        sharp.putalpha(image.getchannel("A"))
    return sharp


def _padded(image: Image.Image, plan: Plan) -> Image.Image:
    red, green, blue, *alpha = ImageColor.getrgb(plan.wish.background)
    background = (red, green, blue, *(alpha or (255,)))
    canvas = Image.new("RGBA", plan.canvas, background)
    left, top = ((whole - inner) // 2 for whole, inner in zip(plan.canvas, plan.size, strict=True))
    canvas.paste(_over(image, background), (left, top))
    return canvas if is_transparent(canvas) else canvas.convert("RGB")


def _over(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    behind = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(behind, image.convert("RGBA"))
