"""The places of a run with their states and times, as the journal's entries tell them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec

from segue.machine import tags
from segue.machine.facts import ROOT, AnyFact, Cause, Fact, Failure, Key, Outcome
from segue.machine.history import History, NodeState, NodeStatus, fold
from segue.machine.routes import inputs, items
from segue.plan.graph import RUN, Construct, Node, Plan
from segue.plan.names import opening
from segue.ports.journal import JournalEntry
from segue.runtime.ids import child_run_id
from segue.wire import envelope
from segue.wire.envelope import ATTEMPT_FAILED, OUTCOMES, Event, Retrying
from segue.wire.said import fact_of

GATES = frozenset({"entry", "exit", "open", "settle", "timer"})


class NodeView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in a run, for people and programs. A construct is shown as one node, and its gateways are not.

    Attributes:
        node: Its name in the plan.
        service: Who owns it.
        kind: What it is; of a construct `each`, `repeat`, `race` or `attempt`.
        state: `open` means: its inputs are there and its service has not answered.
        tag: Which item or round it belongs to: "3", or "3.0" in a construct within it.
        inside: The constructs that it stands in, the outermost first.
        outcome: Its outcome, if it is final.
        attempts: Attempts that are known of; of its undo, while it is undone.
        began: When the last known attempt began.
        ended: When its outcome was published.
        seconds: How long the last attempt took.
        since: Since when it is open, sleeping, waiting for a signal or running.
        error: Of a failure, or of the last failed attempt.
        next: When the next attempt is due; until when it sleeps; when the time of a wait or a construct is over.
        of: How many attempts its retry policy allows.
        waits_for: Inputs that are missing.
        causes: Where a dead path began.
        backlog: Messages that wait for its service, if the broker was asked.
        signal: The signal that it waits for.
        slot: What tells it apart from other waits for the signal: its match or its tag.
        done: Of a construct: how many of its items, rounds or branches are over.
        total: How many there are, or (`repeat`) may be at most.
        child: Of a subflow the id of its run.
        revision: The revision of the run in which it is decided.
    """

    node: str
    service: str
    kind: str
    state: NodeState
    tag: str = ROOT
    inside: tuple[str, ...] = ()
    outcome: Outcome | None = None
    attempts: int = 0
    began: datetime | None = None
    ended: datetime | None = None
    seconds: float | None = None
    since: datetime | None = None
    error: Failure | None = None
    next: datetime | None = None
    of: int = 0
    waits_for: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    backlog: int | None = None
    signal: str = ""
    slot: str = ""
    done: int = 0
    total: int = 0
    child: str = ""
    revision: int = 1


class Told(msgspec.Struct):
    """What events say of one place in one revision."""

    last: Event | None = None
    failed: Event | None = None
    undo_failed: Event | None = None


