"""ThumbHash: 25 bytes that a browser turns into a blurred placeholder (https://evanw.github.io/thumbhash)."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from operator import mul

from PIL import Image

LONGEST_SIDE = 100
"""Pixels, as the format demands."""

Channel = Sequence[Sequence[float]]
"""Rows of one number a pixel."""


def thumbhash(image: Image.Image) -> str:
    """The ThumbHash of `image`, in base64."""
    small = image.convert("RGBA")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    width, height = small.size
    red, green, blue, alpha = ([value / 255 for value in band.tobytes()] for band in small.split())
    opacity = sum(alpha)
    has_alpha = opacity < len(alpha)
    # Over the mean colour, as lightness, from yellow to blue, and from red to green.
    over = []
    for band in (red, green, blue):
        mean = sum(map(mul, band, alpha)) / opacity if opacity else 0.0
        over.append([mean * (1 - a) + value * a for value, a in zip(band, alpha, strict=True)])
    mixed = [((r + g + b) / 3, (r + g) / 2 - b, r - g) for r, g, b in zip(*over, strict=True)]
    light, yellow, reddish, opaque = (
        [channel[start : start + width] for start in range(0, len(alpha), width)]
        for channel in (*zip(*mixed, strict=True), alpha)
    )

    most = 5 if has_alpha else 7
    longest = max(width, height)
    across = max(1, _rounded(most * width / longest))
    down = max(1, _rounded(most * height / longest))
    l_dc, l_ac, l_scale = _encoded(light, max(3, across), max(3, down))
    p_dc, p_ac, p_scale = _encoded(yellow, 3, 3)
    q_dc, q_ac, q_scale = _encoded(reddish, 3, 3)

    wide = width > height
    head = _rounded(63 * l_dc) | _rounded(31.5 + 31.5 * p_dc) << 6 | _rounded(31.5 + 31.5 * q_dc) << 12
    head |= _rounded(31 * l_scale) << 18 | has_alpha << 23
    more = (down if wide else across) | _rounded(63 * p_scale) << 3 | _rounded(63 * q_scale) << 9 | wide << 15
    hashed = head.to_bytes(3, "little") + more.to_bytes(2, "little")
    nibbles = [*l_ac, *p_ac, *q_ac]
    if has_alpha:
        a_dc, a_ac, a_scale = _encoded(opaque, 5, 5)
        hashed += bytes([_rounded(15 * a_dc) | _rounded(15 * a_scale) << 4])
        nibbles += a_ac
    halves = [_rounded(15 * value) for value in nibbles]
    halves += [0] * (len(halves) % 2)
    hashed += bytes(low | high << 4 for low, high in zip(halves[::2], halves[1::2], strict=True))
    return base64.b64encode(hashed).decode()


def _encoded(channel: Channel, across: int, down: int) -> tuple[float, list[float], float]:
    """The mean of a channel, its lowest waves as shares of the strongest one's double, and that strength."""
    height, width = len(channel), len(channel[0])
    waves_x = [[math.cos(math.pi / width * cx * (x + 0.5)) for x in range(width)] for cx in range(across)]
    waves_y = [[math.cos(math.pi / height * cy * (y + 0.5)) for y in range(height)] for cy in range(down)]
    by_row = [[sum(map(mul, row, wave)) for row in channel] for wave in waves_x]
    found = [
        sum(map(mul, by_row[cx], waves_y[cy])) / (width * height)
        for cy in range(down)
        for cx in range(across)
        if cx * down < across * (down - cy)
    ]
    mean, waves = found[0], found[1:]
    scale = max(map(abs, waves), default=0.0)
    return mean, [0.5 + 0.5 / scale * wave if scale else wave for wave in waves], scale


def _rounded(value: float) -> int:
    """The nearest whole number, and a half up, as in the reference."""
    return math.floor(value + 0.5)
