"""A tour: runs the commands and programs of the README and the docs as a reader would, and prints what came.

    python tests/tour.py [PAGE ...]

Each page has a folder of its own with the files that it shows, a server, a worker, the sample files, and a
job that has failed. What runs on, such as `packmule up`, or needs another program, such as Docker, is named
and left out. Nothing is asserted: it is there to be read.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from packmule.coordination.redis.embedded_server import EmbeddedServer

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "jobs" / "samples"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
RUNS_ON = re.compile(
    r"packmule ((up|worker|scheduler|dashboard|webhooks|top|mcp)(?!\s+[a-z])|look|watch|events --follow)"
)
IDS = re.compile(r"\b(ID|2a9f|6c0d|5d7900e4|3f9a61c204be)\b")
FRAMEWORKS = {"projects", "django"}
"""Pages whose programs belong to other libraries."""
SECONDS = 40
BROKEN = """
from packmule import job


@job
def report(month: str) -> None:
    raise RuntimeError(f"{month} is missing")
"""
MAIL = """\
From: MAILER-DAEMON@example.org
To: bounces@example.org
Subject: Undelivered mail
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.org

Final-Recipient: rfc822; ada@example.org
Action: failed
Status: 5.1.1

--b--
"""


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The language and the text of each block of code, in order."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def files(text: str) -> dict[str, str]:
    """The files that a page shows: each block's first line is a comment with its name."""
    found: dict[str, str] = {}
    for _, block in blocks(text):
        if named := re.match(r"# ([\w.-]+\.\w+)\n(.*)", block, re.DOTALL):
            found[named[1]] = found.get(named[1], "") + named[2]
    return found


def is_program(name: str, code: str) -> bool:
    """Whether a file is there to be run, and not to be imported."""
    return name.endswith(".py") and not re.search(r"^@(job|task|hooks)|^def test_", code, re.MULTILINE)


def steps(text: str) -> Iterator[str]:
    """The commands of a page's consoles, each in one line, and where its programs are shown, running them."""
    shown = files(text)
    for language, block in blocks(text):
        if language == "console":
            for line in re.sub(r"\\\n\s*>?", " ", block).splitlines():
                if line.startswith("$ "):
                    yield line[2:]
        elif (named := re.match(r"# (\w+\.py)\n", block)) and is_program(named[1], shown[named[1]]):
            yield f"python {named[1]}"


def lay_out(here: Path) -> None:
    """Lay out the files that pages take for granted."""
    shutil.copytree(SAMPLES, here / "jobs" / "samples")
    for folder in ("photos", "templates/orders", "results"):
        (here / folder).mkdir(parents=True)
    for name in ("photo.jpg", "photos/one.jpg", "photos/two.jpg", "logo.png"):
        shutil.copy(SAMPLES / "photo.jpg", here / name)
    for name in ("orders.csv", "more.csv"):
        shutil.copy(SAMPLES / "weather.csv", here / name)
    for name in ("photos", "invoice"):
        shutil.make_archive(str(here / name), "zip", here / "photos")
    (here / "list.csv").write_text("email,name\nada@example.org,Ada\nbob@example.org,Bob\n")
    (here / "bounced.csv").write_text("email,reason\neve@example.org,gone\n")
    (here / "ada.json").write_text('{"name": "Ada"}')
    (here / "bounce.eml").write_text(MAIL)
    (here / "broken.py").write_text(BROKEN)
    (here / "templates" / "spring.html").write_text("<p>Spring is here, {{ name }}!</p>\n")
    for language, block in blocks((ROOT / "docs" / "email.md").read_text()):
        if language == "html":
            (here / "templates" / "orders" / "shipped.html").write_text(block)


def left_out(command: str) -> str:
    """Why a command is not run; "" if it is."""
    program = next((word for word in command.split() if "=" not in word), "")
    if program not in {"packmule", "python", "export", "echo"} or "manage.py" in command:
        return "another program's"
    if RUNS_ON.search(command) and "--once" not in command and "--burst" not in command:
        return "it runs on"
    return ""


class Tour:
    """One page, walked in a folder."""

    def __init__(self, page: Path, here: Path) -> None:
        self.page, self.here = page, here
        self.text = page.read_text()
        laid = files(README.read_text()) | files(self.text)
        lay_out(here)
        for name, code in laid.items():
            (here / name).write_text(code)
        jobs = [name[:-3] for name, code in laid.items() if name.endswith(".py") and "\n@job" in code]
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "80",
            "PACKMULE_MODULES": ",".join([*jobs, "broken"]),
            "PACKMULE_TEMPLATES": "templates",
            "PACKMULE_MAIL_URL": f"file://{here}/sent",
            "REPORTS_REDIS_URL": EmbeddedServer(here / ".packmule").url,
        }
        self.exported: list[str] = []

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command behind what was exported so far."""
        return subprocess.run(
            ["bash", "-c", "; ".join([*self.exported, command])],
            cwd=self.here,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def newest(self, command: str) -> str:
        """The id that a command is about: the newest of its kind, or the letters themselves."""
        kind = re.search(r"packmule (batch|flow|errors|email bulk)|--batch", command)
        group = "job" if kind is None else (kind[1] or "batch").replace("email bulk", "batch")
        all = " --state all" if group == "errors" else ""
        found = json.loads(self.run(f"packmule {group} list --json{all}").stdout or "[]")
        named = found[0] if found else {}
        return next((named[key] for key in ("id", "fingerprint", "batch", "flow") if key in named), "ID")

    def walk(self) -> None:
        """Run the page's commands and programs, and print what they do."""
        self.run("packmule enqueue call broken.report month=2026-11 --wait")
        for written in steps(self.text):
            if written.startswith("python ") and self.page.stem in FRAMEWORKS:
                continue
            command = IDS.sub(self.newest(written), written) if IDS.search(written) else written
            if command == "python plain_rq.py":
                command = f"PACKMULE_REDIS_URL=$REPORTS_REDIS_URL {command}"
            print(f"$ {command}", flush=True)
            if why := left_out(command):
                print(f"    ({why})")
                continue
            if command.startswith("export "):
                self.exported.append(command)
                continue
            try:
                done = self.run(command)
            except subprocess.TimeoutExpired:
                print(f"    (not over after {SECONDS} s)")
                continue
            print(done.stdout + done.stderr, end="")
            if done.returncode:
                print(f"    (exit code {done.returncode})")


def walk(page: Path) -> None:
    """Walk one page beside a worker."""
    if not list(steps(page.read_text())):
        return
    print(f"\n{'=' * 100}\n{page.relative_to(ROOT)}\n", flush=True)
    with TemporaryDirectory() as folder:
        tour = Tour(page, Path(folder))
        with (Path(folder) / "worker.log").open("w") as log:
            worker = subprocess.Popen(
                ["packmule", "worker"], cwd=folder, env=tour.environment, stdout=log, stderr=log
            )
        try:
            tour.walk()
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)


def main() -> None:
    """Walk the pages that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as README or email")
    wanted = parser.parse_args().pages
    for page in PAGES:
        if not wanted or page.stem in wanted:
            walk(page)


if __name__ == "__main__":
    main()
