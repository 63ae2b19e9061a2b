"""The declaration: services, steps, flows by tracing (pure)."""
