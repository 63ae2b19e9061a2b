"""The command line as people use it: the bundled broker, `segue dev`, and commands beside it.

What runs on, and what is about processes, runs as a process; other commands are called in this one, which is quicker.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple
from unittest import mock

import msgspec
import pytest

from segue.cli import program

SEGUE = Path(sysconfig.get_path("scripts")) / "segue"
APPS = Path(__file__).parents[1] / "apps"
TIMEOUT = 20.0


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


class Folder:
    """Where commands run."""

    def __init__(self, path: Path, settings: str = "") -> None:
        self.path = path
        for app in APPS.glob("*.py"):
            shutil.copy(app, path)
        if settings:
            (path / "segue.toml").write_text(settings)

    def run(self, *arguments: str, stdin: str = "", **environ: str) -> Done:
        """Run a command to its end, in this process."""
        out, err, given = (io.TextIOWrapper(io.BytesIO(text), encoding="utf-8") for text in (b"", b"", stdin.encode()))
        with (
            contextlib.chdir(self.path),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "stdin", given),
            mock.patch.object(sys, "path", [*sys.path]),
            mock.patch.dict(os.environ, clean_environ() | environ, clear=True),
        ):
            code = program.run(arguments)
        return Done(code, *(found.buffer.getvalue().decode() for found in (out, err)))

    def process(self, *arguments: str, **environ: str) -> Done:
        """Run a command to its end, as a process."""
        found = subprocess.run(
            [SEGUE, *arguments],
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=clean_environ() | environ,
            check=False,
        )
        return Done(found.returncode, found.stdout, found.stderr)

    def json(self, *arguments: str) -> Any:
        """The answer of a command that works."""
        done = self.run(*arguments, "-o", "json")
        assert done.code == 0, done
        return done.json

    @contextlib.contextmanager
    def running(self, *arguments: str, command: Sequence[str | Path] = (SEGUE,)) -> Iterator[Running]:
        """Run a command beside the test; it is killed if it has not ended by then."""
        log = self.path / f"{arguments[0]}-{time.monotonic_ns()}.log"
        with log.open("w") as err:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=self.path,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env=clean_environ(),
            )
        with process:
            try:
                yield Running(process, log)
            finally:
                if process.poll() is None:
                    process.kill()


class Running(NamedTuple):
    """A command that runs on, and the file that its stderr goes to."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def lines(self, last: str) -> list[str]:
        """Lines of its output up to one that begins like this."""
        found = []
        for line in self.out:
            found.append(line.rstrip("\n"))
            if line.startswith(last):
                return found
        raise AssertionError(f"no line {last!r} in {found}; {self.log.read_text()}")

    def ready(self) -> dict[str, Any]:
        """The first line of JSON."""
        found: dict[str, Any] = msgspec.json.decode(self.lines("{")[-1])
        assert found["event"] == "ready"
        return found

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; the exit code and the rest of the output."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, rest


