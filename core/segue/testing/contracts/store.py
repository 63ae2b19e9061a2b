"""Obligations of every state store: facts written once, exact tallies, due rows, keys bound once."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from segue.ports.store import Cell, CellKey, CellKind, Committed, Due, DueKey, Join, StateStore
from segue.testing.contracts.purging import PurgeContract, fresh_part, fresh_run, key

ODD_TAGS = ("", "0", "1", "01", "1.0", "1/0", "1/0/2", "10", "a", "A", "%", "_", "\\", "'", '"', ";--", "é", "x" * 200)


class StoreContract(PurgeContract):
    """What the port `StateStore` promises.

    Subclass it, name the class `Test...`, and define `connect`. Parts have fresh names, so tests can share a database.
    How to run the tests: see `TransportContract`.
    """

    async def test_the_first_value_stays(self) -> None:
        async with self.opened(2) as (store, other):
            run = fresh_run()
            a, b = key(run, "a"), key(run, "b")
            assert await store.load([a, b]) == {}
            assert await store.commit([Cell(a, b"1")]) == Committed({}, {})
            assert await other.commit([Cell(a, b"2"), Cell(b, b"3")]) == Committed({a: b"1"}, {})
            assert await store.load([a, b]) == {a: b"1", b: b"3"}
            assert await other.load(iter([a, key(run, "c")])) == {a: b"1"}

    async def test_committing_the_same_again_is_harmless(self) -> None:
        async with self.opened() as (store,):
            run = fresh_run()
            join = Join(run, "j", "", 1)
            cells = [Cell(key(run, f"n{i}"), b"%d" % i, (join,)) for i in range(3)]
            due = [Due(DueKey(run, "n", ""), 10.0, 1, b"body")]
            assert await store.commit(cells, due=due) == Committed({}, {join: 3})
            again = await store.commit(cells, due=due)
            assert again == Committed({cell.key: cell.value for cell in cells}, {})
            assert await store.tally([join]) == {join: 3}
            assert len(await store.claim(10.0, 5.0, 10, "me")) == 1

    async def test_a_cell_keeps_out_those_that_name_it(self) -> None:
        async with self.opened(2) as (store, other):
            run = fresh_run()
            join, named = Join(run, "j", "", 1), CellKey(run, "run", "", 0, CellKind.NOTICED)
            a, b, c = (Cell(key(run, name), name.encode(), (join,), named) for name in "abc")
            free = Cell(key(run, "free"), b"", (join,))
            assert await store.commit([a]) == Committed({}, {join: 1})
            assert await store.commit([Cell(named, b"")]) == Committed({}, {})
            expected = Committed({a.key: b"a"}, {join: 2}, frozenset({b.key, c.key}))
            assert await other.commit([a, b, c, free]) == expected
            assert await store.load([a.key, b.key, c.key, free.key]) == {a.key: b"a", free.key: b""}
            assert await store.tally([join]) == {join: 2}

    async def test_all_or_none_of_those_that_name_a_cell(self) -> None:
        async with self.opened(2) as stores:
            runs = [fresh_run() for _ in range(30)]
            named = {run: CellKey(run, "run", "", 0, CellKind.NOTICED) for run in runs}
            batches = [[Cell(key(run, f"n{i}"), b"", (), named[run]) for i in range(20)] for run in runs]
            both = [batch for run, mine in zip(runs, batches, strict=True) for batch in (mine, [Cell(named[run], b"")])]
            found = (await _commit_all(stores, both))[::2]
            for mine, told in zip(batches, found, strict=True):
                there = await stores[0].load([cell.key for cell in mine])
                assert (len(there), len(told.refused), told.lost) in ((20, 0, {}), (0, 20, {}))

    async def test_nothing_is_nothing(self) -> None:
        async with self.opened() as (store,):
            assert await store.commit() == Committed({}, {})
            assert await store.load([]) == {}
            assert await store.scan([]) == {}
            assert await store.tally([]) == {}
            assert await store.bind("flow", []) == {}
            assert await store.find("flow", []) == {}
            assert await store.claim(1e9, 1.0, 10, "me") == []

    async def test_every_part_of_a_key_counts(self) -> None:
        async with self.opened() as (store,):
            run, outcome = fresh_run(), CellKind.OUTCOME
            keys = [CellKey(run, "n", tag, 1, outcome) for tag in ODD_TAGS]
            keys += [CellKey(run, "n", "", 2, outcome), CellKey(run, "n-2", "", 1, outcome)]
            keys += [CellKey(fresh_run(), "n", "", 1, outcome)]
            expected = {cell_key: b"%d" % i for i, cell_key in enumerate(keys)}
            assert await store.commit([Cell(*item) for item in expected.items()]) == Committed({}, {})
            assert await store.load(keys) == expected
            joins = [Join(*cell_key[:4]) for cell_key in keys]
            for i, join in enumerate(joins):
                found = await store.commit([Cell(key(fresh_run(), f"up{i}"), b"", (join,))])
                assert found == Committed({}, {join: 1})
            assert await store.tally(joins) == dict.fromkeys(joins, 1)
            due = [Due(DueKey(*cell_key[:3]), 1.0, i, b"") for i, cell_key in enumerate(keys) if cell_key.revision == 1]
            await store.commit(due=due)
            assert {row.key for row in await store.claim(1.0, 1.0, 100, "me")} == {row.key for row in due}

    async def test_values_are_any_bytes(self) -> None:
        async with self.opened() as (store,):
            run = fresh_run()
            values = {key(run, "none"): b"", key(run, "all"): bytes(range(256)), key(run, "big"): b"x" * 100_000}
            await store.commit([Cell(*item) for item in values.items()])
            assert await store.load(values) == values
            await store.commit(due=[Due(DueKey(run, "n", ""), 1.0, 0, values[key(run, "big")] + b"\0")])
            [row] = await store.claim(1.0, 1.0, 1, "me")
            assert row.body == b"x" * 100_000 + b"\0"

    async def test_all_cells_of_some_runs_are_found(self) -> None:
        part = fresh_part()
        async with self.opened(2, part) as (store, other), self.opened() as (stranger,):
            one, two, three = fresh_run(), fresh_run(), fresh_run()
            assert await store.scan([one]) == {}
            keys = [CellKey(run, "n", tag, 1, CellKind.OUTCOME) for run in (one, two) for tag in ODD_TAGS]
            keys += [CellKey(one, "run", "", 1, kind) for kind in CellKind]
            keys += [CellKey(one, "n", "", 2, CellKind.OUTCOME), key(two, "m:open"), key(three, "n")]
            cells = {cell_key: b"%d" % i for i, cell_key in enumerate(keys)}
            await store.commit([Cell(*item) for item in cells.items()], due=[Due(DueKey(one, "n", ""), 1.0, 0, b"")])
            await stranger.commit([Cell(key(one, "another's"), b"")])
            ours = {cell_key: value for cell_key, value in cells.items() if cell_key.run == one}
            assert await other.scan([one]) == ours
            found = await other.scan([two, one, fresh_run(), two])
            assert found == {cell_key: value for cell_key, value in cells.items() if cell_key.run != three}
            assert all(isinstance(cell_key.kind, CellKind) for cell_key in found)

    async def test_a_run_with_thousands_of_cells_is_found_whole(self) -> None:
        async with self.opened() as (store,):
            run, neighbours = fresh_run(), [fresh_run() for _ in range(20)]
            cells = {CellKey(run, f"n{i % 7}", str(i), 1 + i % 2, CellKind.TOKEN): b"%d" % i for i in range(3000)}
            await store.commit([Cell(key(neighbour, "n"), b"") for neighbour in neighbours])
            await store.commit([Cell(*item) for item in cells.items()])
            assert await store.scan([run]) == cells

    async def test_a_commit_is_seen_whole_or_not_at_all(self) -> None:
        async with self.opened(2) as (store, other):
            run, seen = fresh_run(), list[int]()
            commits = [[Cell(key(run, f"n{i}", str(n)), b"") for i in range(100)] for n in range(20)]

            async def write() -> None:
                for cells in commits:
                    await store.commit(cells)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                while not seen or seen[-1] < 2000:
                    seen.append(len(await other.scan([run])))
                    await checkpoint()
            assert {n % 100 for n in seen} == {0}
            assert seen == sorted(seen)

    async def test_thousands_of_cells_in_one_commit(self) -> None:
        async with self.opened() as (store,):
            run = fresh_run()
            join = Join(run, "j", "", 1)
            cells = [Cell(key(run, f"n{i % 50}", str(i)), b"%d" % i, (join,)) for i in range(5000)]
            await store.commit(cells[100:110])
            found = await store.commit(cells)
            assert found.lost == {cell.key: cell.value for cell in cells[100:110]}
            assert found.tallies == {join: 5000}
            assert await store.load([cell.key for cell in cells]) == {cell.key: cell.value for cell in cells}

    async def test_arrivals_are_counted(self) -> None:
        async with self.opened() as (store,):
            run = fresh_run()
            j, k = Join(run, "j", "", 1), Join(run, "k", "", 1)
            assert (await store.tally([j])).get(j, 0) == 0
            assert (await store.commit([Cell(key(run, "a"), b"", (j,))])).tallies == {j: 1}
            assert (await store.commit([Cell(key(run, "b"), b"", (j, k)), Cell(key(run, "c"), b"")])).tallies == {
                j: 2,
                k: 1,
            }
            assert await store.tally([j, k]) == {j: 2, k: 1}

    async def test_repeated_arrivals_do_not_count(self) -> None:
        async with self.opened(2) as (store, other):
            run = fresh_run()
            join = Join(run, "j", "", 1)
            a, b = (Cell(key(run, name), b"", (join,)) for name in "ab")
            await store.commit([a])
            assert await other.commit([a]) == Committed({a.key: b""}, {})
            assert await other.commit([a, b]) == Committed({a.key: b""}, {join: 2})
            assert await store.commit([b]) == Committed({b.key: b""}, {})
            assert await store.tally([join]) == {join: 2}

    async def test_one_commit_sees_a_join_complete(self) -> None:
        async with self.opened(2) as stores:
            run = fresh_run()
            for round_ in range(10):
                join = Join(run, f"j{round_}", "", 1)
                cells = [Cell(key(run, f"n{i}", str(round_)), b"", (join,)) for i in range(6)]
                seen = await _commit_all(stores, [[cell] for cell in cells] * 2)
                assert sorted(found.tallies[join] for found in seen if found.tallies) == [1, 2, 3, 4, 5, 6]

    async def test_one_commit_sees_a_large_join_complete(self) -> None:
        async with self.opened(2) as stores:
            run = fresh_run()
            join = Join(run, "j", "", 1)
            cells = [Cell(key(run, "n", str(i)), b"%d" % i, (join,)) for i in range(500)]
            batches = [cells[i : i + 25] for i in range(0, 500, 25)]
            overlapping = [cells[i : i + 40] for i in range(0, 500, 40)]
            tallies = [found.tallies.get(join, 0) for found in await _commit_all(stores, batches + overlapping)]
            assert tallies.count(500) == 1
            assert max(tallies) == 500
            assert await stores[0].tally([join]) == {join: 500}

    async def test_concurrent_commits_in_any_order_of_keys(self) -> None:
        async with self.opened(2) as stores:
            run = fresh_run()
            joins = [Join(run, f"j{i}", "", 1) for i in range(20)]
            forward = [Cell(key(run, f"a{i}"), b"", (join,)) for i, join in enumerate(joins)]
            backward = [Cell(key(run, f"b{i}"), b"", (join,)) for i, join in enumerate(joins)][::-1]
            shared = [Cell(key(run, f"c{i}"), b"", tuple(joins)) for i in range(3)]
            batches = [forward, backward, forward[::-1], backward[::-1], shared, shared[::-1]]
            found = await _commit_all(stores, batches)
            for join in joins:
                assert [item.tallies.get(join) for item in found].count(5) == 1

    async def test_racing_values_have_one_winner(self) -> None:
        async with self.opened(2) as stores:
            keys = [key(fresh_run(), "n") for _ in range(20)]
            batches = [[Cell(cell_key, b"%d" % writer) for cell_key in keys] for writer in range(6)]
            found = await _commit_all(stores, batches)
            recorded = await stores[0].load(keys)
            for cell_key in keys:
                winners = [writer for writer in range(6) if cell_key not in found[writer].lost]
                assert [b"%d" % writer for writer in winners] == [recorded[cell_key]]
                assert {item.lost.get(cell_key, recorded[cell_key]) for item in found} == {recorded[cell_key]}

    async def test_due_rows_are_claimed_oldest_first(self) -> None:
        async with self.opened() as (store,):
            rows = [Due(DueKey(fresh_run(), "n", str(i)), 100.0 + i, i, b"%d" % i) for i in (3, 1, 4, 0, 2)]
            await store.commit(due=rows)
            assert await store.claim(99.5, 10.0, 10, "me") == []
            first = await store.claim(102.0, 10.0, 2, "me")
            assert {(row.attempt, row.body, row.owner) for row in first} == {(0, b"0", "me"), (1, b"1", "me")}
            assert [row.attempt for row in await store.claim(102.0, 10.0, 10, "me")] == [2]
            assert {row.attempt for row in await store.claim(104.0, 10.0, 10, "me")} == {3, 4}
            assert await store.claim(104.0, 10.0, 10, "me") == []

    async def test_a_claimed_row_comes_again_after_its_lease(self) -> None:
        async with self.opened(2) as (store, other):
            row = DueKey(fresh_run(), "n", "")
            await store.commit(due=[Due(row, 100.0, 0, b"body")])
            assert [due.key for due in await store.claim(100.0, 15.0, 10, "one")] == [row]
            assert await other.claim(114.0, 15.0, 10, "two") == []
            [again] = await other.claim(115.0, 15.0, 10, "two")
            assert (again.key, again.attempt, again.body, again.owner) == (row, 0, b"body", "two")
            await other.commit(done=[row])
            assert await store.claim(1e9, 15.0, 10, "one") == []

    async def test_a_due_row_replaces_its_predecessor(self) -> None:
        async with self.opened(2) as (store, other):
            row = DueKey(fresh_run(), "n", "")
            await store.commit(due=[Due(row, 100.0, 0, b"old")])
            await other.commit(due=[Due(row, 200.0, 7, b"new")])
            assert await store.claim(150.0, 1.0, 10, "me") == []
            [found] = await store.claim(200.0, 1.0, 10, "me")
            assert (found.attempt, found.body) == (7, b"new")
            await store.commit(due=[Due(row, 50.0, 8, b"newer")])
            [found] = await store.claim(60.0, 1.0, 10, "me")
            assert (found.attempt, found.body) == (8, b"newer")

    async def test_cells_due_and_done_share_a_commit(self) -> None:
        async with self.opened() as (store,):
            run = fresh_run()
            old, new = DueKey(run, "old", ""), DueKey(run, "new", "")
            await store.commit(due=[Due(old, 1.0, 0, b"")])
            await store.commit([Cell(key(run, "n"), b"1")], due=[Due(new, 1.0, 0, b"")], done=[old])
            assert [row.key for row in await store.claim(1.0, 1.0, 10, "me")] == [new]
            assert await store.load([key(run, "n")]) == {key(run, "n"): b"1"}
            await store.commit(done=[old, new, DueKey(run, "never", "")])
            assert await store.claim(1e9, 1.0, 10, "me") == []

    async def test_concurrent_claims_are_disjoint(self) -> None:
        async with self.opened(2) as stores:
            run = fresh_run()
            await stores[0].commit(due=[Due(DueKey(run, "n", str(i)), float(i % 10), i, b"") for i in range(120)])
            claimed: list[Due] = []

            async def take(store: StateStore, owner: str) -> None:
                while rows := await store.claim(10.0, 100.0, 15, owner):
                    assert len(rows) <= 15
                    assert {row.owner for row in rows} == {owner}
                    claimed.extend(rows)

            async with anyio.create_task_group() as tasks:
                for i in range(6):
                    tasks.start_soon(take, stores[i % 2], f"owner-{i}")
            assert sorted(row.attempt for row in claimed) == list(range(120))

    async def test_keys_are_bound_once(self) -> None:
        async with self.opened(2) as (store, other):
            first, second, third = fresh_run(), fresh_run(), fresh_run()
            assert await store.find("flow", ["4711"]) == {}
            assert await store.bind("flow", [("4711", first)]) == {"4711": first}
            assert await other.bind("flow", [("4711", second), ("4712", third)]) == {"4711": first, "4712": third}
            assert await other.bind("another-flow", [("4711", second)]) == {"4711": second}
            assert await store.find("flow", ["4711", "4712", "4713"]) == {"4711": first, "4712": third}
            assert await store.find("another-flow", ["4711", "4712"]) == {"4711": second}

    async def test_keys_are_any_text(self) -> None:
        async with self.opened() as (store,):
            keys = [tag for tag in ODD_TAGS if tag] + ["Zoë №4711 😀", " 4711", "4711 ", "4711\n", "k" * 500]
            bound = {text: fresh_run() for text in keys}
            assert await store.bind("flow", list(bound.items())) == bound
            assert await store.find("flow", keys) == bound

    async def test_racing_bindings_agree(self) -> None:
        async with self.opened(2) as stores:
            keys, answers = [f"order-{i}" for i in range(20)], list[dict[str, str]]()

            async def bind(store: StateStore, backwards: bool) -> None:
                runs = [(text, fresh_run()) for text in keys]
                answers.append(await store.bind("flow", runs[::-1] if backwards else runs))

            async with anyio.create_task_group() as tasks:
                for i in range(6):
                    tasks.start_soon(bind, stores[i % 2], i % 3 == 0)
            recorded = await stores[0].find("flow", keys)
            assert recorded.keys() == set(keys)
            assert answers == [recorded] * 6

    async def test_a_key_twice_in_one_call_is_one_run(self) -> None:
        async with self.opened() as (store,):
            runs = [fresh_run(), fresh_run()]
            bound = await store.bind("flow", [("4711", runs[0]), ("4711", runs[1])])
            assert bound["4711"] in runs
            assert await store.find("flow", ["4711"]) == bound

    async def test_parts_are_apart(self) -> None:
        async with self.opened() as (mine,), self.opened() as (theirs,):
            run = fresh_run()
            cell, join = key(run, "n"), Join(run, "j", "", 1)
            await mine.commit([Cell(cell, b"mine", (join,))], due=[Due(DueKey(run, "n", ""), 1.0, 0, b"")])
            await mine.bind("flow", [("4711", run)])
            assert await theirs.load([cell]) == {}
            assert (await theirs.tally([join])).get(join, 0) == 0
            assert await theirs.claim(1e9, 1.0, 10, "me") == []
            assert await theirs.find("flow", ["4711"]) == {}
            assert await theirs.commit([Cell(cell, b"theirs", (join,))]) == Committed({}, {join: 1})
            assert await mine.load([cell]) == {cell: b"mine"}

    async def test_all_is_there_when_opened_again(self) -> None:
        part, run = fresh_part(), fresh_run()
        cell, join, row = key(run, "n"), Join(run, "j", "", 1), Due(DueKey(run, "n", ""), 1.5, 3, b"body")
        async with self.opened(part=part) as (store,):
            await store.commit([Cell(cell, b"1", (join,))], due=[row])
            await store.bind("flow", [("4711", run)])
        async with self.opened(part=part) as (store,):
            assert await store.load([cell]) == {cell: b"1"}
            assert await store.tally([join]) == {join: 1}
            assert await store.find("flow", ["4711"]) == {"4711": run}
            [found] = await store.claim(1.5, 1.0, 10, "me")
            assert (found.key, found.attempt, found.body) == (row.key, 3, b"body")


async def _commit_all(stores: list[StateStore], batches: list[list[Cell]]) -> list[Committed]:
    """Commit all batches at once, spread over the stores; what each found, in the order of the batches."""
    found: dict[int, Committed] = {}

    async def commit(i: int) -> None:
        found[i] = await stores[i % len(stores)].commit(batches[i])

    async with anyio.create_task_group() as tasks:
        for i in range(len(batches)):
            tasks.start_soon(commit, i)
    return [found[i] for i in range(len(batches))]
