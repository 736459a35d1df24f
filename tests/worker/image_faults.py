"""The images' fault run: folders of renditions are made, while workers, pools and the command are killed.

    python tests/worker/image_faults.py [kills with SIGKILL] [images of a folder] [seconds at most]

Some three kills are made a second. The command is started again whenever it was killed or has failed, as a
user would, and a further folder is begun until there were enough kills. In the end each source is in the
manifest once with all its renditions, and each of these is whole; nothing else is in the folder.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from packmule.config import child_environment
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys
from packmule.testing import private_server
from packmule.tests.command_line import ROOT, UNSET
from packmule.tests.fork_server import Forked
from packmule.tests.worker.limit_faults import Crowd
from packmule.tests.worker.pools import drained

SIZES = ("160", "90x90", "x60")
COMMAND_KILLED = "command killed"
TURNS = 30
"""How often a folder's command is started at most, kills left out."""


@dataclass
class Report:
    """What was killed, what the commands said, and what went wrong."""

    faults: Counter[str] = field(default_factory=Counter)
    folders: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    jobs: int = 0
    wrong: list[str] = field(default_factory=list)


def run(kills: int, images: int, seconds: float, seed: int = 1) -> Report:
    """Make folders until there were `kills`, or for `seconds`; then let the last one end, and judge all."""
    dice, report = random.Random(seed), Report()
    with ExitStack() as stack:
        server = stack.enter_context(private_server())
        client = stack.enter_context(connect(None, server.data_dir))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _paint(place / "photos", images, dice)
        crowd = Crowd(server, place / "log", "workers", f"storage={place / 'store'}")
        stack.callback(crowd.close)
        until = time.monotonic() + seconds
        while not report.folders or (crowd.kills < kills and time.monotonic() < until):
            report.folders += 1
            _make(server, place, f"out{report.folders}", crowd, lambda: crowd.kills < kills, dice, report)
        report.faults = crowd.faults
        report.wrong += [f"a pool ended by itself: {each}" for each in crowd.ended_pools]
        for number in range(1, report.folders + 1):
            _judge(place / "photos", place / f"out{number}", report)
        report.jobs = sum(1 for _ in client.scan_iter(f"{keys.job_key('')}*"))
        crowd.close()
        for _ in range(3):  # a process that was killed a moment ago may still be on its way out
            drained(server, storage=place / "store")  # a pool that begins removes what dead ones have left
            left = [f"left in the storage: {each.name}" for each in (place / "store/.tmp").glob("*")]
            if not left:
                break
        report.wrong += left
        report.wrong += [str(note) for note in client.lrange(keys.QUARANTINE, 0, 4)]
    return report


def _paint(folder: Path, count: int, dice: random.Random) -> None:
    for number in range(count):
        path = folder / f"{number % 20}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.effect_noise((dice.randrange(900, 1300), dice.randrange(700, 900)), 60)
        Image.merge("RGB", (noise, noise.rotate(180), noise)).save(path, "JPEG", quality=70)


def _make(
    server: EmbeddedServer, place: Path, out: str, crowd: Crowd, goes_on, dice: random.Random, report: Report
) -> None:
    """Run the command for a folder until it succeeds; meanwhile break things while the run goes on."""
    sizes = [word for size in SIZES for word in ("--size", size)]
    words = ["packmule", "enqueue", "image", "photos", *sizes, "--out", out]
    environment = child_environment(
        **{
            **UNSET,
            "PACKMULE_REDIS_URL": server.url,
            "PACKMULE_STORAGE": str(place / "store"),
            "PYTHONPATH": str(ROOT),
        }
    )
    turns = 0
    while turns < TURNS:
        with Forked(
            words, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while process.poll() is None:
                time.sleep(dice.uniform(0.1, 0.5))
                if not goes_on():
                    continue
                if dice.random() < 0.1:
                    process.kill()
                    crowd.faults[COMMAND_KILLED] += 1
                else:
                    crowd.break_something(dice)
            said, complained = process.communicate()
        report.commands[f"ended with {process.returncode}"] += 1
        if process.returncode == 0:
            return
        turns += process.returncode > 0
        if process.returncode not in (-9, 1):
            report.wrong.append(f"the command ended with {process.returncode}: {said}{complained}")
            return
    report.wrong.append(f"{out} was not made in {TURNS} turns: {complained}")


def _judge(photos: Path, out: Path, report: Report) -> None:
    if not (out / "manifest.json").exists():
        report.wrong.append(f"{out.name} has no manifest")
        return
    manifest = json.loads((out / "manifest.json").read_text())
    names = sorted(each.relative_to(photos).as_posix() for each in photos.rglob("*.jpg"))
    if sorted(manifest["sources"]) != names:
        report.wrong.append(
            f"{out.name}: the manifest has {len(manifest['sources'])} of {len(names)} sources"
        )
    listed = set()
    for name, entry in manifest["sources"].items():
        if entry.get("error") or len(entry["renditions"]) != len(SIZES):
            report.wrong.append(f"{out.name}: {name} has {entry}")
        for facts in entry.get("renditions", []):
            listed.add(facts["path"])
            report.wrong += _faults_of(out / facts["path"], facts)
            report.whole += 1
    there = {each.relative_to(out).as_posix() for each in out.rglob("*") if each.is_file()}
    report.wrong += [
        f"{out.name}: {each} is left over" for each in sorted(there - listed - {"manifest.json"})
    ]


def _faults_of(path: Path, facts: dict) -> list[str]:
    try:
        with Image.open(path) as image:
            image.load()
            if image.size != (facts["width"], facts["height"]) or path.stat().st_size != facts["bytes"]:
                return [f"{path} is not what the manifest says"]
    except OSError as error:
        return [f"{path}: {error}"]
    return []


def main() -> None:
    given = [*sys.argv[1:], *["200", "1000", "1200"][len(sys.argv) - 1 :]]
    begun = time.monotonic()
    report = run(int(given[0]), int(given[1]), float(given[2]), seed=int(begun))
    print(f"{time.monotonic() - begun:.0f} s")
    for name, value in vars(report).items():
        print(f"{name:8} {dict(value) if isinstance(value, Counter) else value}")
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
