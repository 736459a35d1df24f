"""Resizing with Lanczos, by cykooz-resizer if it is installed and works, otherwise by Pillow."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from PIL import Image, ImageChops, ImageFilter, ImageStat

try:
    import cykooz_resizer  # here, so that isolated processes have it when they are forked
except ImportError:
    cykooz_resizer = None

Box = tuple[float, float, float, float]

REDUCING_GAP = 3.0
"""How many times larger Pillow's quick first reduction leaves an image: with 2, small ones lose detail."""

_CLOSE = 16
"""Steps of 255 by which the two resizers may differ in the self-test."""

_BESIDE = 0.1065
"""What each neighbour has in a Gaussian blur by half a pixel; the pixel has the rest."""

_INSIDE = 0.001
"""Pixels of a margin: cykooz filters nothing that has its size already."""


def resize(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """The part `box` of `image` (mode `L`, `RGB`, `RGBA` or `CMYK`), resized to `size`; both in pixels."""
    if size == image.size and box == (0, 0, *size):
        return image.copy()
    fast = _cykooz()
    return _with_cykooz(fast, image, size, box) if fast else _with_pillow(image, size, box)


def crisper(image: Image.Image, share: float) -> Image.Image:
    """`image` with that share more of what a blur by half a pixel would take from it."""
    fast = _cykooz()
    return _crisper_with_cykooz(fast, image, share) if fast else _crisper_with_pillow(image, share)


def resizer() -> str:
    """The name of the resizer in use."""
    return "cykooz-resizer" if _cykooz() else "Pillow"


def difference(one: Image.Image, other: Image.Image) -> float:
    """The largest difference of a pixel between two images of the same size and mode, in steps of 255."""
    return max(high for _, high in ImageStat.Stat(ImageChops.difference(one, other)).extrema)


def _with_pillow(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)


def _crisper_with_pillow(image: Image.Image, share: float) -> Image.Image:
    row = (_BESIDE, 1 - 2 * _BESIDE, _BESIDE)
    weights = [-share * one * other for one in row for other in row]
    weights[len(weights) // 2] += 1 + share
    return image.filter(ImageFilter.Kernel((3, 3), weights, scale=1))


def _with_cykooz(
    module: ModuleType, image: Image.Image, size: tuple[int, int], box: Box, kind: str = "lanczos3"
) -> Image.Image:
    left, top, right, bottom = box
    options = module.ResizeOptions(
        resize_alg=module.ResizeAlg.convolution(getattr(module.FilterType, kind)),
        crop_box=module.CropBox(left, top, right - left, bottom - top),
    )
    target = Image.new(image.mode, size)
    # A resizer has buffers and must not be shared between threads.
    module.Resizer().resize_pil(image, target, options)
    return target


def _crisper_with_cykooz(module: ModuleType, image: Image.Image, share: float) -> Image.Image:
    box = (_INSIDE, _INSIDE, image.width - _INSIDE, image.height - _INSIDE)
    return Image.blend(_with_cykooz(module, image, image.size, box, "gaussian"), image, 1 + share)


@cache
def _cykooz() -> ModuleType | None:
    """The optional module, or None: it accesses Pillow's memory, so it must pass a self-test first."""
    if (module := cykooz_resizer) is None:
        return None
    try:
        sample = Image.linear_gradient("L").convert("RGB")
        box = (8.0, 4.0, 248.0, 252.0)
        fast, slow = _with_cykooz(module, sample, (60, 31), box), _with_pillow(sample, (60, 31), box)
        resized = difference(fast, slow)
        crisped = difference(_crisper_with_cykooz(module, slow, 0.5), _crisper_with_pillow(slow, 0.5))
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None
    return module if max(resized, crisped) <= _CLOSE else None
