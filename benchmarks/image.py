"""The image job beside plain Pillow: three JPEG renditions of a 12 and a 24 megapixel photograph.

    python benchmarks/image.py [runs]

Each way runs in a process of its own, once to warm up and then `runs` times (7 by default), by turns with
the others. CPU is the median of all threads' time, from the source file to three files written. RSS is the
process's peak above what it had with everything imported. PSNR and SSIM (luma, blocks of 8x8) compare the
1600 px rendition with an unencoded Lanczos reduction of all pixels.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import ROOT, arguments, by_turns, machine, table
from PIL import Image, ImageChops, ImageMath, ImageOps, ImageStat, features

WIDTHS = (1600, 800, 200)
SOURCES = {"12 MP": (4000, 3000), "24 MP": (6000, 4000)}
WAYS = {
    "Pillow, 3 x LANCZOS": "plain",
    "image job, Pillow": "job without cykooz",
    "image job, cykooz": "job",
}


def plain(folder: Path) -> None:
    with Image.open(folder / "source.jpg") as photo:
        upright = ImageOps.exif_transpose(photo)
    for width in WIDTHS:
        size = (width, round(upright.height * width / upright.width))
        upright.resize(size, Image.Resampling.LANCZOS).save(folder / f"out/{width}.jpg", quality=80)


def job(folder: Path) -> Callable[[Path], object]:
    from packmule.jobs import context
    from packmule.jobs.image import Rendition, image
    from packmule.jobs.input_limits import InputLimits
    from packmule.jobs.storage import Storage

    context.provide(Storage(str(folder)), InputLimits(10**9, 1, 10**9))
    renditions = [Rendition(width=width, name=str(width)) for width in WIDTHS]
    return lambda _: image("source.jpg", renditions, "out")


def serve(way: str, folder: Path) -> None:
    """Perform one run for each line on standard input and answer with its figures."""
    if way == "job without cykooz":
        sys.modules["cykooz_resizer"] = None  # type: ignore[assignment]
    run = plain if way == "plain" else job(folder)
    imported = memory("VmRSS")
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        run(folder)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        rss = memory("VmHWM") - imported
        print(json.dumps({"cpu": cpu * 1000, "wall": wall * 1000, "rss": rss}), flush=True)


def memory(name: str) -> float:
    """A line of this process's memory status, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def photograph(size: tuple[int, int], file: Path) -> Image.Image:
    """The sample tiled to `size`, saved as a camera would; returned as it decodes."""
    with Image.open(ROOT / "jobs/samples/photo.jpg") as sample:
        tile = ImageOps.exif_transpose(sample)
    whole = Image.new("RGB", size)
    for left in range(0, size[0], tile.width):
        for top in range(0, size[1], tile.height):
            whole.paste(tile, (left, top))
    whole.save(file, quality=90)
    with Image.open(file) as decoded:
        decoded.load()
    return decoded


def psnr(one: Image.Image, other: Image.Image) -> float:
    rms = ImageStat.Stat(ImageChops.difference(one, other)).rms
    return 10 * math.log10(255**2 * len(rms) / sum(value**2 for value in rms))


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


def measure(folder: Path, runs: int) -> dict[str, list[dict[str, float]]]:
    """Figures of each way for `folder/source.jpg`; its files are in `<folder>/<way>/out`."""
    servers = {}
    for name, way in WAYS.items():
        own = folder / way
        (own / "out").mkdir(parents=True)
        (own / "source.jpg").hardlink_to(folder / "source.jpg")
        command = [sys.executable, __file__, "--serve", way, str(own)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        servers[name] = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)

    def run(server: subprocess.Popen[str]) -> dict[str, float]:
        server.stdin.write("run\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    figures = by_turns({name: partial(run, server) for name, server in servers.items()}, runs + 1)
    for server in servers.values():
        server.communicate()
    return {name: found[1:] for name, found in figures.items()}


def main(runs: int) -> None:
    """Measure and print."""
    from packmule.jobs.image.resize import resizer

    if resizer() == "Pillow":
        del WAYS["image job, cykooz"]
    print(
        f"{machine('Pillow')}, libjpeg-turbo {features.version('libjpeg_turbo')}, {resizer()}; medians of "
        f"{runs} runs\n"
    )
    rows = []
    for source, size in SOURCES.items():
        with tempfile.TemporaryDirectory(prefix="packmule-bench-") as place:
            folder = Path(place)
            photo = photograph(size, folder / "source.jpg")
            target = (WIDTHS[0], round(size[1] * WIDTHS[0] / size[0]))
            reference = photo.resize(target, Image.Resampling.LANCZOS)
            for name, figures in measure(folder, runs).items():
                with Image.open(folder / WAYS[name] / f"out/{WIDTHS[0]}.jpg") as made:
                    likeness = f"{psnr(made, reference):.2f}", f"{ssim(made, reference):.4f}"
                medians = (statistics.median(run[key] for run in figures) for key in ("cpu", "wall", "rss"))
                rows.append((name, source, *(f"{each:.0f}" for each in medians), *likeness))
    table(("", "source", "CPU ms", "wall ms", "RSS MB", "PSNR dB", "SSIM"), rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
    else:
        main(*arguments(7))
