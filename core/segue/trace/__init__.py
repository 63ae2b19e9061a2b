"""Tracing: one trace to a run, through OpenTelemetry (the extra `segue[otel]`)."""

from __future__ import annotations

import os

from segue.errors import ConfigError, PluginError
from segue.ports.tracing import NoTracing, Tracing

ENVIRONMENT = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables of OpenTelemetry that switch tracing on."""


def open_tracing(endpoint: str = "", sample: float = 1.0, service_name: str = "segue") -> Tracing:
    """Tracing as configured: off unless an endpoint is given here or in OpenTelemetry's own environment variables.

    Args:
        endpoint: URL of an OTLP collector (HTTP, protobuf), with or without `/v1/traces`; "" means the environment's.
        sample: Share of runs to trace, 0 to 1; every participant decides the same for a run.
        service_name: The resource's `service.name`.

    Raises:
        PluginError: Tracing is wanted and OpenTelemetry is not installed.
        ConfigError: `sample` is not between 0 and 1.
    """
    if not 0.0 <= sample <= 1.0:
        raise ConfigError(f"the share of traced runs is {sample}, not between 0 and 1")
    if not endpoint and not any(os.environ.get(name) for name in ENVIRONMENT):
        return NoTracing()
    try:
        from segue.trace.otel import OtelTracing
    except ImportError as error:
        raise PluginError(
            f"tracing is configured, and OpenTelemetry is not installed ({error})",
            'install it with `pip install "segue[otel]"`, or remove the endpoint',
        ) from None
    return OtelTracing(endpoint=endpoint, sample=sample, service_name=service_name)
