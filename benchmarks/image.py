"""The image job beside plain Pillow: three JPEG renditions of a 12 and a 24 megapixel photograph.

    python benchmarks/image.py [runs]

Each way runs in a process of its own, once to warm up and then `runs` times (7 unless said), by turns with
the others. CPU is the median of all threads' time, from the source file to three files written. RSS is the
process's peak above what it had with everything imported. PSNR and SSIM (luma, blocks of 8x8) compare the
1600 px rendition with an unencoded Lanczos reduction of all pixels.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import PIL
from PIL import Image, ImageChops, ImageMath, ImageOps, ImageStat, features

ROOT = Path(__file__).parents[1]
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
    from packmule.jobs import current
    from packmule.jobs.image import Rendition, image
    from packmule.jobs.input_limits import InputLimits
    from packmule.jobs.storage import Storage

    current.provide(Storage(str(folder)), InputLimits(10**9, 1, 10**9))
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
        os.link(folder / "source.jpg", own / "source.jpg")
        command = [sys.executable, __file__, "--serve", way, str(own)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        servers[name] = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **pipes
        )
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for turn in range(runs + 1):
        for name, server in servers.items():
            server.stdin.write("run\n")
            server.stdin.flush()
            answer = json.loads(server.stdout.readline())
            if turn:
                figures[name].append(answer)
    for server in servers.values():
        server.communicate()
    return figures


def main(runs: int) -> None:
    sys.path.insert(0, str(ROOT))
    from packmule.jobs.image.resize import resizer

    if resizer() == "Pillow":
        del WAYS["image job, cykooz"]
    print(
        f"Python {platform.python_version()}, Pillow {PIL.__version__}, libjpeg-turbo "
        f"{features.version('libjpeg_turbo')}, {resizer()}, {os.cpu_count()} cores, {runs} runs"
    )
    print(f"{'':22}{'source':>8}{'CPU ms':>9}{'wall ms':>9}{'RSS MB':>8}{'PSNR dB':>9}{'SSIM':>8}")
    for source, size in SOURCES.items():
        with tempfile.TemporaryDirectory(prefix="packmule-bench-") as place:
            folder = Path(place)
            photo = photograph(size, folder / "source.jpg")
            target = (WIDTHS[0], round(size[1] * WIDTHS[0] / size[0]))
            reference = photo.resize(target, Image.Resampling.LANCZOS)
            for name, figures in measure(folder, runs).items():
                with Image.open(folder / WAYS[name] / f"out/{WIDTHS[0]}.jpg") as made:
                    likeness = psnr(made, reference), ssim(made, reference)
                cpu, wall, rss = (
                    statistics.median(run[key] for run in figures) for key in ("cpu", "wall", "rss")
                )
                print(
                    f"{name:22}{source:>8}{cpu:9.0f}{wall:9.0f}{rss:8.0f}{likeness[0]:9.2f}{likeness[1]:8.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
