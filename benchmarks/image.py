"""The image job beside Pillow, pyvips and sharp: three JPEG renditions of a 12 and a 24 megapixel photograph.

    python benchmarks/image.py [runs]
    build/peers/bin/python benchmarks/image.py [runs]    # with pyvips and sharp, after `make bench-peers`

Each way runs in a process of its own, once to warm up and then `runs` times (7 by default), by turns with
the others. CPU is the median of all threads' time, from the source file to three files written. RSS is the
process's peak above what it had with everything imported. SSIM (luma, blocks of 8x8) compares each rendition
with an unencoded Lanczos reduction of all pixels; `over` is how far it is under plain Pillow's, in 1/10000.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import ROOT, arguments, by_turns, has, machine, table
from PIL import Image, ImageOps, features

from packmule.tests.jobs.pictures import ssim

WIDTHS = (1600, 800, 200)
SOURCES = {"12 MP": (4000, 3000), "24 MP": (6000, 4000)}
WAYS = {
    "Pillow, 3 x LANCZOS": "plain",
    "Pillow, 3 x thumbnail()": "thumbnail",
    "image job, Pillow": "job without cykooz",
    "image job, cykooz": "job",
    "pyvips, 3 x thumbnail": "pyvips",
    "sharp, 3 x resize": "three",
    "sharp, each from the larger": "cascade",
}
SHARP = ROOT / "build/node"


def plain(folder: Path) -> None:
    with Image.open(folder / "source.jpg") as photo:
        upright = ImageOps.exif_transpose(photo)
    for width in WIDTHS:
        size = (width, round(upright.height * width / upright.width))
        upright.resize(size, Image.Resampling.LANCZOS).save(folder / f"out/{width}.jpg", quality=80)


def thumbnail(folder: Path) -> None:
    for width in WIDTHS:
        with Image.open(folder / "source.jpg") as photo:
            photo.thumbnail((width, photo.height), Image.Resampling.LANCZOS)
            ImageOps.exif_transpose(photo).save(folder / f"out/{width}.jpg", quality=80)


def vips(folder: Path) -> None:
    import pyvips

    for width in WIDTHS:
        pyvips.Image.thumbnail(str(folder / "source.jpg"), width, height=10**6).jpegsave(
            str(folder / f"out/{width}.jpg"), Q=80
        )


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
    ways = {"plain": plain, "thumbnail": thumbnail, "pyvips": vips}
    run = ways.get(way) or job(folder)
    if way == "pyvips":
        import pyvips  # noqa: F401  before the memory is read
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


def measure(folder: Path, runs: int) -> dict[str, list[dict[str, float]]]:
    """Figures of each way for `folder/source.jpg`; its files are in `<folder>/<way>/out`."""
    servers = {}
    for name, way in WAYS.items():
        own = folder / way
        (own / "out").mkdir(parents=True)
        (own / "source.jpg").hardlink_to(folder / "source.jpg")
        command = [sys.executable, __file__, "--serve", way, str(own)]
        if way in ("three", "cascade"):
            command = ["node", str(Path(__file__).with_suffix(".mjs")), str(SHARP), way, str(own)]
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


def leave_out() -> None:
    """Drop the ways whose libraries aren't there."""
    from packmule.jobs.image.resize import resizer

    if resizer() == "Pillow":
        del WAYS["image job, cykooz"]
    if not has("pyvips"):
        del WAYS["pyvips, 3 x thumbnail"]
    if not (SHARP / "node_modules/sharp").is_dir() or not shutil.which("node"):
        del WAYS["sharp, 3 x resize"], WAYS["sharp, each from the larger"]


def likeness(folder: Path, photo: Image.Image) -> list[float]:
    """The SSIM of each rendition in `folder`."""
    found = []
    for width in WIDTHS:
        with Image.open(folder / f"out/{width}.jpg") as made:
            found.append(ssim(made, photo.resize(made.size, Image.Resampling.LANCZOS)))
    return found


def main(runs: int) -> None:
    """Measure and print."""
    leave_out()
    print(
        f"{machine('Pillow', 'cykooz-resizer', 'pyvips')}, libjpeg-turbo "
        f"{features.version('libjpeg_turbo')}; medians of {runs} runs\n"
    )
    rows = []
    for source, size in SOURCES.items():
        with tempfile.TemporaryDirectory(prefix="packmule-bench-") as place:
            folder = Path(place)
            photo = photograph(size, folder / "source.jpg")
            plainly: list[float] = []
            for name, figures in measure(folder, runs).items():
                alike = likeness(folder / WAYS[name], photo)
                plainly = plainly or alike
                medians = (statistics.median(run[key] for run in figures) for key in ("cpu", "wall", "rss"))
                each = (
                    f"{one:.4f} {10_000 * (base - one):+.0f}"
                    for one, base in zip(alike, plainly, strict=True)
                )
                rows.append((name, source, *(f"{value:.0f}" for value in medians), *each))
    table(("", "source", "CPU ms", "wall ms", "RSS MB", *(f"{width} px, over" for width in WIDTHS)), rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
    else:
        main(*arguments(7))
