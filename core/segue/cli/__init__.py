"""The command line: `segue --help` lists the commands. `main` is the entry point."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name, and leave with its exit code."""
    from segue.cli.program import run

    sys.exit(run(sys.argv[1:]))
