"""The ports: what the core asks of transports, stores and journals."""
