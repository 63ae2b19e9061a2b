"""The shell: participants, client and observer (anyio)."""
