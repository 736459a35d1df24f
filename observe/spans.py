"""Spans in batches: a span processor whose process has one thread until a span ends.

The SDK's own starts a thread at each fork, and a process that has two can't leave the network.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque

from opentelemetry import context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter

MOST_KEPT = 2048
MOST_SENT = 512
"""Spans of one export."""

PAUSE_SECONDS = 5.0

log = logging.getLogger("packmule.tracing")


class Batches(SpanProcessor):
    """Exports spans that ended, every few seconds; the oldest are dropped if the collector is away."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._ended: deque[ReadableSpan] = deque(maxlen=MOST_KEPT)
        self._exporting, self._starting = threading.Lock(), threading.Lock()
        self._is_started = False

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span that is sampled."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        self._ended.append(span)
        with self._starting:
            if not self._is_started:
                threading.Thread(target=self._export_forever, name="spans", daemon=True).start()
                self._is_started = True

    def shutdown(self) -> None:
        """Export what is left."""
        self.force_flush()
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Export what is left."""
        with self._exporting:
            while self._ended:
                some = [self._ended.popleft() for _ in range(min(MOST_SENT, len(self._ended)))]
                token = context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))
                try:
                    self._exporter.export(some)
                except Exception as error:  # spans are not worth a job
                    log.warning("%d spans are lost: %s: %s", len(some), type(error).__name__, error)
                finally:
                    context.detach(token)
        return True

    def _export_forever(self) -> None:
        while True:
            time.sleep(PAUSE_SECONDS)
            self.force_flush()
