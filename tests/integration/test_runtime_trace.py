"""One trace to a run, of the same shape in both modes."""

from __future__ import annotations

from typing import Any

import pytest
import trips
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from orders import Order, app, place_order
from stage import eventually, in_memory, stage

from segue.config import Config
from segue.plan.projection import MODES, Mode
from segue.runtime.handle import RunHandle
from segue.trace.otel import OtelTracing
from segue.trace.shape import SpanShape, shape

each_mode = pytest.mark.parametrize("mode", MODES)


async def traced(config: Config, mode: Mode, order: Order) -> tuple[RunHandle[Any], list[ReadableSpan], ReadableSpan]:
    """A run, its spans, and the span of who started it."""
    exporter = InMemorySpanExporter()
    tracing = OtelTracing(exporter)
    async with stage(app, config, mode, tracing) as here, here.running(), here.running():
        with tracing.provider.get_tracer("test").start_as_current_span("caller") as caller:
            run = await here.client.start(place_order, order)
        await run.outcome(10)
        number = int(run.id, 16)

        def spans() -> list[ReadableSpan]:
            return [span for span in exporter.get_finished_spans() if span.context and span.context.trace_id == number]

        async def ended() -> bool:
            return any(span.name == "place_order" for span in spans())

        await eventually(ended)
        found = spans()
    assert isinstance(caller, ReadableSpan)
    return run, found, caller


def by_name(spans: list[ReadableSpan], name: str) -> ReadableSpan:
    [found] = [span for span in spans if span.name == name]
    return found


@each_mode
async def test_a_run_is_one_trace(mode: Mode, memory: Config) -> None:
    run, spans, caller = await traced(memory, mode, Order("t", 500))
    assert sorted(span.name for span in spans) == ["archive", "charge", "notify", "place_order", "reserve", "review"]
    root = by_name(spans, "place_order")
    assert root.parent is None
    assert root.context is not None
    for span in spans:
        if span is not root:
            assert span.parent is not None
            assert span.parent.span_id == root.context.span_id
        assert span.attributes is not None
        assert (span.attributes["segue.run"], span.attributes["segue.mode"]) == (run.id, mode)
    assert caller.context is not None
    assert [(link.context.trace_id, link.context.span_id) for link in root.links] == [
        (caller.context.trace_id, caller.context.span_id)
    ]
    assert root.start_time is not None
    assert root.end_time is not None
    # Run ids count milliseconds.
    assert all(span.start_time is not None and root.start_time <= span.start_time for span in spans)
    assert root.end_time >= max(span.end_time or 0 for span in spans)


@each_mode
async def test_joins_link_to_all_their_inputs(mode: Mode, memory: Config) -> None:
    _, spans, _ = await traced(memory, mode, Order("t", 5000))
    names = {span.context.span_id: span.name for span in spans if span.context is not None}
    links = {names[link.context.span_id] for link in by_name(spans, "notify").links}
    assert links >= {"charge", "reserve", "wrap", "review"}
    assert not by_name(spans, "charge").links


@pytest.mark.parametrize("order", [Order("s", 50), Order("s", 5000), Order("s", 500, stock=0)], ids=str)
async def test_the_shape_is_the_same_in_both_modes(order: Order) -> None:
    shapes: list[list[SpanShape]] = []
    for mode in MODES:
        _, spans, _ = await traced(in_memory(), mode, order)
        shapes.append(shape(spans))
    assert shapes[0] == shapes[1]
    failed = [span for span in shapes[0] if span.status == "ERROR"]
    assert [span.name for span in failed] == ([] if order.stock else ["place_order", "reserve#1", "reserve#2"])


@each_mode
async def test_the_root_span_is_exported_once(mode: Mode) -> None:
    """Also if deliveries are repeated and several replicas end the run."""
    for seed in range(4):
        _, spans, _ = await traced(in_memory(f"?seed={seed}"), mode, Order("o", 500))
        assert len([span for span in spans if span.name == "place_order"]) == 1


@each_mode
async def test_a_collector_that_fails_harms_nobody(mode: Mode, memory: Config) -> None:
    class Broken(InMemorySpanExporter):
        def export(self, spans: Any) -> Any:
            raise OSError("no collector")

    import logging

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    async with stage(app, memory, mode, OtelTracing(Broken())) as here, here.running():
        assert (await (await here.client.start(place_order, Order("b", 5))).result(5)).order == "b"


async def test_constructs_and_undos_have_the_same_shape_in_both_modes() -> None:
    """Items and rounds have tags, undos link to what they undo, and a retry has a root of its own."""

    async def shapes(mode: Mode) -> list[list[SpanShape]]:
        exporter = InMemorySpanExporter()
        tracing = OtelTracing(exporter)
        found = []
        async with stage(trips.app, in_memory(), mode, tracing) as here, here.running():

            async def ended(run: RunHandle[Any], roots: int) -> list[ReadableSpan]:
                number = int(run.id, 16)
                spans: list[ReadableSpan] = []

                async def there() -> bool:
                    spans[:] = [
                        span
                        for span in exporter.get_finished_spans()
                        if span.context and span.context.trace_id == number
                    ]
                    return sum(span.name == run.flow for span in spans) == roots

                await run.outcome(10)
                await eventually(there)
                return spans

            for flow, trip in (
                (trips.visit, trips.Trip("v", [1, 2, 3])),
                (trips.climb, trips.Trip("c", price=1)),
                (trips.book_or_stay, trips.Trip("s", price=500)),
            ):
                found.append(shape(await ended(await here.client.start(flow, trip), 1)))
            run = await here.client.start(trips.book, trips.Trip("b", price=500))
            await ended(run, 1)
            await run.retry()
            found.append(shape(await ended(run, 2)))
        return found

    one, other = [await shapes(mode) for mode in MODES]
    assert one == other
    items, rounds, caught, again = [[span.name for span in found] for found in one]
    assert items == [f"{name}/{i}#1" for name in ("double", "grow") for i in range(3)] + ["visit"]
    assert rounds == ["climb", *(f"grow/{i}#1" for i in range(3))]
    assert caught == ["book_or_stay", "fly#1", "fly:undo#1", "lodge#1", "lodge:undo#1", "pay#1"]
    assert {name for name in again if name.endswith(" r2")} == {
        f"{name} r2" for name in ("book", "fly#1", "fly:undo#1", "lodge#1", "lodge:undo#1", "pay#1")
    }
    [undo] = [span for span in one[2] if span.name == "fly:undo#1"]
    assert undo.links == ("fly#1",)
