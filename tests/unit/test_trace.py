"""Tracing: one tree per run, whoever makes the spans, and never a harm to what is traced."""

from __future__ import annotations

import gzip
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from segue.errors import ConfigError, PluginError
from segue.ports.tracing import Attempt, NoTracing, Place, RunSpan
from segue.runtime.ids import new_run_id
from segue.trace import open_tracing
from segue.trace.otel import OtelTracing
from segue.trace.shape import ELSEWHERE, shape

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def attempt(run: str, node: str, *inputs: Place, number: int = 1, tag: str = "", mode: str = "orchestrated") -> Attempt:
    return Attempt(run, "place_order", "4711", mode, "payments", node, Place(node, tag, number), inputs)


def ended(run: str, status: str = "completed", caller: str = "", mode: str = "orchestrated") -> RunSpan:
    error = "Declined: no" if status == "failed" else ""
    return RunSpan(run, "place_order", "4711", mode, status, error, 1000.5, 1002.25, caller)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def traced(exporter: InMemorySpanExporter, run: str, mode: str, participants: int) -> None:
    """A run of three steps, two of them before a join, its spans made by one or several processes."""
    makers = [OtelTracing(exporter) for _ in range(participants)]
    steps = [
        attempt(run, "charge", Place("run.entry", "", 0), mode=mode),
        attempt(run, "reserve", Place("run.entry", "", 0), mode=mode),
        attempt(run, "notify", Place("charge", "", 1), Place("reserve", "", 1), mode=mode),
    ]
    for i, one in enumerate(steps):
        with makers[i % participants].attempt(one):
            pass
    makers[-1].run(ended(run, mode=mode, caller=CALLER))