def clean_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SEGUE_", "FORCE_"))}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(check: Any, what: str) -> Any:
    """Ask until the answer is true."""
    deadline = time.monotonic() + TIMEOUT
    while not (found := check()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    url = f"nats://127.0.0.1:{free_port()}"
    return Folder(tmp_path_factory.mktemp("shop"), f'# the shop\napp = "shop:app"\ntransport = "{url}"\n')


@pytest.fixture(scope="module")
def dev(folder: Folder) -> Iterator[list[str]]:
    """What `segue dev` says, while it runs in the folder."""
    with folder.running("dev") as running:
        yield running.lines("Ctrl-C stops.")
        code, rest = running.stop(signal.SIGINT)
        assert code == 0, rest
        assert "stopped after" in rest
        assert running.log.read_text() == "stopping in order; once more: at once\n"


def order(key: str, total: float) -> str:
    return msgspec.json.encode({"id": key, "total": total}).decode()


def start(folder: Folder, key: str, total: float, *more: str) -> Any:
    return folder.json("start", "place_order", "--input", order(key, total), *more)


def ended(folder: Folder, key: str) -> Any:
    """What `where` says of a run when the journal has its end."""

    def look() -> Any:
        done = folder.run("where", key, "-o", "json")
        return done.code == 0 and done.json["run"]["status"] != "running" and done.json

    return eventually(look, f"run {key} never ended")


class TestDev:
    def test_it_says_what_it_runs_and_what_to_try(self, folder: Folder, dev: list[str]) -> None:
        url = folder.json("config")[2]["value"]
        assert dev[0] == f"shop is ready on {url} (a nats server of its own), namespace segue"
        assert dev[2] == "running coordinator, payments, inventory, email, observer"
        assert any(line.split()[::2] == ["place_order", "orchestrated"] for line in dev)
        assert """  segue start place_order --input '{"id": "text", "total": 1.0}' --wait""" in dev

    def test_what_it_says_to_try_works(self, folder: Folder, dev: list[str]) -> None:
        sample = next(line for line in dev if "start place_order" in line).split("'")[1]
        done = folder.process("start", "place_order", "--input", sample, "--wait")
        assert done.code == 0, done
        assert done.out.endswith('"text: 1 from shelf of text"\n')

    def test_a_second_one_in_the_folder_is_refused(self, folder: Folder, dev: list[str]) -> None:
        done = folder.run("dev")
        assert done.code == 2
        assert "another `segue dev` runs" in done.err

    def test_elsewhere_it_takes_another_port_and_says_so(self, folder: Folder, dev: list[str], tmp_path: Path) -> None:
        other = Folder(tmp_path)
        before = {*tmp_path.iterdir()}
        taken = folder.json("config")[2]["value"]
        with other.running("dev", "shop:app", "--transport", taken, "-o", "json") as running:
            ready = running.ready()
            assert ready["transport"] != taken
            assert ready["shared"] is True
            assert [flow["flow"] for flow in ready["flows"]] == ["place_order", "greet"]
            code, rest = running.stop(signal.SIGTERM)
        assert code == 0
        assert msgspec.json.decode(rest.splitlines()[-1])["event"] == "stopped"
        written = {*tmp_path.iterdir()} - before - {running.log, tmp_path / "__pycache__"}
        assert written == {tmp_path / ".segue"}

    def test_without_a_broker_it_runs_in_memory_and_says_so(self, tmp_path: Path) -> None:
        with Folder(tmp_path).running(
            "dev", "shop:app", "--transport", "memory://x", "--store", "memory://x"
        ) as running:
            said = running.lines("No other process can reach this broker")
            assert said[0] == "shop is ready on memory://x (this process only), namespace segue"
            assert running.stop(signal.SIGINT)[0] == 0

    def test_without_the_brokers_program_it_says_why(self, tmp_path: Path) -> None:
        with Folder(tmp_path).running("dev", "shop:app", command=[sys.executable, "-c", NO_SERVER]) as running:
            said = running.lines("No other process can reach this broker")
            assert said[0].startswith(
                "shop is ready on memory://dev (this process only, because there is no server; ask"
            )
            assert running.stop(signal.SIGINT)[0] == 0
        assert [path.name for path in (tmp_path / ".segue").glob("*.db")] == ["journal.db"]


NO_SERVER = """
import sys
from segue.cli.program import run
from segue.errors import TransportError
from segue_nats import server

def find_binary():
    raise TransportError("there is no server", "ask somebody")

server.find_binary = find_binary
sys.exit(run(sys.argv[1:]))
"""


class TestRuns:
    def test_a_run_in_each_mode_has_the_same_screen(self, folder: Folder, dev: list[str]) -> None:
        screens = []
        for mode in ("choreographed", "orchestrated"):
            assert folder.json("mode", "place_order", mode)["mode"] == mode
            told = start(folder, f"both-{mode}", 5, "--wait")
            assert (told["status"], told["mode"], told["existing"]) == ("completed", mode, False)
            assert told["value"] == f"both-{mode}: 5 from shelf of both-{mode}"
            found = ended(folder, f"both-{mode}")
            assert found["run"]["mode"] == mode
            assert found["run"]["run"] == told["run"]
            screens.append([(node["node"], node["service"], node["state"]) for node in found["nodes"]])
        assert screens[0] == screens[1]
        assert ("review", "payments", "skipped") in screens[0]

    def test_the_same_key_is_the_same_run(self, folder: Folder, dev: list[str]) -> None:
        first, again = (start(folder, "same", 5, "--wait") for _ in range(2))
        assert (first["existing"], again["existing"]) == (False, True)
        assert first["run"] == again["run"]
        assert first["value"] == again["value"]

    def test_a_failed_run_is_told_with_its_cause(self, folder: Folder, dev: list[str]) -> None:
        done = folder.run("start", "place_order", "--input", order("poor", -1), "--wait")
        assert done.code == 1
        assert "charge (Declined: order poor was declined)" in done.err
        assert "hint: segue where " in done.err
        ended(folder, "poor")
        screen = folder.process("where", "poor").out.splitlines()
        assert screen[0].startswith("place_order/poor  failed after ")
        assert screen[1].split()[:4] == ["✖", "charge", "payments", "failed"]
        assert screen[4].split(maxsplit=3)[1:] == ["confirm", "email", "aborted because charge failed"]

    def test_a_failure_as_json_is_told_on_both_streams(self, folder: Folder, dev: list[str]) -> None:
        done = folder.run("start", "place_order", "--input", order("poorer", -1), "--wait", "-o", "json")
        assert done.code == 1
        assert done.json["status"] == "failed"
        assert done.json["causes"][0]["error"]["type"] == "Declined"
        assert msgspec.json.decode(done.err)["kind"] == "RunFailed"

    def test_a_run_that_goes_on_is_told_with_what_it_waits_for(self, folder: Folder, dev: list[str]) -> None:
        done = folder.run("start", "place_order", "--input", order("unlucky", 13), "--wait", "--timeout", "0.5")
        assert done.code == 1
        assert "has not ended within" in done.err

        def backing_off() -> Any:
            lines = folder.run("where", "unlucky").out.splitlines()
            return lines if any("attempt 1 of 3" in line for line in lines) else None

        lines = eventually(backing_off, "the first attempt is never told")
        charge = next(line for line in lines if " charge " in line)
        assert charge.split()[:3] == ["↻", "charge", "payments"]
        assert "failed: TimeoutError: the bank does not answer; next " in charge
        assert next(line for line in lines if " confirm " in line).endswith("waits for charge")

    def test_watching_ends_with_the_run(self, folder: Folder, dev: list[str]) -> None:
        run = start(folder, "watched", 2)["run"]
        eventually(lambda: folder.run("where", run).code == 0, "the journal never heard of it")
        done = folder.process("where", "watched", "--watch", "-o", "json")
        looks = [msgspec.json.decode(line) for line in done.out.splitlines()]
        assert looks[0]["run"]["status"] == "running"
        assert looks[0]["broker"] == "reachable"
        assert looks[-1]["run"]["status"] == "completed"

    def test_runs_are_found_by_part_flow_and_status(self, folder: Folder, dev: list[str]) -> None:
        start(folder, "needle-1", 5, "--wait")
        start(folder, "needle-2", -5)
        ended(folder, "needle-1")
        ended(folder, "needle-2")
        assert [run["key"] for run in folder.json("runs", "needle")] == ["needle-2", "needle-1"]
        assert [run["key"] for run in folder.json("runs", "needle", "--status", "failed")] == ["needle-2"]
        assert [run["key"] for run in folder.json("runs", "needle", "--limit", "1")] == ["needle-2"]
        assert folder.json("runs", "needle", "--flow", "greet") == []
        assert folder.run("runs", "--flow", "nobody").out.startswith("no such run in sqlite:///")
        done = folder.run("where", "needle")
        assert done.code == 1
        assert "fits 2 runs" in done.err

    def test_input_comes_from_files_and_stdin_too(self, folder: Folder, dev: list[str]) -> None:
        (folder.path / "order.json").write_text(order("from-file", 5))
        assert folder.json("start", "place_order", "--input", "order.json")["key"] == "from-file"
        assert folder.json("start", "place_order", "--input", "@order.json")["existing"] is True
        done = folder.run("start", "greet", "--input", "-", "--key", "k", "--wait", stdin='{"name": "you", "times": 2}')
        assert done.out.endswith('"hello you hello you "\n')
        assert "key k" in done.out

    @pytest.mark.parametrize(
        ("flow", "text", "message"),
        [
            ("place_order", '{"id": 1, "total": 5}', "order.id of place_order: Expected `str`, got `int`"),
            ("place_order", "{}", "missing required field `id`"),
            ("greet", "5", "must be an object of its parameters"),
            ("greet", '{"name": "x", "key": "y"}', "has no parameter 'key'"),
            ("greet", "{}", "needs 'name'"),
        ],
    )
    def test_input_is_checked_against_the_types(
        self, folder: Folder, dev: list[str], flow: str, text: str, message: str
    ) -> None:
        done = folder.run("start", flow, "--input", text)
        assert done.code == 1
        assert message in done.err

    def test_without_the_app_the_deployed_plan_will_do(self, folder: Folder, dev: list[str], tmp_path: Path) -> None:
        bare = [*("--app", ""), "--config", str(folder.path / "segue.toml")]
        done = Folder(tmp_path).run("start", "place_order", "--input", order("bare", 5), "--wait", *bare)
        assert done.out.endswith('"bare: 5 from shelf of bare"\n')
        assert "payments.charge" in Folder(tmp_path).run("plan", "place_order", *bare).out

    def test_keys_cannot_speak_to_the_terminal(self, folder: Folder, dev: list[str]) -> None:
        refused = folder.run("start", "greet", "--input", '{"name": "x"}', "--key", "evil\x1b[2J\n")
        assert refused.code == 1
        assert "\x1b" not in refused.err
        assert "cannot be printed" in refused.err
        folder.json("start", "greet", "--input", '{"name": "x"}', "--key", "evil[red]", "--wait")
        eventually(lambda: "evil" in folder.run("runs").out, "the journal never heard of it")
        for arguments in (["runs"], ["where", "evil"]):
            assert "evil[red]" in folder.run(*arguments).out


class TestModes:
    def test_setting_a_mode_says_for_how_long(self, folder: Folder, dev: list[str]) -> None:
        toml = folder.path / "segue.toml"
        before = toml.read_text()
        try:
            done = folder.process("mode", "greet", "choreographed")
            assert done.out.startswith("new runs of greet are choreographed, they were orchestrated\n")
            assert "--save also writes it into segue.toml" in done.out
            assert toml.read_text() == before
            # Where the configuration says nothing, deploying does not switch back.
            assert [flow["mode"] for flow in folder.json("deploy", "greet")] == ["choreographed"]

            saved = folder.json("mode", "greet", "orchestrated", "--save")
            assert saved["saved"].startswith("segue.toml:")
            assert toml.read_text() == before + '\n[flows.greet]\nmode = "orchestrated"\n'
            told = folder.json("mode", "greet", "choreographed")
            assert "says orchestrated: the next deploy sets it back" in told["note"]
            (listed,) = folder.json("mode", "greet")
            assert (listed["mode"], listed["configured"]) == ("choreographed", "orchestrated")
            (deployed,) = folder.json("deploy", "greet")
            assert (deployed["previous_mode"], deployed["mode"]) == ("choreographed", "orchestrated")
        finally:
            toml.write_text(before)

    def test_all_modes_are_listed(self, folder: Folder, dev: list[str]) -> None:
        assert {line.split()[0] for line in folder.run("mode").out.splitlines()} == {"FLOW", "greet", "place_order"}

    def test_deploying_again_changes_nothing(self, folder: Folder, dev: list[str]) -> None:
        assert [flow["changed"] for flow in folder.json("deploy")] == [False, False]
        done = folder.run("deploy", "greet", "--mode", "choreographed")
        assert "orchestrated -> choreographed" in done.out
        assert folder.json("deploy", "greet", "--mode", "orchestrated")[0]["changed"] is True

    def test_a_service_that_never_ran_is_told(self, folder: Folder, dev: list[str]) -> None:
        done = folder.run("deploy", "--app", "slow:app", "--namespace", "apart")
        assert done.code == 0
        assert "rest: not checked against slow: never ran yet" in done.out


class TestStopping:
    @pytest.mark.parametrize(
        ("arguments", "name", "number"),
        [
            (["serve", "payments"], "payments", signal.SIGINT),
            (["coordinator"], "coordinator", signal.SIGTERM),
            (["observe"], "observer", signal.SIGINT),
        ],
    )
    def test_a_signal_ends_it_in_order(
        self, folder: Folder, dev: list[str], arguments: Sequence[str], name: str, number: signal.Signals
    ) -> None:
        with folder.running(*arguments) as running:
            assert running.lines(name)[-1].startswith(f"{name} is ready: nats://127.0.0.1:")
            code, rest = running.stop(number)
        assert code == 0
        assert rest.splitlines()[0].startswith("stopped after ")
        assert running.log.read_text() == "stopping in order; once more: at once\n"

    def test_the_second_signal_ends_it_at_once(self, folder: Folder, dev: list[str]) -> None:
        apart = ("--app", "slow:app", "--namespace", "apart2")
        with folder.running("coordinator", *apart) as coordinator, folder.running("serve", "slow", *apart) as running:
            running.lines("slow is ready")
            coordinator.lines("coordinator is ready")
            assert folder.run("deploy", *apart).code == 0
            assert folder.run("start", "rest", "--input", "60", *apart).code == 0
            eventually((folder.path / "began").exists, "the step never began")
            running.process.send_signal(signal.SIGINT)
            eventually(lambda: "stopping" in running.log.read_text(), "the first signal was not heard")
            assert running.process.poll() is None
            assert running.stop(signal.SIGINT)[0] == 130

    def test_waiting_can_be_interrupted(self, folder: Folder, dev: list[str]) -> None:
        with folder.running("start", "place_order", "--input", order("interrupted", 13), "--wait") as running:
            running.lines("run ")
            assert running.stop(signal.SIGINT)[0] == 130
            assert running.log.read_text() == ""

    def test_a_reader_that_goes_away_is_no_error(self, folder: Folder, dev: list[str]) -> None:
        for output in ("table", "json"):
            command = [
                sys.executable,
                "-c",
                f"import sys; from segue.cli.program import run\n{GONE}",
                "config",
                "-o",
                output,
            ]
            done = subprocess.run(
                command, cwd=folder.path, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
            assert (done.returncode, done.stderr) == (141, "")


GONE = "import os; read, write = os.pipe(); os.dup2(write, 1); os.close(read); sys.exit(run(sys.argv[1:]))"


class TestPlan:
    def test_every_format(self, folder: Folder) -> None:
        text = folder.run("plan", "place_order").out
        assert text.startswith("place_order  plan ")
        assert "hears  segue.c.place_order.charge.*" in text
        assert folder.run("plan", "place_order", "--format", "mermaid").out.startswith("flowchart LR\n")
        assert folder.run("plan", "place_order", "--format", "svg").out.startswith("<svg ")
        found = folder.json("plan", "place_order")
        assert found["document"] == folder.run("plan", "place_order", "--format", "json").json
        assert [part["service"] for part in found["wire"]["choreographed"]] == ["email", "inventory", "payments"]

    def test_saving_goes_by_the_suffix(self, folder: Folder, tmp_path: Path) -> None:
        path = tmp_path / "plan.svg"
        done = folder.run("plan", "greet", "--save", str(path))
        assert (done.code, done.out) == (0, "")
        assert path.read_text().startswith("<svg ")
        done = folder.run("plan", "greet", "--save", str(tmp_path / "no" / "plan.svg"))
        assert done.code == 2
        assert "cannot be written" in done.err


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["nonsense"], 2, "Unknown command"),
            (["mode", "place_order", "sideways"], 2, "orchestrated"),
            (["runs", "--limit", "0"], 2, "--limit 0"),
            (["runs", "a", "b"], 2, "b"),
            (["where"], 2, "requires an argument"),
            (["start", "place_order", "--input", '{"id": '], 2, "--input is not JSON"),
            (["start", "place_order", "--input", "nofile.json"], 2, "names no file, and is not JSON"),
            (["start", "place_order", "--input", "@nofile.json"], 2, "'nofile.json' cannot be read"),
            (["serve", "nobody"], 2, "its services: payments, inventory, email"),
            (["plan", "nothing"], 1, "its flows: place_order, greet"),
            (["deploy", "nothing"], 1, "its flows: place_order, greet"),
            (["plan", "place_order", "--app", "shop:no_app"], 2, "apps there: shop:app"),
            (["runs", "--journal", "oracle://x"], 2, "no plugin serves oracle://"),
            (["config", "--config", "nofile.toml"], 2, "there is no configuration file"),
            (["start", "place_order", "--input", "{}", "--transport", "nats://127.0.0.1:9"], 1, "segue dev"),
            (["coordinator", "--transport", "nats://127.0.0.1:9"], 1, "cannot connect to nats://127.0.0.1:9"),
        ],
    )
    def test_one_block_and_an_exit_code(
        self, folder: Folder, arguments: Sequence[str], code: int, message: str
    ) -> None:
        done = folder.run(*arguments)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith("error: ")
        assert message in done.err

    def test_an_unknown_flow(self, folder: Folder, dev: list[str]) -> None:
        for arguments in (["start", "nothing"], ["mode", "nothing"], ["mode", "nothing", "orchestrated"]):
            done = folder.run(*arguments)
            assert done.code == 1
            assert "flow 'nothing' is not deployed" in done.err

    def test_an_unknown_run(self, folder: Folder, dev: list[str]) -> None:
        done = folder.run("where", "no-such-order", "-o", "json")
        assert (done.code, done.out) == (1, "")
        assert msgspec.json.decode(done.err)["kind"] == "UnknownRun"

    def test_a_key_of_the_file_that_nobody_knows(self, tmp_path: Path) -> None:
        done = Folder(tmp_path, "transprot = 'nats://x'\n").run("config")
        assert done.code == 2
        assert "unknown key transprot (segue.toml:1)" in done.err
        assert "did you mean transport?" in done.err

    def test_nobody_accepts_the_start(self, folder: Folder, dev: list[str]) -> None:
        assert folder.run("deploy", "greet", "--namespace", "empty").code == 0
        start = ("start", "greet", "--input", '{"name": "x"}', "--namespace", "empty", "--timeout", "2.5")
        done = folder.run(*start)
        assert done.code == 1
        assert "waiting for coordinator to accept the start; is it running? `segue coordinator`" in done.err
        assert "did not accept the start within 2.5 s" in done.err

    def test_debugging_shows_the_traceback(self, folder: Folder) -> None:
        assert "Traceback" not in folder.process("plan", "nothing").err
        assert "Traceback (most recent call last)" in folder.process("plan", "nothing", SEGUE_DEBUG="1").err


