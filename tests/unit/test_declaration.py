"""Services, steps, flows and apps as objects, and what the runtime does with a step."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from msgspec import Struct

import segue
from segue import App, DeclarationError, InvalidInput, Retry, Service, flow, hours, minutes, seconds


class Order(Struct):
    id: str
    total: float = 0.0


class Receipt(Struct):
    order: str
    amount: float


class Refusal(Struct):
    reason: str


@dataclass
class Address:
    city: str


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


def fresh() -> Service:
    return Service("payments")


# Steps


async def test_a_step_is_the_plain_function_outside_of_a_flow() -> None:
    payments = fresh()

    @payments.step
    async def charge(order: Order) -> Receipt:
        """Take the money."""
        return Receipt(order.id, order.total)

    @payments.step(name="tax-of")
    def tax(amount: float, rate: float = 0.25) -> float:
        return amount * rate

    assert await charge.fn(Order("1", 5.0)) == Receipt("1", 5.0)
    assert tax(100.0) == 25.0
    assert tax.named("tax-2")(100.0, rate=0.5) == 50.0
    assert payments.steps == {"charge": charge, "tax-of": tax}
    assert (charge.name, charge.service, charge.is_async, charge.implemented) == ("charge", "payments", True, True)
    assert (tax.name, tax.is_async) == ("tax-of", False)
    assert [(p.name, p.type, p.required) for p in tax.params] == [("amount", float, True), ("rate", float, False)]
    assert charge.returns is Receipt
    assert charge.__doc__ == "Take the money."
    assert repr(tax) == "<step payments.tax-of(amount: float, rate: float = ...) -> float>"


def test_a_step_runs_once_and_without_limit_unless_declared_otherwise() -> None:
    payments = fresh()

    @payments.step
    def plain() -> None: ...

    @payments.step(retry=Retry(max_attempts=5), timeout=timedelta(minutes=1))
    def patient() -> None: ...

    @payments.step(timeout=minutes(2))
    def longer() -> None: ...

    assert (plain.retry.max_attempts, plain.timeout) == (1, None)
    assert (patient.retry.max_attempts, patient.timeout) == (5, 60.0)
    assert longer.timeout == 120.0


def test_durations_are_seconds() -> None:
    assert (hours(1.5), minutes(2), seconds(3)) == (5400.0, 120.0, 3.0)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), True, "30", timedelta(0)])
def test_a_timeout_is_a_positive_time(timeout: Any) -> None:
    with pytest.raises(DeclarationError, match=r"test_declaration\.py:\d+: the timeout of step 'charge' must be more"):

        @fresh().step(timeout=timeout)
        def charge() -> None: ...


def unannotated_parameter(order) -> None: ...  # type: ignore[no-untyped-def]
def unannotated_result(order: Order): ...  # type: ignore[no-untyped-def]
def starred(*orders: Order) -> None: ...
def positional_only(order: Order, /) -> None: ...
def foreign(value: object) -> None: ...
def two_structs(value: Order | Receipt) -> None: ...
def complex_result() -> complex: ...  # type: ignore[empty-body]
def generator() -> list[int]:  # type: ignore[misc]
    yield 1


def Upper() -> None: ...
def run() -> None: ...
def bad_default(at: Any = open) -> None: ...  # noqa: SIM115, RUF100


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (unannotated_parameter, "parameter 'order' of step 'unannotated_parameter' has no type"),
        (unannotated_result, "step 'unannotated_result' has no return type"),
        (starred, "parameter 'orders' of step 'starred' cannot be passed by name"),
        (positional_only, "parameter 'order' of step 'positional_only' cannot be passed by name"),
        (foreign, "parameter 'value' of foreign: object cannot travel as JSON"),
        (two_structs, "parameter 'value' of two_structs: Order | Receipt cannot travel as JSON"),
        (complex_result, "the result of complex_result: complex cannot travel as JSON"),
        (generator, "step 'generator' is a generator"),
        (Upper, "step name 'Upper' is not allowed"),
        (run, "step name 'run' is reserved"),
        (bad_default, "the default of parameter 'at' of bad_default cannot travel as JSON"),
    ],
)
def test_a_bad_step_is_refused_with_its_place(fn: Any, message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        fresh().step(fn)
    assert caught.value.message.startswith(f"{__file__}:{fn.__code__.co_firstlineno}: {message}")


def test_types_that_cannot_be_resolved_are_named() -> None:
    def late(order: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DeclarationError, match="an annotation of late cannot be read: name 'Missing' is not defined"):
        fresh().step(late)


def test_types_of_an_enclosing_function_are_found() -> None:
    class Local(Struct):
        x: int

    @fresh().step
    def read(value: Local) -> int:
        return value.x

    assert read.params[0].type is Local


def test_two_steps_of_one_name_are_refused_with_both_places() -> None:
    payments = fresh()

    @payments.step
    def charge() -> None: ...

    with pytest.raises(DeclarationError, match=r"\.py:\d+: service 'payments' has a step 'charge', from .*\.py:\d+"):

        @payments.step(name="charge")
        def again() -> None: ...


@pytest.mark.parametrize("name", ["coordinator", "observer"])
def test_names_of_participants_are_reserved(name: str) -> None:
    with pytest.raises(DeclarationError, match=f"service name '{name}' is reserved"):
        Service(name)


def test_a_bad_service_name_is_refused_with_its_place() -> None:
    with pytest.raises(DeclarationError, match=r"test_declaration\.py:\d+: service name 'Pay ments' is not allowed"):
        Service("Pay ments")


# What the runtime does with a step


class Line(Struct):
    order: Order
    at: datetime
    ref: UUID
    size: Size
    counts: dict[int, int]


payments = Service("payments")


@payments.step
def book(order: Order, address: Address, lines: list[Line], note: str | None = None, times: int = 2) -> Receipt:
    return Receipt(order.id, order.total)


WIRE = {
    "order": {"id": "7", "total": 3},
    "address": {"city": "Ulm"},
    "lines": [
        {
            "order": {"id": "7"},
            "at": "2024-05-01T10:00:00Z",
            "ref": "3f2b0c5e-0000-4000-8000-000000000001",
            "size": "l",
            "counts": {"1": 2},
        }
    ],
}


def test_arguments_are_typed_and_defaults_filled() -> None:
    args = book.decode_args(WIRE)
    line = Line(
        Order("7"),
        datetime(2024, 5, 1, 10, tzinfo=UTC),
        UUID("3f2b0c5e-0000-4000-8000-000000000001"),
        Size.LARGE,
        {1: 2},
    )
    assert args == {"order": Order("7", 3.0), "address": Address("Ulm"), "lines": [line], "note": None, "times": 2}
    assert book.fn(**args) == Receipt("7", 3.0)
    assert book.decode_args({**WIRE, "times": 5})["times"] == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({**WIRE, "order": {"id": 7}}, "argument order.id of book: Expected `str`, got `int`"),
        ({**WIRE, "lines": [1]}, "argument lines[0] of book: Expected `object`, got `int`"),
        ({**WIRE, "times": "2"}, "argument times of book: Expected `int`, got `str`"),
        ({"order": {"id": "1"}}, "argument 'address' of book is missing"),
        ({**WIRE, "colour": 1}, "book has no parameter 'colour'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(args: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        book.decode_args(args)
    assert caught.value.message == message


def test_a_result_is_written_as_json_and_checked() -> None:
    assert book.encode_result(Receipt("7", 3)) == b'{"order":"7","amount":3}'

    @fresh().step
    def several() -> list[Receipt] | None: ...

    assert several.encode_result(None) == b"null"
    assert several.encode_result([Receipt("1", 2.0)]) == b'[{"order":"1","amount":2.0}]'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Refusal("no"), "book returned Refusal, declared Receipt"),
        ({"order": "7", "amount": 3}, "book returned dict, declared Receipt"),
        (None, "book returned NoneType, declared Receipt"),
        (Receipt("7", "3"), "book returned Receipt, declared Receipt: Expected `float`, got `str` - at `$.amount`"),  # type: ignore[arg-type]
        (Receipt("7", object()), "book returned Receipt, declared Receipt: Encoding objects of type object is unsu"),  # type: ignore[arg-type]
    ],
)
def test_a_result_of_another_type_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        book.encode_result(value)
    assert caught.value.message.startswith(message)


# Apps and flows as objects


def test_an_app_finds_flows_and_services_by_name() -> None:
    stock = Service("stock")

    @flow(key=lambda order: order.id)
    def place(order: Order) -> None: ...

    app = App("shop", flows=[place], services=[payments, stock])
    assert app.flows == {"place": place}
    assert app.services == {"payments": payments, "stock": stock}
    assert repr(app) == "App('shop', flows=['place'], services=['payments', 'stock'])"


def test_an_app_refuses_two_of_one_name_and_strangers() -> None:
    with pytest.raises(DeclarationError, match=r"\.py:\d+: app 'shop' has two services named 'payments'"):
        App("shop", services=[fresh(), fresh()])
    with pytest.raises(DeclarationError, match=r"app 'shop' lists <step .* as a flow"):
        App("shop", flows=[book])  # type: ignore[list-item]
    with pytest.raises(DeclarationError, match="app name 'my shop' is not allowed"):
        App("my shop")


def test_inputs_of_a_run_are_json_with_defaults() -> None:
    @flow(home=payments)
    def place(order: Order, at: datetime, times: int = 2) -> Receipt | None: ...

    assert place.encode_input({"order": Order("1", 2.0), "at": datetime(2024, 5, 1, tzinfo=UTC)}) == {
        "order": {"id": "1", "total": 2.0},
        "at": "2024-05-01T00:00:00Z",
        "times": 2,
    }
    assert place.decode_result({"order": "1", "amount": 2}) == Receipt("1", 2.0)
    assert place.decode_result(None) is None
    with pytest.raises(InvalidInput, match=r"the result\.amount of place: Expected `float`, got `str`"):
        place.decode_result({"order": "1", "amount": "2"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "place is called wrongly: argument 'order' is missing"),
        ({"order": Order("1"), "x": 1}, "place is called wrongly: there is no parameter 'x'"),
        ({"order": Order(1)}, "argument order.id of place: Expected `str`, got `int`"),  # type: ignore[arg-type]
        ({"order": object()}, "argument order of place: Encoding objects of type object is unsupported"),
    ],
)
def test_inputs_that_do_not_fit_are_named(values: dict[str, Any], message: str) -> None:
    @flow(home=payments)
    def place(order: Order) -> None: ...

    with pytest.raises(InvalidInput) as caught:
        place.encode_input(values)
    assert caught.value.message == message


async def async_body(order: Order) -> None: ...
def generator_body(order: Order) -> Any:
    yield order


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (async_body, "the body of flow 'async_body' must be a plain function"),
        (generator_body, "the body of flow 'generator_body' must be a plain function"),
        (unannotated_parameter, "parameter 'order' of flow 'unannotated_parameter' has no type"),
        (Upper, "flow name 'Upper' is not allowed"),
    ],
)
def test_a_bad_flow_is_refused_with_its_place(fn: Any, message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        flow(fn)
    assert caught.value.message.startswith(f"{__file__}:{fn.__code__.co_firstlineno}: {message}")


def test_settings_of_a_flow_are_checked() -> None:
    with pytest.raises(DeclarationError, match="the deadline of a flow must be more than zero seconds, got 0"):
        flow(deadline=0)
    with pytest.raises(DeclarationError, match="on_failure='never' is no policy"):
        flow(on_failure="never")
    with pytest.raises(DeclarationError, match="home must be a Service, got 'payments'"):
        flow(home="payments")  # type: ignore[call-overload]


def test_a_flow_is_not_called_like_a_function() -> None:
    @flow
    def place(order: Order) -> None: ...

    with pytest.raises(DeclarationError, match="flow 'place' is called like a function") as caught:
        place(Order("1"))
    assert caught.value.hint == "start a run: await client.start(place, ...)"


# The package


def test_every_public_name_is_there() -> None:
    for name in segue.__all__:
        assert getattr(segue, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = segue.nothing


def test_importing_segue_loads_neither_plugins_nor_the_runtime() -> None:
    code = (
        "import sys, segue\n"
        "print([m for m in ('pluggy', 'anyio', 'asyncio', 'rich', 'cyclopts', 'segue.hooks', 'segue.runtime') "
        "if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