def parent(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent is not None else 0


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_run_is_one_trace_with_its_own_id(exporter: InMemorySpanExporter) -> None:
    run = new_run_id()
    traced(exporter, run, "choreographed", 3)
    spans = by_name(exporter)
    assert set(spans) == {"charge", "reserve", "notify", "place_order"}
    assert {format_trace_id(span.context.trace_id) for span in spans.values()} == {run}
    root = spans["place_order"]
    assert root.parent is None
    assert (root.start_time, root.end_time) == (1_000_500_000_000, 1_002_250_000_000)
    assert [format_span_id(link.context.span_id) for link in root.links] == ["b7ad6b7169203331"]
    for name in ("charge", "reserve", "notify"):
        assert parent(spans[name]) == root.context.span_id
    linked = {link.context.span_id for link in spans["notify"].links}
    assert linked == {spans["charge"].context.span_id, spans["reserve"].context.span_id}
    assert len(spans["charge"].links) == 0
    assert spans["charge"].attributes == {
        "segue.flow": "place_order",
        "segue.run": run,
        "segue.key": "4711",
        "segue.mode": "choreographed",
        "segue.node": "charge",
        "segue.tag": "",
        "segue.service": "payments",
        "segue.step": "charge",
        "segue.attempt": 1,
    }


def test_the_shape_does_not_depend_on_mode_ids_or_participants(exporter: InMemorySpanExporter) -> None:
    other = InMemorySpanExporter()
    traced(exporter, new_run_id(), "orchestrated", 1)
    traced(other, new_run_id(), "choreographed", 3)
    shapes = shape(exporter.get_finished_spans())
    assert shapes == shape(reversed(other.get_finished_spans()))
    notify = next(one for one in shapes if one.name == "notify#1")
    assert (notify.parent, notify.links, notify.status) == ("place_order", ("charge#1", "reserve#1"), "UNSET")
    assert next(one for one in shapes if one.name == "place_order").links == (ELSEWHERE,)
    third = InMemorySpanExporter()
    run, tracing = new_run_id(), OtelTracing(third)
    with tracing.attempt(attempt(run, "charge", number=2)):
        pass
    assert shape(third.get_finished_spans()) not in ([one] for one in shapes)


def test_span_ids_tell_attempts_tags_and_runs_apart_and_repeat(exporter: InMemorySpanExporter) -> None:
    tracing, run = OtelTracing(exporter), new_run_id()
    attempts = [
        attempt(run, "charge"),
        attempt(run, "charge", number=2),
        attempt(run, "charge", tag="1"),
        attempt(run, "reserve"),
        attempt(new_run_id(), "charge"),
        attempt(run, "charge"),
    ]
    for one in attempts:
        with tracing.attempt(one):
            pass
    found = [span.context.span_id for span in exporter.get_finished_spans()]
    assert len(set(found)) == 5
    assert found[0] == found[-1]
    assert all(found)


def test_a_retried_run_has_a_root_for_each_revision(exporter: InMemorySpanExporter) -> None:
    tracing, run = OtelTracing(exporter), new_run_id()
    for revision in (1, 2):
        with tracing.attempt(attempt(run, "charge")._replace(revision=revision)):
            pass
        tracing.run(ended(run, caller=CALLER)._replace(revision=revision))
    first, root, second, again = exporter.get_finished_spans()
    assert len({span.context.span_id for span in (first, root, second, again)}) == 4
    assert {format_trace_id(span.context.trace_id) for span in (first, root, second, again)} == {run}
    assert (parent(first), parent(second)) == (root.context.span_id, again.context.span_id)
    assert again.parent is None
    assert [link.context.span_id for link in again.links][1:] == [root.context.span_id]
    assert second.attributes is not None
    assert second.attributes["segue.revision"] == 2
    names = [one.name for one in shape([first, root, second, again])]
    assert names == ["charge#1", "charge#1 r2", "place_order", "place_order r2"]


def test_an_undo_is_a_span_of_its_own_that_links_to_what_it_undoes(exporter: InMemorySpanExporter) -> None:
    tracing, run = OtelTracing(exporter), new_run_id()
    with tracing.attempt(attempt(run, "charge", tag="3", number=2)):
        pass
    with tracing.attempt(attempt(run, "charge:undo", Place("charge", "3", 2), tag="3")):
        pass
    done, undone = exporter.get_finished_spans()
    assert undone.context.span_id != done.context.span_id
    assert [link.context.span_id for link in undone.links] == [done.context.span_id]
    assert undone.attributes is not None
    assert (undone.attributes["segue.node"], undone.attributes["segue.undo"]) == ("charge", True)
    assert [one.name for one in shape([done, undone])] == ["charge/3#2", "charge:undo/3#1"]


def test_a_join_of_500_links_to_all_of_them(exporter: InMemorySpanExporter) -> None:
    inputs = [Place(f"n{i}", "", 1) for i in range(500)]
    with OtelTracing(exporter).attempt(attempt(new_run_id(), "sum", *inputs, *inputs)):
        pass
    (span,) = exporter.get_finished_spans()
    assert len(span.links) == 500


def test_user_spans_nest_and_keep_their_own_ids(exporter: InMemorySpanExporter) -> None:
    tracing, run = OtelTracing(exporter), new_run_id()
    tracer = tracing.provider.get_tracer("shop")
    ask, send_ = tracer.start_as_current_span("ask the bank"), tracer.start_as_current_span("send")
    with tracing.attempt(attempt(run, "charge")), ask, send_:
        inside = tracing.caller()
    with tracer.start_as_current_span("alone"):
        pass
    spans = by_name(exporter)
    bank, send, alone = spans["ask the bank"], spans["send"], spans["alone"]
    assert parent(bank) == spans["charge"].context.span_id
    assert parent(send) == bank.context.span_id
    assert inside == f"00-{run}-{format_span_id(send.context.span_id)}-01"
    assert alone.parent is None
    assert format_trace_id(alone.context.trace_id) != run
    assert len({span.context.span_id for span in spans.values()}) == 4
    assert tracing.caller() == ""


async def test_attempts_at_the_same_time_do_not_mix(exporter: InMemorySpanExporter) -> None:
    tracing, runs = OtelTracing(exporter), [new_run_id() for _ in range(20)]
    tracer = tracing.provider.get_tracer("shop")
    together = anyio.Event()

    async def work(run: str) -> None:
        with tracing.attempt(attempt(run, "charge")):
            await together.wait()
            with tracer.start_as_current_span("inner"):
                assert tracing.caller().split("-")[1] == run

    async with anyio.create_task_group() as tasks:
        for run in runs:
            tasks.start_soon(work, run)
        await anyio.wait_all_tasks_blocked()
        together.set()
    found = exporter.get_finished_spans()
    assert len(found) == 40
    charges = {span.context.span_id: span for span in found if span.name == "charge"}
    for span in found:
        if span.name == "inner":
            assert charges[parent(span)].context.trace_id == span.context.trace_id


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_marks_the_attempt_and_passes_through(exporter: InMemorySpanExporter) -> None:
    tracing = OtelTracing(exporter)
    for error in (ValueError("declined"), KeyboardInterrupt(), Unprintable()):
        with pytest.raises(type(error)) as caught, tracing.attempt(attempt(new_run_id(), "charge")):
            raise error
        assert caught.value is error
    declined, stopped, _ = exporter.get_finished_spans()
    assert declined.status.status_code is StatusCode.ERROR
    assert declined.status.description == "ValueError: declined"
    assert [event.name for event in declined.events] == ["exception"]
    assert stopped.status.status_code is StatusCode.ERROR
    assert tracing.caller() == ""


def test_the_root_says_how_the_run_ended(exporter: InMemorySpanExporter) -> None:
    tracing = OtelTracing(exporter)
    for status in ("completed", "failed", "cancelled"):
        tracing.run(ended(new_run_id(), status, caller="not a traceparent"))
    good, bad, cancelled = exporter.get_finished_spans()
    assert good.status.status_code is cancelled.status.status_code is StatusCode.UNSET
    assert (bad.status.status_code, bad.status.description) == (StatusCode.ERROR, "Declined: no")
    assert (bad.attributes or {})["segue.status"] == "failed"
    assert not good.links


def test_every_participant_samples_the_same_runs() -> None:
    runs = [new_run_id() for _ in range(2000)]
    taken = []
    for _ in range(2):
        exporter = InMemorySpanExporter()
        tracing = OtelTracing(exporter, sample=0.25)
        flagged = set()
        for run in runs:
            with tracing.attempt(attempt(run, "charge", Place("a", "", 1))):
                if tracing.caller().endswith("-01"):
                    flagged.add(run)
        taken.append({format_trace_id(span.context.trace_id) for span in exporter.get_finished_spans()})
        assert flagged == taken[-1]
    assert taken[0] == taken[1]
    assert 0.2 < len(taken[0]) / len(runs) < 0.3
    nothing = InMemorySpanExporter()
    OtelTracing(nothing, sample=0.0).run(ended(new_run_id()))
    assert nothing.get_finished_spans() == ()


def test_ids_that_are_no_hex_are_traced_too(exporter: InMemorySpanExporter) -> None:
    tracing = OtelTracing(exporter)
    for run in ("order 4711", "z" * 32, "0" * 32):
        with tracing.attempt(attempt(run, "charge")):
            pass
        tracing.run(ended(run))
    spans = exporter.get_finished_spans()
    assert len(spans) == 6
    assert len({span.context.trace_id for span in spans}) == 3


class Broken(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        raise RuntimeError("no collector")

    def shutdown(self) -> None:
        raise RuntimeError("no collector")


def test_a_broken_exporter_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    tracing = OtelTracing(Broken())
    with tracing.attempt(attempt(new_run_id(), "charge")):
        pass
    tracing.run(ended(new_run_id())._replace(started=float("nan")))
    tracing.close()
    assert "could not export the span of a run" in caplog.text
    assert "could not flush spans" in caplog.text


class _Collector(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.delay, self.released = delay, threading.Event()
        self.paths: list[str] = []
        self.spans: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: _Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.released.wait(self.server.delay)
        request = ExportTraceServiceRequest.FromString(body)
        self.server.paths.append(self.path)
        for resource in request.resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans += [f"{names['service.name']}:{span.name}" for span in scope.spans]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector(request: pytest.FixtureRequest) -> Iterator[_Collector]:
    with _Collector(getattr(request, "param", 0.0)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
def test_spans_reach_a_collector(collector: _Collector, path: str) -> None:
    tracing = open_tracing(collector.url + path, service_name="shop")
    run = new_run_id()
    with tracing.attempt(attempt(run, "charge")):
        pass
    tracing.run(ended(run))
    assert collector.paths == []
    tracing.close()
    assert set(collector.paths) == {"/v1/traces"}
    assert sorted(collector.spans) == ["shop:charge", "shop:place_order"]


def test_the_environment_switches_tracing_on(collector: _Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert isinstance(open_tracing(), NoTracing)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    tracing = open_tracing()
    tracing.run(ended(new_run_id()))
    tracing.close()
    assert collector.spans == ["segue:place_order"]


@pytest.mark.parametrize("collector", [30.0], indirect=True)
def test_a_silent_collector_holds_nobody_up(collector: _Collector) -> None:
    tracing = open_tracing(collector.url)
    started = time.monotonic()
    for _ in range(3000):
        with tracing.attempt(attempt("0" * 31 + "1", "charge")):
            pass
    assert time.monotonic() - started < 3.0
    started = time.monotonic()
    tracing.close()
    assert time.monotonic() - started < 4.0
    collector.released.set()
    for thread in threading.enumerate():
        if thread.name.startswith("Otel"):
            thread.join(10)
    assert collector.spans


def test_what_is_missing_or_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="not between 0 and 1"):
        open_tracing("http://127.0.0.1:1", sample=1.5)
    monkeypatch.delitem(sys.modules, "segue.trace.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(PluginError, match=r"segue\[otel\]"):
        open_tracing("http://127.0.0.1:1")
