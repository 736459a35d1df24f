"""Resizing with Lanczos, by cykooz-resizer if it is installed and works, otherwise by Pillow."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from PIL import Image, ImageChops, ImageStat

Box = tuple[float, float, float, float]

REDUCING_GAP = 2.0
_CLOSE = 16
"""Steps of 255 by which the two resizers may differ in the self-test."""


def resize(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """The part `box` of `image` (mode `L`, `RGB`, `RGBA` or `CMYK`), resized to `size`; both in pixels."""
    if size == image.size and box == (0, 0, *size):
        return image.copy()
    fast = _cykooz()
    return _with_cykooz(fast, image, size, box) if fast else _with_pillow(image, size, box)


def resizer() -> str:
    """The name of the resizer in use."""
    return "cykooz-resizer" if _cykooz() else "Pillow"


def difference(one: Image.Image, other: Image.Image) -> float:
    """The largest difference of a pixel between two images of the same size and mode, in steps of 255."""
    return max(high for _, high in ImageStat.Stat(ImageChops.difference(one, other)).extrema)


def _with_pillow(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)


def _with_cykooz(module: ModuleType, image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    left, top, right, bottom = box
    options = module.ResizeOptions(
        resize_alg=module.ResizeAlg.convolution(module.FilterType.lanczos3),
        crop_box=module.CropBox(left, top, right - left, bottom - top),
    )
    target = Image.new(image.mode, size)
    # A resizer has buffers and must not be shared between threads.
    module.Resizer().resize_pil(image, target, options)
    return target


@cache
def _cykooz() -> ModuleType | None:
    """The optional module, or None: it accesses Pillow's memory, so it must pass a self-test first."""
    try:
        module = import_module("cykooz_resizer")
        sample = Image.linear_gradient("L").convert("RGB")
        box = (8.0, 4.0, 248.0, 252.0)
        fast, slow = _with_cykooz(module, sample, (60, 31), box), _with_pillow(sample, (60, 31), box)
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError):
        return None
    return module if difference(fast, slow) <= _CLOSE else None