class TestInstallation:
    def test_every_setting_is_shown_with_its_origin(self, folder: Folder) -> None:
        done = folder.run("config", "--namespace", "mine", "-o", "json", SEGUE_TRACE__SAMPLE="0.5")
        found = {row["key"]: (row["value"], row["origin"]) for row in done.json}
        assert found["app"] == ("shop:app", "segue.toml:2")
        assert found["namespace"] == ("mine", "flag --namespace")
        assert found["trace.sample"] == ("0.5", "environment SEGUE_TRACE__SAMPLE")
        assert found["journal"] == (f"sqlite:///{folder.path}/.segue/journal.db", "default")

    def test_plugins_are_listed_with_who_brings_them(self, folder: Folder) -> None:
        found = {row["plugin"]: row for row in folder.json("plugins")}
        assert found["nats"]["serves"] == {
            "transport": ["nats", "tls"],
            "objects": ["nats", "tls"],
            "broker": ["nats"],
        }
        assert found["sql"]["serves"]["journal"] == ["sqlite", "postgresql"]
        assert {found[name]["distribution"] for name in ("memory", "nats", "sql")} == {"segue"}
        assert "PLUGIN" in folder.process("plugins").out

    def test_databases_are_upgraded(self, tmp_path: Path) -> None:
        other = Folder(tmp_path)
        found = other.json("db", "upgrade", "--app", "shop:app")
        names = [Path(row["database"]).stem for row in found]
        assert names == ["coordinator", "payments", "inventory", "email", "journal"]
        assert all(row["before"] == 0 < row["after"] for row in found)
        assert "as it was" in other.run("db", "upgrade").out
        assert other.run("db", "upgrade", "memory://x").code == 2

    def test_the_version(self, folder: Folder) -> None:
        assert folder.run("--version").out.startswith("segue 0.")

    def test_help_loads_nothing_that_is_slow(self) -> None:
        code = (
            "import sys; from segue.cli.program import run; code = run(['--help'])\n"
            "slow = {'anyio', 'asyncio', 'sqlalchemy', 'nats', 'pluggy', 'opentelemetry', 'segue.compose'}\n"
            "print(sorted(slow & set(sys.modules)), file=sys.stderr); sys.exit(code)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == "[]\n"
        for name in ("dev", "plan", "deploy", "mode", "start", "runs", "where", "serve", "coordinator", "observe"):
            assert f" {name} " in done.stdout

    def test_each_command_explains_itself(self, folder: Folder) -> None:
        out = " ".join(folder.run("start", "--help").out.replace("│", "").split())
        assert "When this returns, its home has committed it." in out
        assert "--input STR JSON, or a file (@FILE, if its name is JSON), or - for stdin." in out
        assert "upgrade" in folder.run("db", "--help").out
