"""Measure, round by round, and print one table: see the package's docstring for how and why."""

from __future__ import annotations

import argparse
import shlex
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from types import FrameType

from harness import machine

from packmule.coordination.redis.embedded_server import ServerFailed
from peers.figures import FIGURES, LONG, Figure, Values
from peers.setups import SETUPS, Setup, versions
from peers.stage import Failed, Stage

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Results = Mapping[tuple[str, str], Sequence[Values]]


def main() -> None:
    """Parse, measure, print."""
    options = _options()
    figures = (
        _chosen(FIGURES, options.only) if options.only else [f for f in FIGURES if not f.startswith(LONG)]
    )
    wanted = [
        setup
        for setup in SETUPS
        if setup.figures.intersection(figures)
        and (not options.peers or setup.name.lower().startswith(tuple(options.peers)))
    ]
    present = tuple(setup for setup in wanted if not setup.missing)
    for setup in wanted:
        if setup.missing:
            _tell(f"{setup.name}: skipped: {setup.missing}")
    if not present:
        sys.exit(f"nothing to measure: the systems are {', '.join(setup.name for setup in SETUPS)}")
    results: dict[tuple[str, str], list[Values]] = defaultdict(list)
    for turn in range(options.rounds):
        for figure in figures:
            for setup in present:
                if figure in setup.figures:
                    _tell(f"round {turn + 1} of {options.rounds}: {figure}: {setup.name}")
                    _measure(setup, figure, options.jobs, results)
    print(_machine(present, options.jobs, options.rounds))
    print(_table(present, figures, results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m peers", description="Packmule beside other job systems.")
    parser.add_argument("--only", type=_words, help=f"figures, of {', '.join(FIGURES)}; a beginning will do")
    parser.add_argument("--peers", type=_words, help="systems, by the beginnings of their names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--jobs", type=int, default=60_000, help="no-ops of the fastest; others get their share"
    )
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return [word.strip().lower() for word in text.split(",")]


def _chosen(names: Iterable[str], beginnings: Sequence[str]) -> list[str]:
    chosen = [name for name in names if name.startswith(tuple(beginnings))]
    if not chosen:
        sys.exit(f"no figure begins with {' or '.join(beginnings)}: there are {', '.join(names)}")
    return chosen


def _measure(setup: Setup, figure: str, jobs: int, results: dict[tuple[str, str], list[Values]]) -> None:
    try:
        with Stage(setup) as stage:
            results[setup.name, figure].append(FIGURES[figure].measure(stage, jobs))
    except (Failed, ServerFailed) as error:
        _tell(f"{setup.name}, {figure}: failed: {error}")


def _machine(setups: tuple[Setup, ...], jobs: int, rounds: int) -> str:
    command = shlex.join(["python", "-m", "peers", *sys.argv[1:]])
    with Stage(setups[0]) as stage:
        system = machine(client=stage.client, at="a loopback port")
    return (
        f"{system}, append-only file synced every second; {versions(setups)}.\n"
        f"{jobs:,} jobs or a share of them, medians of {rounds} rounds in which the systems took turns: "
        f"{command}\n"
    )


def _table(setups: Iterable[Setup], figures: Sequence[str], results: Results) -> str:
    """A table in Markdown, aligned for reading as it is."""
    head = ["system", *(f"{FIGURES[name].title}, {FIGURES[name].unit}" for name in figures)]
    rows = [
        [setup.name, *(_cell(FIGURES[name], results.get((setup.name, name), ())) for name in figures)]
        for setup in setups
    ]
    widths = [max(map(len, column)) for column in zip_longest(head, *rows, fillvalue="")]
    rule = [f"{'-' * (width - 1)}:" if position else "-" * width for position, width in enumerate(widths)]
    return "\n".join(
        "| "
        + " | ".join(
            word.rjust(width) if position else word.ljust(width)
            for position, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in [head, rule, *rows]
    )


def _cell(figure: Figure, values: Sequence[Values]) -> str:
    """The median of each value, or a dash where nothing was measured."""
    medians = [statistics.median(each) for each in zip(*values, strict=True)]
    return " / ".join(figure.format.format(median) for median in medians) or "–"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    """Exit through the stage, which tidies up; what a second Ctrl-C would cut short."""
    for stop in STOP_SIGNALS:
        signal.signal(stop, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    for stop in STOP_SIGNALS:
        signal.signal(stop, _leave)
    main()
