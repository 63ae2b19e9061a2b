"""Memory adapters: the reference transport, store and journal, for tests and trying out."""
