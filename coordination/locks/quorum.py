"""Asking all lock nodes at once, and waiting no longer than a majority takes to answer."""

from __future__ import annotations

import math
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from packmule.coordination.locks.node import ABSENT, Node
from packmule.coordination.redis.command_packer import pack
from packmule.coordination.redis.scripts import Script
from packmule.errors import UsageError

TRIPS = 4
"""A node may take this many times its usual round trip to answer, if that is more than the timeout."""

LONGEST_DIAL = 0.64
"""Seconds that each step of connecting may take while no majority is connected."""

REPLICA = ("READONLY", "MASTERDOWN", "-READONLY")


class SameServer(UsageError, ValueError):
    """Two lock nodes are the same server, which would then have two votes."""


@dataclass(frozen=True)
class Votes:
    """How many nodes said yes and no, how many were able to answer, and what is wrong with the others."""

    yes: int
    no: int
    able: int
    replies: tuple[int, ...]
    faults: dict[str, str]


class Quorum:
    """The lock nodes. Any number of threads may call it, one at a time, and so may forked children."""

    def __init__(self, clients: Sequence[redis.Redis], longest_ttl: float, timeout: float) -> None:
        self.nodes = [Node(client) for client in clients]
        self.majority = len(self.nodes) // 2 + 1
        self.longest_ttl = longest_ttl
        self.timeout = timeout
        self.dial_within = timeout / 2
        """Seconds that each step of connecting to a node may take now."""
        self.reset()
        _everywhere.add(self)

    def reset(self) -> None:
        """Start over, as a forked child must: connections and held mutexes are the parent's."""
        self._mutex = threading.Lock()
        self.close()

    def close(self) -> None:
        """Close all connections."""
        with self._mutex:
            self._disconnect()

    def ask(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | int],
        longest: float = math.inf,
        *,
        voters: bool = False,
        agrees: Callable[[int], bool] = bool,
    ) -> Votes:
        """Run a script on all nodes, or on `voters` only, until a majority `agrees` or can no longer do so.

        The script's last argument says whether the node votes. Nodes may take the timeout to answer, or a few
        round trips where these are longer, but at most `longest` seconds. Connecting takes extra time.
        """
        with self._mutex:
            try:
                self._connect(longest)
                patience = min(self._answer_within(), longest)
                return self._ask(script, (len(keys), *keys, *args), patience, voters, agrees)
            except BaseException:
                self._disconnect()  # how far the exchange got is unknown
                raise

    def faults(self) -> dict[str, str]:
        """The nodes that can't vote now, and why."""
        with self._mutex:
            self._connect(math.inf)
            return self._faults()

    def _disconnect(self) -> None:
        for node in self.nodes:
            node.close()

    def _connect(self, longest: float) -> None:
        """Open missing connections, such as those that ended when a server restarted.

        Steps get little time while a majority is connected, so that a dead node holds nobody up. Without a
        majority they get more, because the network may be slow.
        """
        connected = {node.socket.fileno(): node for node in self.nodes if node.socket is not None}
        poller = select.poll()
        for descriptor in connected:
            poller.register(descriptor, select.POLLIN)
        for descriptor, _ in poller.poll(0):
            connected[descriptor].receive()  # a late reply, or the end of the connection
        for node in self.nodes:
            node.leave_if_silent()
        late = [node for node in self.nodes if node.is_due]
        while late:
            step = min(self.dial_within, longest)
            late = [node for node in late if not self._dial(node, step)]
            if len(self._round_trips()) >= self.majority:
                self.dial_within = self._answer_within() / 2
                return
            if step >= min(LONGEST_DIAL, longest):
                return
            if late:
                self.dial_within = min(2 * self.dial_within, LONGEST_DIAL)

    def _dial(self, node: Node, step: float) -> bool:
        """Connect to `node`; returns False if only the time did not suffice. Raises `SameServer`."""
        done = node.dial(step, self.longest_ttl)
        for other in self.nodes:
            if other is not node and node.run_id and other.run_id == node.run_id:
                raise SameServer(f"the lock nodes {other.name} and {node.name} are the same server")
        return done

    def _round_trips(self) -> list[float]:
        """The round trips to the connected nodes, the shortest first."""
        return sorted(node.round_trip for node in self.nodes if node.socket is not None)

    def _answer_within(self) -> float:
        """Seconds in which the nearest majority should have answered."""
        return max([self.timeout, *(TRIPS * trip for trip in self._round_trips()[: self.majority])])

    def _ask(
        self,
        script: Script,
        call: tuple[str | int, ...],
        patience: float,
        voters: bool,
        agrees: Callable[[int], bool],
    ) -> Votes:
        deadline = time.monotonic() + patience
        poller = select.poll()
        waiting = {node.socket.fileno(): node for node in self._send(script, call, voters)}
        for descriptor in waiting:
            poller.register(descriptor, select.POLLIN)
        replies: list[int] = []
        yes = 0
        silence = ""
        while waiting and yes < self.majority <= yes + len(waiting):
            left = deadline - time.monotonic()
            if left <= 0:
                silence = f"no answer within {patience:.3g} s"
                break
            for descriptor, _ in poller.poll(left * 1000):
                node = waiting[descriptor]
                reply = node.receive()
                if reply is ABSENT and node.socket is not None:
                    continue
                del waiting[descriptor]
                poller.unregister(descriptor)
                if isinstance(reply, int):
                    node.fault = ""
                    replies.append(reply)
                    yes += agrees(reply)
                elif reply is not ABSENT:
                    node.fault = f"it replied {reply}"
                    if any(word in str(reply) for word in REPLICA):
                        node.lose(node.fault)  # the name may lead to another server now
        for node in waiting.values():
            node.fault = silence
        able = len(replies) + (0 if silence else len(waiting))
        return Votes(yes, len(replies) - yes, able, tuple(replies), self._faults())

    def _send(self, script: Script, call: tuple[str | int, ...], voters: bool) -> list[Node]:
        """The connected nodes that accepted the command."""
        sent = []
        commands: dict[bool, bytes] = {}
        # The whole script each time: once a majority has answered, nobody would notice a release that a node
        # refused because it doesn't know the hash. A script of this size costs no more than its hash.
        for node in self.nodes:
            if node.socket is None or (voters and not node.votes):
                continue
            if node.votes not in commands:
                whole: tuple[Any, ...] = ("EVAL", script.source, *call, int(node.votes))
                commands[node.votes] = pack(*whole)
            if node.send(commands[node.votes]):
                sent.append(node)
        return sent

    def _faults(self) -> dict[str, str]:
        now = time.monotonic()
        return {
            node.name: node.fault
            or f"it may have forgotten locks when it started; it votes in {node.votes_at - now:.0f} s"
            for node in self.nodes
            if node.fault or node.votes_at > now
        }


_everywhere: weakref.WeakSet[Quorum] = weakref.WeakSet()


def _reset_after_fork() -> None:
    for quorum in list(_everywhere):
        quorum.reset()


os.register_at_fork(after_in_child=_reset_after_fork)
