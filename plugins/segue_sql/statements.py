"""The statements of the hot paths, over many rows at once.

Each reads its rows from a table `k`, which every database brings in its own way (`Link`). One statement over many rows
instead of many executions: not for the server's sake, but because a driver gives up the interpreter's lock at every
execution, and with a busy event loop each time may cost a switch interval (5 ms) to get it back.

`k` must drive every statement, and each of its rows must find its row by the whole primary key, whatever a planner
believes of the tables. How that is said differs, so a lookup is kept in parts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["text", "integer", "bytes", "run"]


class Column(NamedTuple):
    """A column of `k`."""

    name: str
    kind: Kind


class Statement(NamedTuple):
    """A statement that changes a table, over the rows of k."""

    text: str
    columns: tuple[Column, ...]


class Lookup(NamedTuple):
    """For each row of k at most one row of a table: `where` names its whole primary key.

    `gives` is what kind of value comes of it.
    """

    value: str
    table: str
    where: str
    columns: tuple[Column, ...]
    gives: Kind


def _columns(names: str) -> tuple[Column, ...]:
    return tuple(Column(name, _KINDS.get(name, "text")) for name in names.split())


_KINDS: dict[str, Kind] = {
    "uuid": "run",
    "rev": "integer",
    "cell_kind": "integer",
    "value": "bytes",
    "n": "integer",
    "due_at": "integer",
    "attempt": "integer",
    "body": "bytes",
    "time": "integer",
    "started": "integer",
    "ended": "integer",
    "at": "integer",
    "stage": "integer",
    "pauses": "integer",
    "moves": "integer",
}


class StoreStatements:
    """The statements of one participant's part."""

    def __init__(self, part: int) -> None:
        self.part = part
        place = "uuid node tag"
        same_place = f"t.part = {part} AND t.run = k.uuid AND t.node = k.node AND t.tag = k.tag"
        self.load = Lookup(
            "t.value",
            "segue_cell",
            f"{same_place} AND t.rev = k.rev AND t.kind = k.cell_kind",
            _columns(f"{place} rev cell_kind"),
            "bytes",
        )
        self.cells = Statement(
            "INSERT INTO segue_cell (part, run, node, tag, rev, kind, value) "
            f"SELECT {part}, uuid, node, tag, rev, cell_kind, value FROM k WHERE true",
            _columns(f"{place} rev cell_kind value"),
        )
        self.count = Statement(
            "INSERT INTO segue_tally (part, run, node, tag, rev, n) "
            f"SELECT {part}, uuid, node, tag, rev, n FROM k WHERE true "
            "ON CONFLICT (part, run, node, tag, rev) DO UPDATE SET n = segue_tally.n + excluded.n",
            _columns(f"{place} rev n"),
        )
        self.tally = Lookup(
            "t.n", "segue_tally", f"{same_place} AND t.rev = k.rev", _columns(f"{place} rev"), "integer"
        )
        self.due = Statement(
            "INSERT INTO segue_due (part, run, node, tag, due_at, owner, attempt, body) "
            f"SELECT {part}, uuid, node, tag, due_at, owner, attempt, body FROM k WHERE true "
            "ON CONFLICT (part, run, node, tag) DO UPDATE SET due_at = excluded.due_at, owner = excluded.owner, "
            "attempt = excluded.attempt, body = excluded.body",
            _columns(f"{place} due_at owner attempt body"),
        )
        self.bind = Statement(
            "INSERT INTO segue_key (part, flow, key, run) "
            f"SELECT {part}, flow, key, uuid FROM k WHERE true ON CONFLICT DO NOTHING",
            _columns("flow key uuid"),
        )
        self.find = Lookup(
            "t.run",
            "segue_key",
            f"t.part = {part} AND t.flow = k.flow AND t.key = k.key",
            _columns("flow key"),
            "run",
        )


EVENTS = Statement(
    "INSERT INTO segue_journal_event (run, id, node, kind, time, body) "
    "SELECT run, id, node, kind, time, body FROM k WHERE true ON CONFLICT DO NOTHING",
    _columns("run id node kind time body"),
)
RUNS = Statement(
    "INSERT INTO segue_journal_run AS r "
    "(run, flow, plan, mode, key, started, ended, status, error, at, stage, pauses, moves) "
    "SELECT run, flow, plan, mode, key, started, ended, status, error, at, stage, pauses, moves FROM k WHERE true "
    "ON CONFLICT (run) DO UPDATE SET "
    "flow = coalesce(nullif(r.flow, ''), excluded.flow), plan = coalesce(nullif(r.plan, ''), excluded.plan), "
    "mode = CASE WHEN excluded.moves > r.moves OR r.mode = '' THEN excluded.mode ELSE r.mode END, "
    "key = coalesce(nullif(r.key, ''), excluded.key), "
    "started = coalesce(r.started, excluded.started), "
    "ended = CASE WHEN excluded.stage > r.stage THEN excluded.ended ELSE r.ended END, "
    "status = CASE WHEN excluded.stage > r.stage THEN excluded.status ELSE r.status END, "
    "error = CASE WHEN excluded.stage > r.stage THEN excluded.error ELSE r.error END, "
    "at = coalesce(r.started, excluded.started, r.ended, excluded.ended, 0), "
    "stage = CASE WHEN excluded.stage > r.stage THEN excluded.stage ELSE r.stage END, "
    "pauses = CASE WHEN excluded.pauses > r.pauses THEN excluded.pauses ELSE r.pauses END, "
    "moves = CASE WHEN excluded.moves > r.moves THEN excluded.moves ELSE r.moves END",
    _columns("run flow plan mode key started ended status error at stage pauses moves"),
)
"""What is empty is filled; the later stage says what the status is (`RunRecord.plus`)."""
PLANS = Statement(
    "INSERT INTO segue_journal_plan (hash, body) SELECT hash, body FROM k WHERE true ON CONFLICT DO NOTHING",
    _columns("hash body"),
)
