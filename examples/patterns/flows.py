"""The workflow control-flow patterns (van der Aalst, ter Hofstede, Kiepuszewski, Barros; Russell et al. 2006) as flows.

`docs/patterns.md` says of each pattern what it is here; the numbers are those of the catalogue. Every flow runs in a
test, in both modes. The steps only note that they ran: `go(text)` returns its text, `log` shows the order.
"""

from __future__ import annotations

import anyio

from segue import (
    App,
    Retry,
    Service,
    after,
    attempt,
    each,
    either,
    finish,
    flow,
    n_of,
    otherwise,
    race,
    repeat,
    wait_for,
    when,
)

left, right = Service("left"), Service("right")
log: list[str] = []


@left.step
async def go(text: str) -> str:
    log.append(text)
    return text


@right.step
async def do(text: str) -> str:
    log.append(text)
    return text


@right.step
async def both(first: str | None, second: str | None) -> str:
    return f"{first or '-'}{second or '-'}"


@left.step
async def add(n: int) -> int:
    return n + 1


@right.step
async def join(texts: list[str]) -> str:
    return "".join(sorted(texts))


@right.step
async def slow(text: str) -> str:
    await anyio.sleep(0.5)
    return text


@right.step
async def later(n: int) -> int:
    await anyio.sleep(0.2)
    return n + 100


@left.step(retry=Retry(max_attempts=1))
async def never(text: str) -> str:
    raise RuntimeError(text)


@flow
def p01_sequence(n: int) -> str:
    return do(go("a"))


@flow
def p02_parallel_split(n: int) -> str:
    first = go("a")
    return both(do(first), go(first))


@flow
def p03_synchronization(n: int) -> str:
    return both(go("a"), do("b"))


@flow
def p04_exclusive_choice(n: int) -> str:
    with when(n > 5):
        large = go("large")
    with otherwise():
        small = do("small")
    return either(large, small)


@flow
def p05_simple_merge(n: int) -> str:
    with when(n > 5):
        a = go("a")
    with otherwise():
        b = do("b")
    return go(either(a, b))


@flow
def p06_multi_choice(n: int) -> str:
    with when(n > 1):
        a = go("a")
    with when(n > 3):
        b = do("b")
    return both(a, b)


@flow
def p07_structured_synchronizing_merge(n: int) -> str:
    with when(n > 3):
        a = go("a")
    with when(n > 100):
        b = do("b")
    return both(a, b)


@flow
def p08_multi_merge(n: int) -> str:
    return both(do(go("a")), do(go("b")))


@flow
def p09_structured_discriminator(n: int) -> str:
    return do(race(lambda: go("a"), lambda: slow("b")))


@flow
def p10_arbitrary_cycles(n: int) -> int:
    def state(at: int) -> int:
        with when(at < 3):
            near = add(at)
        with otherwise():
            far = add(add(at))
        return either(near, far)

    return repeat(state, n, until=lambda at: at >= 6, cap=10)


@flow
def p11_implicit_termination(n: int) -> None:
    go("a")
    do("b")


@flow
def p12_instances_without_synchronization(n: int) -> str:
    each(["x", "y"], do)
    return go("a")


@flow
def p13_instances_known_at_design_time(n: int) -> str:
    return join(each(["x", "y", "z"], do))


@flow
def p14_instances_known_at_run_time(texts: list[str]) -> str:
    return join(each(texts, do))


@flow(key=lambda n: n, home=left)
def p15_instances_not_known_before(n: int) -> str:
    done = go("one")
    more = wait_for("more", bool, match="more")
    with when(more):
        rest = p01_sequence(n)
    return both(done, rest)


@flow(key=lambda n: n, home=left)
def p16_deferred_choice(n: int) -> str:
    chosen = race(lambda: wait_for("call", str), lambda: wait_for("letter", str))
    return do(chosen)


@flow
def p17_interleaved_parallel_routing(n: int) -> str:
    a = go("a")
    with after(a):
        b = go("b")
    return both(a, b)


