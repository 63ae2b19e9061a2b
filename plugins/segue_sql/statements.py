"""The statements of the hot paths, over many rows at once.

Each reads its rows from a table `k`, which every database brings in its own way (`Link`). One statement over many rows
instead of many executions: not for the server's sake, but because a driver gives up the interpreter's lock at every
execution, and with a busy event loop each time may cost a switch interval (5 ms) to get it back.

`k` drives every statement: `CROSS JOIN` keeps SQLite from scanning the table instead, and rows are looked up by the
whole primary key.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["text", "integer", "bytes", "run"]


class Column(NamedTuple):
    """A column of `k`."""

    name: str
    kind: Kind


class Statement(NamedTuple):
    """A statement over the table `k`.

    A *lookup* selects `k.i` (the number of the row) and one value, whose kind is `gives`.
    """

    text: str
    columns: tuple[Column, ...]
    gives: Kind | None = None


def statement(text: str, columns: str, gives: Kind | None = None) -> Statement:
    """A statement; `columns` are the names of k's columns."""
    return Statement(text, tuple(Column(name, _KINDS.get(name, "text")) for name in columns.split()), gives)


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
}
_SAME_NODE = "{t}.part = {part} AND {t}.run = k.uuid AND {t}.node = k.node AND {t}.tag = k.tag"


class StoreStatements:
    """The statements of one participant's part."""

    def __init__(self, part: int) -> None:
        def same(table: str) -> str:
            return _SAME_NODE.format(t=table, part=part)

        cell_key, place = "uuid node tag rev cell_kind", "uuid node tag"
        self.load = statement(
            f"SELECT k.i AS i, c.value AS v FROM k CROSS JOIN segue_cell c "
            f"WHERE {same('c')} AND c.rev = k.rev AND c.kind = k.cell_kind",
            cell_key,
            "bytes",
        )
        self.cells = statement(
            "INSERT INTO segue_cell (part, run, node, tag, rev, kind, value) "
            f"SELECT {part}, uuid, node, tag, rev, cell_kind, value FROM k WHERE true",
            f"{cell_key} value",
        )
        self.count = statement(
            "INSERT INTO segue_tally (part, run, node, tag, rev, n) "
            f"SELECT {part}, uuid, node, tag, rev, n FROM k WHERE true "
            "ON CONFLICT (part, run, node, tag, rev) DO UPDATE SET n = segue_tally.n + excluded.n",
            f"{place} rev n",
        )
        self.tally = statement(
            f"SELECT k.i AS i, t.n AS v FROM k CROSS JOIN segue_tally t WHERE {same('t')} AND t.rev = k.rev",
            f"{place} rev",
            "integer",
        )
        self.due = statement(
            "INSERT INTO segue_due (part, run, node, tag, due_at, owner, attempt, body) "
            f"SELECT {part}, uuid, node, tag, due_at, owner, attempt, body FROM k WHERE true "
            "ON CONFLICT (part, run, node, tag) DO UPDATE SET due_at = excluded.due_at, owner = excluded.owner, "
            "attempt = excluded.attempt, body = excluded.body",
            f"{place} due_at owner attempt body",
        )
        self.done = statement(
            f"DELETE FROM segue_due WHERE part = {part} AND (run, node, tag) IN (SELECT uuid, node, tag FROM k)", place
        )
        self.overdue = statement(
            "SELECT k.i AS i, 1 AS v FROM k "
            f"WHERE EXISTS (SELECT 1 FROM segue_due d WHERE d.part = {part} AND d.due_at <= k.due_at)",
            "due_at",
            "integer",
        )
        self.bind = statement(
            "INSERT INTO segue_key (part, flow, key, run) "
            f"SELECT {part}, flow, key, uuid FROM k WHERE true ON CONFLICT DO NOTHING",
            "flow key uuid",
        )
        self.find = statement(
            "SELECT k.i AS i, b.run AS v FROM k CROSS JOIN segue_key b "
            f"WHERE b.part = {part} AND b.flow = k.flow AND b.key = k.key",
            "flow key",
            "run",
        )


EVENTS = statement(
    "INSERT INTO segue_journal_event (run, id, node, kind, time, body) "
    "SELECT run, id, node, kind, time, body FROM k WHERE true ON CONFLICT DO NOTHING",
    "run id node kind time body",
)
RUNS = statement(
    "INSERT INTO segue_journal_run AS r (run, flow, plan, mode, key, started, ended, status, error, at) "
    "SELECT run, flow, plan, mode, key, started, ended, status, error, at FROM k WHERE true "
    "ON CONFLICT (run) DO UPDATE SET "
    "flow = coalesce(nullif(r.flow, ''), excluded.flow), plan = coalesce(nullif(r.plan, ''), excluded.plan), "
    "mode = coalesce(nullif(r.mode, ''), excluded.mode), key = coalesce(nullif(r.key, ''), excluded.key), "
    "started = coalesce(r.started, excluded.started), ended = coalesce(r.ended, excluded.ended), "
    "status = coalesce(nullif(r.status, 'running'), excluded.status), "
    "error = coalesce(nullif(r.error, ''), excluded.error), "
    "at = coalesce(r.started, excluded.started, r.ended, excluded.ended, 0)",
    "run flow plan mode key started ended status error at",
)
"""What is empty is filled; "running" counts as empty."""
PLANS = statement(
    "INSERT INTO segue_journal_plan (hash, body) SELECT hash, body FROM k WHERE true ON CONFLICT DO NOTHING",
    "hash body",
)