class Tale:
    """A run as the journal's entries tell it.

    Args:
        plan: Its plan.
        entries: What was published of it, in any order.
    """

    def __init__(self, plan: Plan, entries: Sequence[JournalEntry]) -> None:
        self.plan = plan
        self.told: dict[tuple[Key, int], Told] = {}
        self.run = ""
        self.unread = 0
        facts: list[AnyFact] = []
        begun: list[tuple[Key, int]] = []
        for entry in entries:
            event = envelope.decode(entry.body)
            self.run = event.run
            unread = bool(event.dataref)
            self.unread += unread
            fact = None if unread else fact_of(event)
            if fact is not None:
                facts.append(fact)
            elif event.kind == ATTEMPT_FAILED:
                begun.append((Key(event.node, event.tag), event.revision))
            self._hear(event, fact)
        self.history: History = fold(plan, facts, begun)
        self.at = self._times()
        self.over = self._over()

    def nodes(self) -> Iterator[NodeView]:
        """Every place, in plan order and then by tag; gateways only if they failed themselves.

        A construct stands where it opens, before what is in it.
        """
        index = self.plan.index
        order = {
            node.id: index.order[opening(node.construct) if node.kind == "close" else node.id]
            for node in self.plan.nodes
        }
        statuses = sorted(self.history.nodes.values(), key=lambda status: order[status.node])
        for status in statuses:
            kind = self.plan.index.nodes[status.node].kind
            if kind not in GATES or (status.outcome is not None and status.outcome.kind == "failed"):
                yield self._view(status)

    def _hear(self, event: Event, fact: AnyFact | None) -> None:
        key = fact.key if isinstance(fact, Fact) else Key(event.node, event.tag)
        told = self.told.setdefault((key, event.revision), Told())
        if isinstance(fact, Fact) or event.kind in OUTCOMES:
            told.last = event
        elif event.kind == ATTEMPT_FAILED:
            undo = msgspec.json.decode(event.data, type=Retrying).undo
            before = told.undo_failed if undo else told.failed
            if before is None or event.attempt > before.attempt:
                if undo:
                    told.undo_failed = event
                else:
                    told.failed = event

    def _times(self) -> dict[Key, datetime]:
        """When outcomes were known: published ones when they were, the others when the last of their inputs was."""
        found = {}
        for key, status in self.history.nodes.items():
            told = self.told.get((key, status.revision))
            if told is not None and told.last is not None:
                found[key] = told.last.time
        for key in self.history.derived:
            times = [found[up] for up in inputs(self.plan, self.history.state, key) if up in found]
            if times:
                found[key] = max(times)
        return found

    def _over(self) -> Counter[Key]:
        """How many regions of each construct are over."""
        index, found = self.plan.index, Counter[Key]()
        for key in self.history.state.outcomes:
            node = index.nodes[key.node]
            if node.kind == "exit" and node.region != RUN:
                construct = index.construct(node)
                found[Key(construct.id, tags.parent(key.tag) if construct.numbered else key.tag)] += 1
        return found

    def _view(self, status: NodeStatus) -> NodeView:
        node = self.plan.index.nodes[status.node]
        found = NodeView(
            node=node.id,
            service=node.owner,
            kind=self._kind(node),
            state=status.state,
            tag=status.tag,
            inside=self._inside(node),
            outcome=status.outcome,
            waits_for=status.waits_for,
            revision=status.revision,
        )
        found = self._timed(found, status)
        replace = msgspec.structs.replace
        if node.kind == "close":
            found = self._progress(found, self.plan.index.construct(node))
        elif node.kind == "flow" and status.state != "waiting":
            found = replace(found, child=child_run_id(self.run, node.id, status.tag, status.revision))
        if status.signal is not None:
            found = replace(found, signal=status.signal[0], slot=status.signal[1])
        return found

    def _kind(self, node: Node) -> str:
        return self.plan.index.construct(node).kind if node.kind == "close" else node.kind

    def _inside(self, node: Node) -> tuple[str, ...]:
        index = self.plan.index
        around = [index.regions[scope].construct for scope in index.scopes[node.region] if scope != RUN]
        return tuple(dict.fromkeys(reversed(around)))

    def _timed(self, view: NodeView, status: NodeStatus) -> NodeView:
        """With what events say of its attempts."""
        told = self.told.get((Key(status.node, status.tag), status.revision), Told())
        last, failed = told.last, told.failed
        if last is not None and last.dataref:
            # Its value could not be read; that it has an outcome is known all the same.
            view = msgspec.structs.replace(view, state=cast("NodeState", last.kind), waits_for=())
        undoing = status.state in ("compensating", "undo_failed")
        if undoing:
            last, failed = None, told.undo_failed
        causes = status.outcome.causes if status.outcome is not None else ()
        error, following, of = status.error, None, 0
        if status.state == "failed":
            error = causes[0].error if causes else None
        elif failed is not None and last is None:
            retrying = msgspec.json.decode(failed.data, type=Retrying)
            error, of = error or retrying.error, retrying.of
            following = retrying.next if status.state != "undo_failed" else None
        shown = last or failed
        began, ended = shown.began if shown is not None else None, last.time if last is not None else None
        since = self._since(status)
        if status.until is not None:
            following = datetime.fromtimestamp(status.until, UTC)
        elif status.seconds and since is not None:
            following = since + timedelta(seconds=status.seconds)
        return msgspec.structs.replace(
            view,
            attempts=shown.attempt if shown is not None else 0,
            began=began,
            ended=ended,
            seconds=(ended - began).total_seconds() if ended and began else None,
            since=since,
            error=error,
            next=following,
            of=of,
            causes=causes if status.state != "failed" else (),
        )

    def _since(self, status: NodeStatus) -> datetime | None:
        if status.outcome is not None or status.state == "waiting":
            return None
        node = self.plan.index.nodes[status.node]
        ups = (opening(node.construct),) if node.kind == "close" else self.plan.index.ups[status.node]
        times = [self.at[key] for up in ups if (key := Key(up, status.tag)) in self.at]
        return max(times, default=None)

    def _progress(self, view: NodeView, construct: Construct) -> NodeView:
        """With how far a construct is, and when its time is over or its next round begins."""
        opened = self.history.state.known(opening(construct.id), view.tag)
        if opened is None or opened.kind != "completed" or construct.kind == "attempt":
            total = 0
        elif construct.kind == "each":
            total = len(items(opened))
        else:
            total = construct.cap if construct.kind == "repeat" else len(construct.bodies)
        done = self.over[Key(view.node, view.tag)] if total else 0
        view = msgspec.structs.replace(view, done=done, total=total)
        if view.state != "running":
            return view
        return msgspec.structs.replace(view, next=self._due(view, construct))

    def _due(self, view: NodeView, construct: Construct) -> datetime | None:
        if construct.kind == "repeat" and construct.every:
            region = self.plan.index.regions[construct.bodies[0]]
            before = self.at.get(Key(region.exit, tags.child(view.tag, view.done - 1)))
            if before is not None and Key(region.entry, tags.child(view.tag, view.done)) not in self.at:
                return before + timedelta(seconds=construct.every)
        if construct.timeout and view.since is not None:
            return view.since + timedelta(seconds=construct.timeout)
        return None
