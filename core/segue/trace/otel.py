"""The tracing port on the SDK of OpenTelemetry.

A run is one trace: its trace id is the run id, the span ids are hashes of what they stand for, and the parent of every
attempt is the run's root span, which is exported last, once, by whoever ends the run. A run that is retried has one
more root for each revision, linked to the first. So participants agree on the tree without talking about it. The ids
get into the SDK through an `IdGenerator` that gives what a context variable says while a span of ours is made, and
random ids to all others: spans of users' code nest in the attempt and are theirs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

from segue.ports.tracing import Attempt, RunSpan
from segue.trace import ids

FLUSH = 2.0
"""Seconds that `close` waits for the collector."""

log = logging.getLogger("segue.trace")
_propagator = TraceContextTextMapPropagator()
_forced: ContextVar[tuple[int, int] | None] = ContextVar("segue_trace_ids", default=None)


class OtelTracing:
    """Spans of runs and attempts, exported in the background.

    Args:
        exporter: Where spans go, at once (for tests); None: to a collector by OTLP, in batches.
        endpoint: URL of the collector; "" means what OpenTelemetry's environment variables say.
        sample: Share of runs to trace, 0 to 1, decided by run id.
        service_name: The resource's `service.name`.

    Attributes:
        provider: The SDK's provider, for those who want to make it the global one, so that spans of users' code are
            exported with these.
    """

    def __init__(
        self,
        exporter: SpanExporter | None = None,
        endpoint: str = "",
        sample: float = 1.0,
        service_name: str = "segue",
    ) -> None:
        self._sampler = _ByRun(sample)
        self.provider = TracerProvider(
            sampler=self._sampler,
            resource=Resource.create({"service.name": service_name}),
            shutdown_on_exit=False,
            id_generator=_Ids(),
            # A join links to all its inputs; the SDK keeps 128 unless told.
            span_limits=SpanLimits(max_links=SpanLimits.UNSET),
        )
        processor: SpanProcessor
        if exporter is None:
            processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=_traces_url(endpoint) if endpoint else None))
        else:
            processor = SimpleSpanProcessor(exporter)
        self.provider.add_span_processor(processor)
        self._tracer = self.provider.get_tracer("segue")

    def attempt(self, attempt: Attempt) -> AbstractContextManager[None]:
        """A span around one attempt, current while user code runs; an exception that leaves it marks it failed."""
        return self._attempt(attempt)

    @contextmanager
    def _attempt(self, attempt: Attempt) -> Iterator[None]:
        span: Span = trace.INVALID_SPAN
        with _harmless("start the span of an attempt"):
            span = self._start(attempt)
        # The SDK's own handling leaves cancelled attempts unmarked.
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except BaseException as error:
                with _harmless("mark a failed attempt"):
                    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
                    if isinstance(error, Exception):
                        span.record_exception(error)
                raise
            finally:
                with _harmless("end the span of an attempt"):
                    span.end()

    def _start(self, attempt: Attempt) -> Span:
        run, place, revision = attempt.run, attempt.place, attempt.revision
        own = ids.span_id(run, place, revision)
        if not self._sampler.takes(ids.trace_id(run)):
            return NonRecordingSpan(self._context(run, own))
        root = self._context(run, ids.root_id(run, revision))
        parent = trace.set_span_in_context(NonRecordingSpan(root), Context())
        node, _, undo = place.node.partition(":")
        attributes: dict[str, str | int] = {
            "segue.flow": attempt.flow,
            "segue.run": run,
            "segue.key": attempt.key,
            "segue.mode": attempt.mode,
            "segue.node": node,
            "segue.tag": place.tag,
            "segue.service": attempt.service,
            "segue.step": attempt.step,
            "segue.attempt": place.attempt,
        }
        if undo:
            attributes["segue.undo"] = True
        if revision > 1:
            attributes["segue.revision"] = revision
        # Inputs without an attempt (the start, joins, skips) have no span of their own.
        producers = dict.fromkeys(found for found in attempt.inputs if found.attempt > 0)
        links = [Link(self._context(run, ids.span_id(run, producer))) for producer in producers]
        with _ids(ids.trace_id(run), own):
            return self._tracer.start_span(place.node, context=parent, attributes=attributes, links=links)

    def run(self, span: RunSpan) -> None:
        """Export the root span of a run, once, by whoever ends it."""
        with _harmless("export the span of a run"):
            caller = trace.get_current_span(_propagator.extract({"traceparent": span.caller}, Context()))
            attributes: dict[str, str | int] = {
                "segue.flow": span.flow,
                "segue.run": span.run,
                "segue.key": span.key,
                "segue.mode": span.mode,
                "segue.status": span.status,
            }
            links = [Link(caller.get_span_context())] if caller.get_span_context().is_valid else []
            if span.revision > 1:
                attributes["segue.revision"] = span.revision
                links.append(Link(self._context(span.run, ids.root_id(span.run))))
            with _ids(ids.trace_id(span.run), ids.root_id(span.run, span.revision)):
                root = self._tracer.start_span(
                    span.flow,
                    context=Context(),
                    attributes=attributes,
                    links=links,
                    start_time=_nanoseconds(span.started),
                )
            if span.status == "failed":
                root.set_status(Status(StatusCode.ERROR, span.error))
            root.end(_nanoseconds(span.ended))

    def caller(self) -> str:
        """The W3C traceparent of the current span, or ""."""
        carrier: dict[str, str] = {}
        with _harmless("read the current span"):
            _propagator.inject(carrier)
        return carrier.get("traceparent", "")

    def close(self) -> None:
        """Flush what is buffered, for at most two seconds."""
        # The SDK's own shutdown waits up to 30 seconds for a collector that does not answer.
        closer = threading.Thread(target=self._shut_down, name="segue-trace-close", daemon=True)
        closer.start()
        closer.join(FLUSH)

    def _shut_down(self) -> None:
        with _harmless("flush spans"):
            self.provider.shutdown()

    def _context(self, run: str, span: int) -> SpanContext:
        number = ids.trace_id(run)
        flags = TraceFlags.SAMPLED if self._sampler.takes(number) else TraceFlags.DEFAULT
        return SpanContext(number, span, is_remote=True, trace_flags=TraceFlags(flags))


class _Ids(IdGenerator):
    """The ids that `_ids` gives, else random ones."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        forced = _forced.get()
        return self._random.generate_span_id() if forced is None else forced[1]

    def generate_trace_id(self) -> int:
        forced = _forced.get()
        return self._random.generate_trace_id() if forced is None else forced[0]


class _ByRun(Sampler):
    """Takes a share of the runs, the same ones in every process."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def takes(self, number: int) -> bool:
        return ids.share(number) < self._rate

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if self.takes(trace_id):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return SamplingResult(Decision.DROP, None, trace_state)

    def get_description(self) -> str:
        return f"SegueByRun({self._rate})"


@contextmanager
def _ids(number: int, span: int) -> Iterator[None]:
    token = _forced.set((number, span))
    try:
        yield
    finally:
        _forced.reset(token)


@contextmanager
def _harmless(what: str) -> Iterator[None]:
    """Tracing helps; it must not harm a run."""
    try:
        yield
    except Exception:
        with suppress(Exception):
            log.warning("could not %s", what, exc_info=True)


def _traces_url(endpoint: str) -> str:
    base = endpoint.rstrip("/")
    return base if urlsplit(base).path.endswith("/v1/traces") else f"{base}/v1/traces"


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000) * 1000
