"""Send spans to a collector, where the standard variables of OpenTelemetry name one."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from server.settings import collector_named

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_log = logging.getLogger(__name__)


@contextmanager
def sending_spans(service: str) -> "Generator[TracerProvider | None]":
    """Send the spans of this process for as long as this is open; gives what makes them.

    Without a collector there are no spans, and nothing of OpenTelemetry's is imported but its API.
    """
    if not collector_named():
        yield None
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        _log.warning("no spans are sent: install Dramatis with its extra `telemetry`")
        yield None
        return
    about = {"service.name": service, "service.version": version("dramatis-mcp")}
    provider = Provider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield provider
    finally:
        provider.shutdown()
