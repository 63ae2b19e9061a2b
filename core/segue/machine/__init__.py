"""The machine: what happens next, as a pure function (no I/O, clock, randomness or await)."""