@flow(key=lambda n: n, home=left)
def p18_milestone(n: int) -> str:
    return race(lambda: go(wait_for("change", str)), lambda: do(wait_for("closed", str)))


@flow(key=lambda n: n, home=left)
def p19_cancel_activity(n: int) -> str:
    return race(lambda: slow("a"), lambda: wait_for("stop", str))


@flow(key=lambda n: n, home=left)
def p20_cancel_case(n: int) -> str:
    go("a")
    return wait_for("never", str)


@flow
def p21_structured_loop(n: int) -> int:
    return repeat(add, n, until=lambda value: value >= 4, cap=10)


@flow
def p22_recursion(n: int) -> int:
    with when(n < 3):
        deeper = p22_recursion(add(n))
    return either(deeper, n)


@flow(key=lambda n: n, home=left)
def p24_persistent_trigger(n: int) -> str:
    with after(go("first")):
        return do(wait_for("trigger", str))


@flow(key=lambda n: n, home=left)
def p25_cancel_region(n: int) -> str:
    return race(lambda: do(slow(go("a"))), lambda: wait_for("stop", str))


@flow(key=lambda n: n, home=left)
def p26_cancel_instances(n: int) -> str:
    return race(lambda: join(each(["x", "y"], slow)), lambda: wait_for("stop", str))


@flow
def p28_blocking_discriminator(n: int) -> int:
    return repeat(lambda at: race(lambda: add(at), lambda: later(at)), n, until=lambda at: at >= 3, cap=5)


@flow
def p29_cancelling_discriminator(n: int) -> str:
    return race(lambda: go("a"), lambda: do(slow("b")))


@flow
def p30_structured_partial_join(n: int) -> str:
    return join(n_of(2, lambda: go("a"), lambda: do("b"), lambda: slow("c")))


@flow
def p31_blocking_partial_join(n: int) -> int:
    def turn(at: int) -> int:
        with after(n_of(2, lambda: go("a"), lambda: do("b"), lambda: slow("c"))):
            return add(at)

    return repeat(turn, n, until=lambda at: at >= 2, cap=5)


@flow
def p32_cancelling_partial_join(n: int) -> str:
    return join(n_of(2, lambda: go("a"), lambda: do("b"), lambda: do(slow("c"))))


@flow
def p33_generalized_join(n: int) -> list[str]:
    return each(["x", "y"], lambda text: both(go(text), do(text)))


@flow
def p34_static_partial_join(n: int) -> str:
    return join(n_of(2, *[lambda text=text: go(text) for text in ("a", "b")], lambda: slow("c")))


@flow
def p35_cancelling_partial_join(n: int) -> str:
    return join(n_of(1, *[lambda text=text: do(slow(text)) for text in ("b", "c")], lambda: go("a")))


@flow
def p37_local_synchronizing_merge(n: int) -> str:
    with when(n > 100):
        a = do(go("a"))
    with when(n > 1):
        b = go("b")
    return both(a, b)


@flow
def p38_general_synchronizing_merge(n: int) -> str:
    last = repeat(add, n, until=lambda value: value >= 4, cap=10)
    with when(last > 100):
        a = go("a")
    return both(a, do("b"))


@flow
def p39_critical_section(n: int) -> str:
    a = go("a")
    with after(do(a)):
        return go("b")


@flow
def p40_interleaved_routing(n: int) -> str:
    a = go("a")
    with after(a):
        b = do("b")
    with after(b):
        return go("c")


@flow
def p41_thread_merge(n: int) -> str:
    return join(each(["x", "y"], go))


@flow
def p42_thread_split(texts: list[str]) -> list[str]:
    return each(texts, do)


@flow
def p43_explicit_termination(n: int) -> str:
    with when(n > 5):
        finish("early")
    return go("a")


@flow
def p43_by_failure(n: int) -> str:
    return attempt(lambda: never("over"), {RuntimeError: lambda error: error.message})


FLOWS = [found for name, found in list(globals().items()) if name[:1] == "p" and name[1:3].isdigit()]
app = App("patterns", flows=FLOWS, services=[left, right])
