"""What is wrong with a construct is said at build: the place, the construct, and what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from msgspec import Struct

from segue import (
    DeclarationError,
    Service,
    after,
    attempt,
    compute,
    each,
    emit,
    finish,
    flow,
    n_of,
    race,
    raise_,
    repeat,
    sleep,
    sleep_until,
    wait_for,
    when,
)


class Order(Struct):
    id: str
    total: float
    vip: bool
    lines: list[str]
    maybe: list[str] | None = None


class Lost(Exception): ...


class Stolen(Lost): ...


shop = Service("shop")


@shop.step
def note(text: str) -> str: ...  # type: ignore[empty-body]


@shop.step
def count(n: int) -> int: ...  # type: ignore[empty-body]


@shop.step
def pair(a: str, b: str) -> str: ...  # type: ignore[empty-body]


@shop.step
def many(texts: list[str]) -> None: ...


@flow
def child(order: Order, n: int = 1) -> int:
    return count(n)


@compute
def double(n: int) -> int:
    return 2 * n


async def waiting(item: Any) -> None: ...


def generating(item: Any) -> Any:
    yield item


def leaked(order: Any) -> Any:
    seen: list[Any] = []
    each(order.lines, lambda line: seen.append(note(line)))
    return seen[0]


def leaked_item(order: Any) -> Any:
    seen: list[Any] = []
    each(order.lines, seen.append, name="all")
    return seen[0]


def leaked_to_a_sibling(order: Any) -> None:
    seen: list[Any] = []
    race(lambda: seen.append(note("x")), lambda: note(seen[0]))


def leaked_condition(order: Any) -> None:
    seen: list[Any] = []
    each(order.lines, lambda line: seen.append(line == "x"))
    with when(seen[0]):
        note("x")


def leaked_order(order: Any) -> None:
    seen: list[Any] = []
    attempt(lambda: seen.append(note("x")), {Lost: lambda: None})
    with after(seen[0]):
        note("x")


def inner_in_until(order: Any) -> None:
    seen: list[Any] = []

    def body(n: int) -> int:
        seen.append(note("x"))
        return count(n)

    repeat(body, 1, until=lambda n: seen[0] == "x", cap=2)


def after_finish(order: Any) -> None:
    finish()
    note("x")


def after_finish_in_a_block(order: Any) -> None:
    with when(order.vip):
        with after(note("x")):
            finish()
        note("y")


def after_raise(order: Any) -> None:
    each(order.lines, lambda line: (raise_(Lost), note("x")))


def twice_matched(order: Any) -> None:
    wait_for("ok", str, match=order.id)
    wait_for("ok", str)


def equally_matched(order: Any) -> None:
    wait_for("ok", str, match=order.id)
    race(lambda: wait_for("ok", str, match=order.id), lambda: sleep(1))


def matched_alike(order: Any) -> None:
    each(order.lines, lambda line: wait_for("ok", str, match=order.id))


def matched_alike_deeper(order: Any) -> None:
    def ask(line: Any) -> Any:
        return attempt(lambda: wait_for("ok", int, match=line), timeout=60)

    each(order.lines, lambda line: repeat(lambda n: ask(line), 0, lambda n: n > 1, cap=2))


def twice_typed(order: Any) -> None:
    wait_for("ok", str, match=1)
    wait_for("ok", int, match=2)


def emitted_twice(order: Any) -> None:
    emit("paid")
    emit("paid", order.id)


def named_twice(order: Any) -> None:
    note.named("all")("x")
    each(order.lines, note, name="all")


SEEN = "and is seen outside only through the result of"
BAD_LIST = "each() needs a list, got"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda o: each(o.total, note), f"{BAD_LIST} float"),
        (lambda o: each(o.maybe, note), f"{BAD_LIST} list[str] | None"),
        (lambda o: each("abc", note), f"{BAD_LIST} str"),
        (lambda o: each(o.lines, note, limit=0), "the limit of each() must be a whole number from 1, got 0"),
        (lambda o: each(o.lines, note, tolerate=-1), "`tolerate` of each() must be a whole number from 0, got -1"),
        (lambda o: each(o.lines, note, limit=True), "the limit of each() must be a whole number from 1, got True"),
        (lambda o: each(o.lines, "note"), "each() needs a function as its body, got 'note'"),
        (lambda o: each(o.lines, lambda: 1), "a body of each() is called with one argument, but takes none"),
        (lambda o: each(o.lines, lambda a, b: 1), "a body of each() is called with one argument, but takes 2"),
        (lambda o: each(o.lines, waiting), "a body of each() must be a plain function"),
        (lambda o: each(o.lines, generating), "a body of each() must be a plain function"),
        (lambda o: each(o.lines, count), "argument 'n' of count must be int, but value is str"),
        (lambda o: each([o.total], lambda line: note(line)), "argument 'text' of note must be str, but line is float"),
        (lambda o: many(each(o.lines, count.named("x"))), "argument 'n' of count must be int"),
        (lambda o: many(each([1], lambda n: count(n))), "argument 'texts' of many must be list[str], but each(...) is"),
        (
            lambda o: many(each(o.lines, note, tolerate=1)),
            "argument 'texts' of many must be list[str], but each(...) is list[str | None]",
        ),
        (lambda o: repeat(count, 1, until=lambda n: n > 1, cap=0), "the cap of repeat() must be a whole number from 1"),
        (lambda o: repeat(count, 1, until=lambda n: n > 1, cap=2, every=0), "`every` of repeat() must be more than"),
        (lambda o: repeat(count, 1, until=lambda n: n, cap=2), "the `until` of repeat() needs a condition, but n is"),
        (lambda o: repeat(count, 1, until=lambda n: True, cap=2), "the `until` of repeat() needs a condition on a"),
        (lambda o: repeat(count, 1, until=lambda: True, cap=2), "a body of the `until` of repeat() is called with one"),
        (lambda o: repeat(count, 1, until=lambda n: count(n) > 1, cap=2), "count is called in the `until` of repeat"),
        (inner_in_until, "the `until` of repeat() reads a node of the body"),
        (lambda o: repeat(count, "x", until=lambda n: n > 1, cap=2), "the initial value of repeat() must be int, got"),
        (
            lambda o: repeat(lambda text: (note(text), 1)[1], "x", until=lambda n: n > 1, cap=2),
            "a round of repeat() gives int, the next one takes str",
        ),
        (lambda o: race(lambda: note("x")), "race() needs two or more branches, got 1"),
        (lambda o: race(lambda x: note("x"), lambda: note("y")), "a body of race() is called with no arguments, but"),
        (lambda o: n_of(0, lambda: 1, lambda: 2), "`n` of n_of() must be a whole number from 1, got 0"),
        (lambda o: n_of(3, lambda: 1, lambda: 2), "n_of(3, ...) has 2 branches, so 3 never complete"),
        (lambda o: n_of(1, lambda: 1), "n_of() needs two or more branches, got 1"),
        (lambda o: attempt(lambda: note("x")), "attempt() has no handlers, no finally_ and no timeout, so it does"),
        (lambda o: attempt(lambda: note("x"), {}), "attempt() has no handlers, no finally_ and no timeout, so it does"),
        (lambda o: attempt(lambda: note("x"), [Lost]), "the handlers of attempt() must be a dict, got"),
        (
            lambda o: attempt(lambda: 1, {int: lambda: 1}),
            "attempt() has a handler for <class 'int'>, which is no error",
        ),
        (lambda o: attempt(lambda: 1, {Lost(): lambda: 1}), "attempt() has a handler for Lost(), which is no error"),
        (lambda o: attempt(lambda: 1, {"": lambda: 1}), "attempt() has a handler for '', which is no error"),
        (
            lambda o: attempt(lambda: 1, {Lost: lambda: 1, Stolen: lambda: 2}),
            "the handler of attempt() for Stolen is never reached: the one for Lost comes before it",
        ),
        (
            lambda o: attempt(lambda: 1, {Exception: lambda: 1, "X": lambda: 2}),
            "the handler of attempt() for X is never reached: the one for Exception comes before it",
        ),
        (
            lambda o: attempt(lambda: 1, {Lost: lambda: 1, "Lost": lambda: 2}),
            "the handler of attempt() for Lost is never reached",
        ),
        (lambda o: attempt(lambda: 1, {Lost: lambda e: note(e.node.x)}), "e.node is str, which has no field 'x'"),
        (lambda o: attempt(lambda: 1, {Lost: lambda a, b: 1}), "a body of attempt() is called with one argument, but"),
        (lambda o: attempt(lambda: 1, timeout=-1), "the timeout of attempt() must be more than zero seconds, got -1"),
        (lambda o: attempt(lambda: 1, finally_=1), "attempt() needs a function as its body, got 1"),
        (lambda o: note(leaked(o)), f"'note' stands in a body of each 'each', {SEEN} each(...)"),
        (lambda o: note(leaked_item(o)), f"the parameter of a body stands in a body of each 'all', {SEEN} each(...)"),
        (leaked_to_a_sibling, f"'note' stands in a body of race 'race', {SEEN} race(...)"),
        (leaked_condition, f"the parameter of a body stands in a body of each 'each', {SEEN} each(...)"),
        (leaked_order, f"'note' stands in a body of attempt 'attempt', {SEEN} attempt(...)"),
        (lambda o: each(o.lines, lambda line: finish(line)), "finish() stands in a body of each()"),
        (after_finish, "note is never reached: finish() comes before it in any case"),
        (after_finish_in_a_block, "note is never reached: finish() comes before it in any case"),
        (after_raise, "note is never reached: raise_() comes before it in any case"),
        (lambda o: raise_(3), "raise_() takes an error, got 3"),
        (lambda o: raise_(int), "raise_() takes an error, got <class 'int'>"),
        (lambda o: raise_(""), "raise_() takes an error, got ''"),
        (lambda o: raise_(Lost, o.total), "the message of raise_() must be str, but o.total is float"),
        (lambda o: raise_(Lost(f"x {o.id}")), "text formatting (str, print, an f-string) needs the value of"),
        (lambda o: wait_for("ok", object), "the value of signal 'ok': object cannot travel as JSON"),
        (lambda o: wait_for("OK", str), "signal name 'OK' is not allowed"),
        (lambda o: wait_for("ok", str, timeout=0), "the timeout of signal 'ok' must be more than zero seconds, got 0"),
        (lambda o: wait_for("ok", str, match=o.total), "the match of signal 'ok' must be str | int, but o.total is"),
        (twice_matched, "signal 'ok' is waited for in "),
        (equally_matched, "signal 'ok' is waited for in "),
        (matched_alike, "signal 'ok' is waited for in each(), and its match is the same every time"),
        (
            lambda o: each(o.lines, lambda line: wait_for("ok", str, match="x")),
            "signal 'ok' is waited for in each(), and",
        ),
        (matched_alike_deeper, "signal 'ok' is waited for in repeat(), and its match is the same every time"),
        (twice_typed, "signal 'ok' is int here, and str in "),
        (lambda o: sleep(-1), "sleep() takes a number of seconds, got -1"),
        (lambda o: sleep(True), "sleep() takes a number of seconds, got True"),
        (lambda o: sleep(float("inf")), "sleep() takes a number of seconds, got inf"),
        (lambda o: sleep(o.id), "the duration of sleep() must be float, but o.id is str"),
        (lambda o: sleep_until(datetime(2030, 1, 1)), "sleep_until() takes a time with a time zone, got datetime"),
        (lambda o: sleep_until("2030-01-01"), "sleep_until() takes a time with a time zone, got '2030-01-01'"),
        (lambda o: sleep_until("soon"), "sleep_until() takes a time in ISO 8601, got 'soon'"),
        (lambda o: sleep_until(o.vip), "the time of sleep_until() must be float, but o.vip is bool"),
        (emitted_twice, "a node named 'paid' is already there, from "),
        (lambda o: emit("Order Paid"), "event name 'Order Paid' is not allowed"),
        (lambda o: emit("run"), "event name 'run' is reserved"),
        (lambda o: emit("paid", object()), "the value of event 'paid' must be Any, got <object"),
        (named_twice, "a node named 'all' is already there, from "),
        (lambda o: race(lambda: 1, lambda: 2, name="A b"), "node name 'A b' is not allowed"),
        (lambda o: child(o.id), "argument 'order' of child must be Order, but o.id is str"),
        (lambda o: child(o, "x"), "argument 'n' of child must be int, got 'x'"),
        (lambda o: child(), "child is called wrongly: argument 'order' is missing"),
        (lambda o: child.named("Child")(o), "node name 'Child' is not allowed"),
        (lambda o: note(child(o)), "argument 'text' of note must be str, but child(...) is int"),
        (lambda o: double(o.id), "argument 'n' of double must be int, but o.id is str"),
        (lambda o: pair(note), "pair is called wrongly: argument 'b' is missing"),
    ],
)
def test_a_wrong_construct_is_refused_with_its_place(body: Callable[[Any], object], message: str) -> None:
    def place(o: Order) -> None:
        body(o)
        note("z")

    with pytest.raises(DeclarationError) as caught:
        _ = flow(place).plan
    name, line, text = caught.value.message.split(":", 2)
    assert text.strip().startswith(message)
    assert name == __file__
    assert body.__code__.co_firstlineno <= int(line) <= body.__code__.co_firstlineno + 10


@pytest.mark.parametrize(
    ("use", "what"),
    [
        (lambda: each([1], count), "each()"),
        (lambda: repeat(count, 1, until=lambda n: n > 1, cap=2), "repeat()"),
        (lambda: race(lambda: 1, lambda: 2), "race()"),
        (lambda: n_of(2, lambda: 1, lambda: 2), "n_of()"),
        (lambda: attempt(lambda: 1, {Lost: lambda: 2}), "attempt()"),
        (lambda: wait_for("ok", str), "wait_for()"),
        (lambda: sleep(1), "sleep()"),
        (lambda: sleep_until("2030-01-01T00:00:00Z"), "sleep_until()"),
        (lambda: raise_(Lost), "raise_()"),
        (lambda: finish(1), "finish()"),
        (lambda: emit("x"), "emit()"),
    ],
)
def test_constructs_live_in_flow_bodies(use: Callable[[], object], what: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        use()
    assert caught.value.message == f"{__file__}:{use.__code__.co_firstlineno}: {what} is used outside of a flow body"


def test_the_result_of_an_early_end_has_the_type_of_the_flow() -> None:
    def place(o: Order) -> int:
        with when(o.vip):
            finish(o.id)
        return count(1)

    with pytest.raises(DeclarationError, match=r":\d+: the value of finish\(\) must be int, but o.id is str"):
        _ = flow(place).plan


def test_a_built_result_after_an_early_end_is_never_reached() -> None:
    def place(o: Order) -> list[str]:
        note("x")
        finish(["a"])
        return [o.id]

    with pytest.raises(DeclarationError, match="result is never reached: finish"):
        _ = flow(place).plan


def test_an_error_in_a_body_is_not_swallowed() -> None:
    def place(o: Order) -> None:
        with pytest.raises(ZeroDivisionError):
            each(o.lines, lambda line: 1 / 0)
        note("x")

    with pytest.raises(DeclarationError, match="flow 'place' goes on although 'each' raised an error"):
        _ = flow(place).plan


def test_what_is_wrong_has_a_hint() -> None:
    def hint(body: Callable[[Any], object]) -> str:
        def place(o: Order) -> None:
            body(o)
            note("z")

        with pytest.raises(DeclarationError) as caught:
            _ = flow(place).plan
        return caught.value.hint

    assert hint(lambda o: each(o.maybe, note)) == "give expr.default(items, []) for a list that may be None"
    assert hint(twice_matched) == "give each wait a `match=`, or wait for signals of different names"
    assert hint(equally_matched) == "give each wait a `match=` of its own, or wait for signals of different names"
    assert hint(emitted_twice) == (
        'an event is emitted at one place: after a choice, emit("name", either(a, b)); or give another name'
    )
    assert hint(lambda o: note(leaked(o))) == "return it from the body, and use what the construct returns"
    assert hint(lambda o: each(o.lines, lambda line: finish(line))) == (
        "return the value from the body, and finish behind it: with when(found): finish(found)"
    )
