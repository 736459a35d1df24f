"""Trace export: set up the OpenTelemetry SDK for this process."""

from __future__ import annotations

import sys
from typing import Any

from packmule import hooks
from packmule.config import SettingsError

HOOKS = "packmule.contrib.opentelemetry"


def export_traces(by: str) -> None:
    """Send spans by OTLP over HTTP (`otlp`), or print them to standard error (`console`), from now on.

    OpenTelemetry's own variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_SERVICE_NAME`, configure
    the rest. Raises `SettingsError` if its packages are not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

        from packmule.observe.spans import Batches

        chosen: SpanProcessor
        if by == "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            chosen = Batches(OTLPSpanExporter())
        else:
            chosen = SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr, formatter=_line))
    except ImportError as error:
        hint = "PACKMULE_TRACING needs more packages: pip install 'packmule[otel]'"
        raise SettingsError(f"{hint} ({error})") from None
    # The environment's attributes of the service come with `create`, and win.
    named = Resource({"service.name": "packmule"})
    configured = {
        name: value
        for name, value in Resource.create().attributes.items()
        if not str(value).startswith("unknown_service")
    }
    provider = TracerProvider(resource=named.merge(Resource(configured)))
    provider.add_span_processor(chosen)
    trace.set_tracer_provider(provider)
    hooks.load([HOOKS])


def _line(span: Any) -> str:
    """A span as one line of JSON."""
    return f"{span.to_json(indent=None)}\n"
