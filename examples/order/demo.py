"""The demo: 200 orders, orchestrated; one line of configuration; the same orders, choreographed; both side by side.

It uses what every user has: the `segue` command for everything that runs, and `segue.connect()` to place orders.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import msgspec
from anyio.abc import TaskGroup
from children import Broken, Children, children
from rich.console import Console
from rounds import Mode, Round, differences, side_by_side
from shop import Order

import segue
from segue.errors import SegueError

HERE = Path(__file__).resolve().parent
SHOWN = 8
SERVICES = ("payments", "inventory", "email")
NEXT = """\
What to try next:

  {enter}cd {here}
  segue dev                                # the shop in one process, with a broker of its own

and in another terminal, in the same way:

  segue start place_order --input "$(sed -n 101p orders.jsonl)" --wait
  segue where 4711                         # where is it, and why is it not further?
  segue plan place_order                   # who hears whom, in each mode
  segue mode place_order choreographed     # for new runs; the others end as they began
"""


class Demo:
    """What the parts of the demo share.

    Args:
        folder: A copy of the example, with all state.
        orders: The orders.
        console: Where it prints.
    """

    def __init__(self, folder: Path, orders: Sequence[Order], console: Console) -> None:
        self.folder = folder
        self.orders = orders
        self.console = console
        self.began = time.monotonic()

    async def run(self, processes: Children) -> list[str]:
        """Both rounds; returns what differs."""
        self.say("Starting a coordinator, three services and an observer, each a process of its own")
        processes.start("coordinator", "coordinator")
        for service in SERVICES:
            processes.start(service, "serve", service)
        processes.start("observer", "observe")
        await processes.ready()
        async with segue.connect() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(self._guard, processes)
            self.head("Orchestrated: the coordinator decides")
            await self._segue(processes, "deploy")
            first = Round(client, "orchestrated", "")
            await self._round(processes, first)

            self.head("Choreographed: nobody decides; each service reacts to what the others say")
            self._edit("orchestrated", "choreographed")
            await self._segue(processes, "deploy")
            self.say(f"coordinator (process {await processes.stop('coordinator')}) stopped: nobody is in charge now")
            self.say("the same orders again, under keys of their own: 4611-c and so on")
            second = Round(client, "choreographed", "-c")
            await self._round(processes, second)

            self.head("Side by side")
            self.console.print(side_by_side([first, second], self.orders[: len(self.orders) // 2]))
            tasks.cancel_scope.cancel()
        return list(differences([first, second]))

    async def _round(self, processes: Children, each: Round) -> None:
        half = len(self.orders) // 2
        async with anyio.create_task_group() as tasks:
            await self._place(tasks, each, 0, half)
            self.say(f"e-mail service (process {await processes.stop('email')}) stopped; orders go on")
            await self._place(tasks, each, half, len(self.orders))
            await self._segue(processes, "where", await each.stuck(self.orders[half:], "notify"))
            pid = processes.start("email", "serve", "email")
            await processes.ready()
            self.say(f"e-mail service is back (process {pid})")
        self.say(f"all {len(each.results)} orders have ended")
        await each.collect(self.orders, self.folder / "effects")

    async def _place(self, tasks: TaskGroup, each: Round, start: int, end: int) -> None:
        middle = (start + end) // 2
        for first, last in ((start, middle), (middle, end)):
            await each.place(tasks, self.orders[first:last])
            confirmed = sum(result.email is not None for result in each.results.values())
            refused = len(each.results) - confirmed
            self.say(f"{last} orders placed: {confirmed} confirmed, {refused} refused")

    async def _guard(self, processes: Children) -> None:
        while True:
            processes.check()
            await anyio.sleep(0.2)

    async def _segue(self, processes: Children, *command: str) -> None:
        self.say(f"$ segue {' '.join(command)}")
        for line in (await processes.segue(*command)).splitlines():
            self.console.print(f"           {line}")

    def _edit(self, before: Mode, after: Mode) -> None:
        path = self.folder / "segue.toml"
        old = path.read_text()
        new = old.replace(f'mode = "{before}"', f'mode = "{after}"')
        path.write_text(new)
        self.say("segue.toml:")
        for line in list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[3:]:
            self.console.print(f"           {line}")

    def head(self, text: str) -> None:
        """Print a heading."""
        self.console.print(f"\n{text}\n", style="bold")

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self.console.print(f"  {time.monotonic() - self.began:5.1f} s  {text}")


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(description="Place orders, orchestrated and choreographed, and compare.")
    parser.add_argument("--orders", type=int, default=200, metavar="N", help="only the first N (default: 200)")
    count = parser.parse_args().orders
    orders = [msgspec.json.decode(line, type=Order) for line in (HERE / "orders.jsonl").read_bytes().splitlines()]
    if not 8 <= count <= len(orders):
        parser.error(f"--orders must be from 8 to {len(orders)}")
    orders = orders[:count]
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(f"{len(orders)} orders, three services, one flow, two modes\n", style="bold")
    folder = Path(tempfile.mkdtemp(prefix="segue-demo-"))
    for name in ("shop.py", "segue.toml"):
        shutil.copy(HERE / name, folder)
    try:
        with contextlib.chdir(folder), children(folder) as processes:
            found = anyio.run(Demo(folder, orders, console).run, processes)
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        console.print("\nstopped")
        return 130
    except Exception as error:
        found = list(reasons(error))
    if found:
        report(console, folder, found)
        return 1
    shutil.rmtree(folder)
    console.print("Same outcomes, same history, nothing lost.\n", style="bold")
    console.print(NEXT.format(enter=activation(), here=shown(HERE)), end="")
    return 0


def activation() -> str:
    """The command that enters this virtual environment, if it is one."""
    script = Path(sys.prefix, "bin", "activate")
    return f". {shown(script)}\n  " if sys.prefix != sys.base_prefix and script.exists() else ""


def shown(path: Path) -> str:
    """A path as a shell takes it, relative if it is below the current folder."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def reasons(error: Exception) -> Iterator[str]:
    """What went wrong, of all the exceptions in a group; what is not expected is raised again."""
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from reasons(inner)
    elif isinstance(error, Broken | SegueError):
        yield str(error)
    else:
        raise error


def report(console: Console, folder: Path, found: Sequence[str]) -> None:
    """Say what went wrong, with the last lines of the logs, which are kept."""
    console.print("\nThe demo failed:", style="bold red")
    for text in found[:SHOWN]:
        console.print(f"  {text}")
    if len(found) > SHOWN:
        console.print(f"  and {len(found) - SHOWN} more")
    for path in sorted(folder.glob("*.log")):
        console.print(f"\n{path}:")
        for line in path.read_text(errors="replace").splitlines()[-SHOWN:]:
            console.print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
