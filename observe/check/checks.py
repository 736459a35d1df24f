"""All probes by the names that a report gives them, one after the other or at once within a bound of time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from redis import Redis

from packmule.config import Settings
from packmule.observe.check import declared, reached, server
from packmule.plain_text import mask

SECONDS = 4.0
"""How long a report waits that is asked for at once."""

SAME_FOR = 2.0
"""Seconds for which a finding isn't looked for again."""

OF_SERVER = frozenset({"durability", "memory", "rights", "clock", "hosts"})
"""What is found out about the server that `redis` reaches."""

Probe = Callable[[], str]


@dataclass(frozen=True)
class Finding:
    """Whether a part is `ok`, and the text for a person."""

    ok: bool
    text: str

    @property
    def words(self) -> str:
        """The text without its `ok`, where that is shown beside it."""
        return self.text.removeprefix("FAULT: ").removeprefix("ok, ")


class Checks:
    """What can be found out about `settings`, on the server of the client that `connected` returns.

    `load` registers the jobs of the settings' modules, or raises why it can't.

    >>> Checks(settings, lambda: client, load).one_by_one()["mail"].text  # doctest: +SKIP
    'ok'
    """

    def __init__(
        self, settings: Settings, connected: Callable[[], Redis], load: Callable[[], object]
    ) -> None:
        self.settings = settings
        self._connected = connected
        self._load = load
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()

    @property
    def probes(self) -> Mapping[str, Probe]:
        """Each part, and the function that returns its text or raises its fault."""
        settings, connected = self.settings, self._connected
        return {
            "variables": declared.variables,
            "modules": self._modules,
            "schedules": lambda: declared.schedules(settings),
            "webhooks": lambda: declared.webhooks(settings),
            "presets": lambda: declared.presets(settings),
            **({"pipelines": lambda: declared.pipelines(settings)} if settings.pipelines else {}),
            "redis": lambda: server.version(connected(), settings.memory_high_water),
            "durability": lambda: server.promise(connected()),
            "memory": lambda: server.memory(connected(), settings.memory_high_water),
            "rights": lambda: server.rights(connected()),
            "clock": lambda: server.clock(connected()),
            "hosts": lambda: reached.hosts(settings, connected()),
            "locks": lambda: reached.locks(settings),
            "storage": lambda: reached.storage(settings),
            "isolation": lambda: reached.isolation(settings),
            **({"clamd": lambda: reached.clamd(settings)} if settings.clamd else {}),
            "mail": lambda: reached.mail(settings),
            **({"dkim": lambda: reached.dkim(settings)} if settings.dkim else {}),
            **({"bounces": lambda: reached.bounces(settings)} if settings.bounces else {}),
        }

    def one_by_one(self) -> dict[str, Finding]:
        """Every finding, however long that takes; a server that can't be reached is asked once."""
        findings: dict[str, Finding] = {}
        for name, probe in self.probes.items():
            is_away = name in OF_SERVER and not findings["redis"].ok
            findings[name] = findings["redis"] if is_away else found(probe)
        return findings

    def at_once(self, seconds: float = SECONDS) -> dict[str, Finding]:
        """Every finding, after `seconds` at most; what has no answer by then is a fault.

        A probe that still runs is not started again, so a server that is away holds one thread at most. Any
        thread may call it.
        """
        until = time.monotonic() + seconds
        running = {name: self._running_or_new(name, probe) for name, probe in self.probes.items()}
        return {name: each.finding(until) for name, each in running.items()}

    def _modules(self) -> str:
        self._load()
        return declared.queues_of_modules(self.settings)

    def _running_or_new(self, name: str, probe: Probe) -> _Running:
        with self._lock:
            one = self._running.get(name)
            if one is None or one.is_old:
                one = self._running[name] = _Running(name, probe)
            return one


class _Running:
    """A probe in a thread of its own."""

    def __init__(self, name: str, probe: Probe) -> None:
        self.began = time.monotonic()
        self.ended: float | None = None
        self._found: Finding | None = None
        self._thread = threading.Thread(target=self._run, args=(probe,), name=f"check {name}", daemon=True)
        self._thread.start()

    @property
    def is_old(self) -> bool:
        """Whether it ended a while ago."""
        return self.ended is not None and time.monotonic() > self.ended + SAME_FOR

    def finding(self, until: float) -> Finding:
        """What it has found by the monotonic instant `until`."""
        self._thread.join(max(0.0, until - time.monotonic()))
        waited = time.monotonic() - self.began
        return self._found or Finding(False, f"FAULT: no answer within {waited:.0f} s")

    def _run(self, probe: Probe) -> None:
        self._found = found(probe)
        self.ended = time.monotonic()


def found(probe: Probe) -> Finding:
    """What a probe finds; its error is the fault, without passwords.

    >>> found(lambda: "ok, 3")
    Finding(ok=True, text='ok, 3')
    """
    try:
        return Finding(True, probe())
    except Exception as error:
        return Finding(False, f"FAULT: {mask(str(error)) or type(error).__name__}")
