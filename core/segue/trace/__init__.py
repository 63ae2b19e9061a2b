"""OpenTelemetry: one trace per run."""
