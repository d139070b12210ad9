"""Every forgery on every kind of record: what was done is named, and where; a second verifier finds it in the same place.

The kinds: an agent's store, the same events as a file, a gateway's journal, its bundle. What no verifier can see without
a head kept elsewhere is stated too: those cases are whole without one.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from edge_agent.app import evidence as agent
from edge_agent.app.exits import Exit
from edge_agent.wire.flaw import Deed
from gateway.adapters.clock_system import SystemClock
from gateway.adapters.signatures import SigningKey
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.app import evidence as gateway
from gateway.domain.journal import ClockStepped, GapFound, store_body
from gateway.domain.tampering import StoredEntry
from tests import second_verifier
from tests.forgeries import (
    AGENT,
    AGENT_KEY,
    EPOCHS,
    GATEWAY_KEY,
    SITE,
    STRANGER_KEY,
    Rows,
    Story,
    chain,
    journal,
    linked,
    numbered,
    quiet,
    rehashed,
    story,
    write_bundle,
    write_lines,
    write_store,
)
from tests.scripted_agent import ulid

T = TypeVar("T")
TRUE = story()
AT = 9
"""Where rows are spoilt: in the middle of the second run."""

AT_THE_END = {Deed.TRUNCATED, Deed.ROLLED_BACK}


@dataclass(frozen=True)
class Verdict:
    """What a verifier said: None for a whole record."""

    deed: str | None
    where: str | None


@dataclass(frozen=True)
class Bench:
    """A folder with the heads, the keys and the ways to ask."""

    folder: Path
    template: Path
    capsys: pytest.CaptureFixture[str]
    heads: Path = field(init=False)
    agent_key: Path = field(init=False)
    gateway_key: Path = field(init=False)

    def __post_init__(self) -> None:
        for name, text in (
            ("heads", "".join(f"{line}\n" for line in TRUE.heads)),
            ("agent_key", AGENT_KEY.public_key),
            ("gateway_key", GATEWAY_KEY.public_key),
        ):
            object.__setattr__(self, name, self.folder / name)
            (self.folder / name).write_text(text)

    def judge_chain(self, path: Path, *, with_head: bool, key: str | None = AGENT_KEY.public_key) -> Verdict:
        """What the agent's verify says of a store or a file of events; the second verifier must agree."""
        self.agent_key.write_text(key or "")
        heads = self.heads if with_head else None
        agent.verify(path, agent.VerifyOptions(self.agent_key if key else None, heads, False, True))
        verdict = self._verdict()
        self._compare(path, verdict, heads, key)
        return verdict

    def judge_record(self, path: Path, *, with_head: bool) -> Verdict:
        """What the gateway's verify says of a configuration's journal or a bundle; as above."""
        heads = self.heads if with_head else None
        gateway.verify(path, gateway.VerifyOptions(heads, self.gateway_key, False, True))
        verdict = self._verdict()
        if path.suffix == ".jsonl":
            self._compare(path, verdict, heads, None)
        return verdict

    def write_journal(self, entries: list[StoredEntry], known: int | None = None) -> Path:
        """A configuration whose journal holds these entries; the rows beside it know of `known` (default: the last)."""
        database = self.folder / "gateway.db"
        shutil.copy(self.template, database)
        names = "position, recorded_at_ms, kind, payload, occurred_at, marks, link, event_kind"
        with sqlite3.connect(database) as connection:
            for entry in entries:
                stored = entry.stored
                is_start = b'"kind":"agent_started"' in stored.payload
                connection.execute(
                    f"INSERT INTO journal ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        entry.position,
                        entry.recorded_at_ms,
                        stored.kind.value,
                        stored.payload,
                        stored.occurred_at,
                        " ".join(stored.marks),
                        entry.link,
                        "agent_started" if is_start else None,
                    ),
                )
            row = ("changyi", "gw-01", "e", 1, "h", known or entries[-1].position, 1, 1)
            connection.execute("INSERT INTO epochs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        connection.close()
        config = self.folder / "gateway.yaml"
        config.write_text("mqtt: {url: mqtt://127.0.0.1:1}\njournal: {url: sqlite:///gateway.db}\n")
        return config

    def _verdict(self) -> Verdict:
        flaw = json.loads(self.capsys.readouterr().out)["flaw"]
        return Verdict(None, None) if flaw is None else Verdict(flaw["deed"], flaw["where"])

    def _compare(self, path: Path, verdict: Verdict, heads: Path | None, key: str | None) -> None:
        try:
            second_verifier.verify(path, heads, key, GATEWAY_KEY.public_key)
            place = None
        except second_verifier.Bad as bad:
            place = bad.args[0]
        assert (place is None) == (verdict.deed is None), f"the second verifier says {place}, not {verdict}"
        if verdict.deed is not None and verdict.deed not in AT_THE_END and not str(place).startswith("head"):
            assert verdict.where == (f"line {place}" if isinstance(place, int) else place)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty journal."""
    path = tmp_path_factory.mktemp("journal") / "gateway.db"

    async def make() -> None:
        await (await SqlJournal.open(f"sqlite:///{path}", SystemClock(), {})).close()

    asyncio.run(make())
    return path


@pytest.fixture
def bench(tmp_path: Path, template: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, template, capsys)


def remove(rows: list[T]) -> list[T]:
    return [*rows[:AT], *rows[AT + 1 :]]


def remove_three(rows: list[T]) -> list[T]:
    return [*rows[:AT], *rows[AT + 3 :]]


def insert_copy(rows: list[T]) -> list[T]:
    return [*rows[:AT], rows[14], *rows[AT:]]


def double(rows: list[T]) -> list[T]:
    return [*rows[:AT], rows[AT - 1], *rows[AT:]]


def swap(rows: list[T]) -> list[T]:
    return [*rows[:AT], rows[AT + 1], rows[AT], *rows[AT + 2 :]]


def bring_forward(rows: list[T]) -> list[T]:
    return [*rows[:AT], rows[15], *rows[AT:15], *rows[16:]]


def put_back(rows: list[T]) -> list[T]:
    return [*rows[:AT], *rows[AT + 1 : 15], rows[AT], *rows[15:]]


MOVES: dict[str, tuple[Callable[[list[object]], list[object]], Deed]] = {
    "removed": (remove, Deed.REMOVED),
    "three removed": (remove_three, Deed.REMOVED),
    "a copy inserted": (insert_copy, Deed.INSERTED),
    "one doubled": (double, Deed.INSERTED),
    "two swapped": (swap, Deed.REORDERED),
    "one brought forward": (bring_forward, Deed.REORDERED),
    "one put back": (put_back, Deed.REORDERED),
}
"""What can be done to rows without knowing what they say."""

MOVED = [pytest.param(move, deed, id=name) for name, (move, deed) in MOVES.items()]


def test_the_true_story_is_whole_in_every_kind(bench: Bench) -> None:
    whole = Verdict(None, None)
    for with_head in (False, True):
        lines = write_lines(bench.folder / f"e{with_head}.jsonl", TRUE.rows)
        store = write_store(bench.folder / f"s{with_head}.db", TRUE.rows)
        bundle = write_bundle(bench.folder / f"b{with_head}.jsonl", TRUE.entries)
        assert bench.judge_chain(lines, with_head=with_head) == whole
        assert bench.judge_chain(store, with_head=with_head) == whole
        assert bench.judge_record(bundle, with_head=with_head) == whole
        assert bench.judge_record(bench.write_journal(TRUE.entries), with_head=with_head) == whole


@pytest.mark.parametrize("with_head", [False, True])
@pytest.mark.parametrize(("move", "deed"), MOVED)
def test_moved_events_are_named_in_an_agents_chain(
    bench: Bench, move: Callable[[Rows], Rows], deed: Deed, with_head: bool
) -> None:
    rows = move(TRUE.rows)
    lines = write_lines(bench.folder / "e.jsonl", rows)
    store = write_store(bench.folder / "s.db", rows)
    assert bench.judge_chain(lines, with_head=with_head) == Verdict(deed, f"line {AT + 1}")
    assert bench.judge_chain(store, with_head=with_head) == Verdict(deed, f"place {AT + 1}")


@pytest.mark.parametrize(("move", "deed"), MOVED)
def test_moved_entries_are_named_in_a_journal_and_its_bundle(
    bench: Bench, move: Callable[[list[StoredEntry]], list[StoredEntry]], deed: Deed
) -> None:
    moved = move(TRUE.entries)
    as_were = write_bundle(bench.folder / "b1.jsonl", moved, said=TRUE.entries[-1])
    numbered_anew = write_bundle(bench.folder / "b2.jsonl", numbered(moved))
    assert bench.judge_record(as_were, with_head=False) == Verdict(deed, f"line {AT + 2}")
    assert bench.judge_record(numbered_anew, with_head=False) == Verdict(deed, f"line {AT + 2}")
    config = bench.write_journal(numbered(moved))
    assert bench.judge_record(config, with_head=False) == Verdict(deed, f"entry {AT + 1}")
    assert bench.judge_record(config, with_head=True) == Verdict(deed, f"entry {AT + 1}")


def test_a_row_taken_out_of_the_journal_leaves_a_hole(bench: Bench) -> None:
    config = bench.write_journal(remove(TRUE.entries))
    assert bench.judge_record(config, with_head=False) == Verdict(Deed.REMOVED, f"entry {AT + 2}")


def flipped(payload: bytes) -> bytes:
    return payload[:60] + bytes([payload[60] ^ 1]) + payload[61:]


def test_a_flipped_bit_is_named_in_every_kind(bench: Bench) -> None:
    rows = [*TRUE.rows[:AT], flipped(TRUE.rows[AT]), *TRUE.rows[AT + 1 :]]
    lines, store = write_lines(bench.folder / "e.jsonl", rows), write_store(bench.folder / "s.db", rows)
    assert bench.judge_chain(lines, with_head=True) == Verdict(Deed.FLIPPED, f"line {AT + 1}")
    assert bench.judge_chain(store, with_head=True) == Verdict(Deed.FLIPPED, f"place {AT + 1}")
    entries = list(TRUE.entries)
    entries[AT] = changed(entries[AT], flipped(entries[AT].stored.payload))
    bundle = write_bundle(bench.folder / "b.jsonl", entries)
    assert bench.judge_record(bundle, with_head=False) == Verdict(Deed.FLIPPED, f"line {AT + 2}")
    config = bench.write_journal(entries)
    assert bench.judge_record(config, with_head=True) == Verdict(Deed.FLIPPED, f"entry {AT + 1}")


def changed(entry: StoredEntry, payload: bytes) -> StoredEntry:
    stored = type(entry.stored)(entry.stored.kind, payload, entry.stored.occurred_at, entry.stored.marks)
    return StoredEntry(entry.position, entry.recorded_at_ms, stored, entry.link)


CUT = 3


def test_a_cut_end_shows_by_what_is_kept_beside_it(bench: Bench) -> None:
    rows, entries = TRUE.rows[:-CUT], TRUE.entries[:-CUT]
    store = write_store(bench.folder / "s.db", rows, end=(len(TRUE.rows), TRUE.rows[-1]))
    assert bench.judge_chain(store, with_head=False) == Verdict(Deed.TRUNCATED, "the end")
    bundle = write_bundle(bench.folder / "b.jsonl", entries, said=TRUE.entries[-1])
    end = Verdict(Deed.TRUNCATED, f"entry {len(entries) + 1}")
    assert bench.judge_record(bundle, with_head=False) == end
    config = bench.write_journal(entries, known=len(TRUE.entries))
    assert bench.judge_record(config, with_head=False) == end


def test_a_cut_line_shows_by_itself(bench: Bench) -> None:
    lines = write_lines(bench.folder / "e.jsonl", [*TRUE.rows[:-1], TRUE.rows[-1][:-30]])
    assert bench.judge_chain(lines, with_head=False).deed == Deed.TRUNCATED
    bundle = write_bundle(bench.folder / "b.jsonl", TRUE.entries)
    bundle.write_bytes(bundle.read_bytes()[:-30])
    assert bench.judge_record(bundle, with_head=False).deed == Deed.TRUNCATED


@pytest.mark.parametrize("kept", [len(TRUE.rows) - CUT, len(chain(EPOCHS[:2]))], ids=["cut", "older copy"])
def test_a_clean_cut_and_an_older_copy_show_only_by_a_head(bench: Bench, kept: int) -> None:
    rows = TRUE.rows[:kept]
    entries = journal(rows)
    for with_head, deed in ((False, None), (True, Deed.ROLLED_BACK)):
        lines = write_lines(bench.folder / "e.jsonl", rows)
        store = write_store(bench.folder / f"s{with_head}.db", rows)
        assert bench.judge_chain(lines, with_head=with_head).deed == deed
        assert bench.judge_chain(store, with_head=with_head).deed == deed
        bundle = write_bundle(bench.folder / "b.jsonl", entries)
        assert bench.judge_record(bundle, with_head=with_head).deed == deed
        config = bench.write_journal(entries)
        assert bench.judge_record(config, with_head=with_head).deed == deed


def test_an_emptied_store_shows_by_a_head(bench: Bench) -> None:
    empty = write_lines(bench.folder / "e.jsonl", [])
    assert bench.judge_chain(empty, with_head=False).deed is None
    assert bench.judge_chain(empty, with_head=True) == Verdict(Deed.ROLLED_BACK, "the end")


def test_an_older_image_that_went_on_is_named(bench: Bench) -> None:
    rows = chain((1, 2, 7, 8))
    entries = journal(rows)
    store = write_store(bench.folder / "s.db", rows)
    assert bench.judge_chain(store, with_head=False).deed is None
    assert bench.judge_chain(store, with_head=True).deed == Deed.ROLLED_BACK
    fork = write_lines(bench.folder / "e.jsonl", chain((1, 2, 3, 7), stops={3: 2}))
    assert bench.judge_chain(fork, with_head=True) == Verdict(Deed.ROLLED_BACK, "line 22")
    config = bench.write_journal(entries)
    assert bench.judge_record(config, with_head=False).deed is None
    assert bench.judge_record(config, with_head=True).deed == Deed.RESEALED


def test_a_history_rewritten_without_the_key_is_forged(bench: Bench) -> None:
    rows = chain(key=STRANGER_KEY, change=quiet)
    lines, store = write_lines(bench.folder / "e.jsonl", rows), write_store(bench.folder / "s.db", rows)
    assert bench.judge_chain(lines, with_head=False) == Verdict(Deed.FORGED, "line 5")
    assert bench.judge_chain(store, with_head=True) == Verdict(Deed.FORGED, "place 5")
    entries = journal(rows)
    bundle = write_bundle(bench.folder / "b.jsonl", entries)
    assert bench.judge_record(bundle, with_head=False) == Verdict(Deed.FORGED, "line 9")
    config = bench.write_journal(entries)
    assert bench.judge_record(config, with_head=False) == Verdict(Deed.FORGED, "entry 8")


@pytest.mark.parametrize("key", [AGENT_KEY, STRANGER_KEY], ids=["the current key", "another key"])
def test_a_history_sealed_again_shows_by_an_earlier_head(bench: Bench, key: SigningKey) -> None:
    """The lesson of CVE-2023-31439: good seals over old entries are no proof that these are the old entries."""
    rows = chain(key=key, change=quiet)
    entries = journal(rows, key=key)
    early = len(chain(EPOCHS[:2]))
    for with_head, deed, at in ((False, None, None), (True, Deed.RESEALED, early - 1)):
        lines = write_lines(bench.folder / "e.jsonl", rows)
        expected = Verdict(deed, None if at is None else f"line {at}")
        assert bench.judge_chain(lines, with_head=with_head, key=key.public_key) == expected
        store = write_store(bench.folder / f"s{with_head}.db", rows)
        assert bench.judge_chain(store, with_head=with_head, key=key.public_key).deed == deed
        bundle = write_bundle(bench.folder / "b.jsonl", entries)
        assert bench.judge_record(bundle, with_head=with_head).deed == deed
        assert bench.judge_record(bench.write_journal(entries), with_head=with_head).deed == deed


def test_one_event_rewritten_breaks_the_chain_behind_it(bench: Bench) -> None:
    rows = [*TRUE.rows[:2], rehashed(TRUE.rows[2], what="another"), *TRUE.rows[3:]]
    lines = write_lines(bench.folder / "e.jsonl", rows)
    assert bench.judge_chain(lines, with_head=False) == Verdict(Deed.REMOVED, "line 4")
    bundle = write_bundle(bench.folder / "b.jsonl", journal(rows))
    assert bench.judge_record(bundle, with_head=False) == Verdict(Deed.FORGED, "line 7")


def runs_left_out(left_out: set[str], newest: int) -> Rows:
    """The true events without the newest of these runs."""
    gone = {n for epoch in left_out for n in places_of(epoch)[-newest:]}
    return [row for n, row in enumerate(TRUE.rows) if n not in gone]


def places_of(epoch: str) -> list[int]:
    return [n for n, row in enumerate(TRUE.rows) if json.loads(row)["epoch"] == epoch]


@pytest.mark.parametrize(
    ("left_out", "newest", "line"),
    [
        pytest.param({2}, 3, 21, id="the end of a run"),
        pytest.param({2}, 99, 14, id="a whole run"),
        pytest.param({1}, 99, 4, id="the first run"),
        pytest.param({1, 2}, 99, 4, id="all but the last run"),
    ],
)
def test_a_run_that_says_what_it_follows_betrays_what_was_left_out_before_it(
    bench: Bench, left_out: set[int], newest: int, line: int
) -> None:
    """Nobody needs a key to link a journal again without the events before a restart."""
    entries = journal(runs_left_out({ulid(number) for number in left_out}, newest))
    bundle = write_bundle(bench.folder / "b.jsonl", entries)
    assert bench.judge_record(bundle, with_head=False) == Verdict(Deed.REMOVED, f"line {line}")
    config = bench.write_journal(entries)
    assert bench.judge_record(config, with_head=False) == Verdict(Deed.REMOVED, f"entry {line - 1}")


def test_what_a_run_follows_may_be_lost_where_a_gap_says_so(bench: Bench) -> None:
    entries = journal(runs_left_out({ulid(2)}, 3))
    start = next(n for n, entry in enumerate(entries) if ulid(3).encode() in entry.stored.payload)
    last = len(places_of(ulid(2)))
    for to_seq, deed in ((last, None), (None, None), (last - 1, Deed.REMOVED)):
        found = GapFound(SITE, AGENT, "gap-2", ulid(2), last - 2, to_seq, final=True, reason="pruned")
        stated = linked([*entries[:start], StoredEntry(0, 0, store_body(found), ""), *entries[start:]])
        bundle = write_bundle(bench.folder / "b.jsonl", stated)
        assert bench.judge_record(bundle, with_head=False).deed == deed


def test_an_end_of_a_run_written_anew_is_forged_though_its_columns_hide_the_next_run(bench: Bench) -> None:
    last = places_of(ulid(1))[-1]
    another = rehashed(TRUE.rows[last], kind="observation", what="nothing", detail={})
    rows = [*TRUE.rows[:last], another, *TRUE.rows[last + 1 :]]
    config = bench.write_journal(journal(rows))
    with sqlite3.connect(bench.folder / "gateway.db") as connection:
        connection.execute("UPDATE journal SET event_kind = NULL")
    connection.close()
    assert bench.judge_record(config, with_head=False) == Verdict(Deed.FORGED, "entry 13")


def test_an_entry_of_the_gateways_own_shows_only_by_a_head(bench: Bench) -> None:
    entries = list(TRUE.entries)
    index = next(n for n, entry in enumerate(entries) if entry.stored.kind == "clock_stepped")
    entries[index] = changed(entries[index], store_body(ClockStepped(1)).payload)
    config = bench.write_journal(linked(entries))
    assert bench.judge_record(config, with_head=False).deed is None
    assert bench.judge_record(config, with_head=True).deed == Deed.RESEALED


def test_a_pruned_chain_is_not_blamed_for_heads_older_than_its_beginning(bench: Bench) -> None:
    starts = [n for n, row in enumerate(TRUE.rows) if b'"kind":"checkpoint"' in row]
    for start in starts:
        lines = write_lines(bench.folder / "e.jsonl", TRUE.rows[start:])
        assert bench.judge_chain(lines, with_head=True).deed is None


def test_heads_that_somebody_changed_are_forged(bench: Bench) -> None:
    lines = write_lines(bench.folder / "e.jsonl", TRUE.rows)
    bundle = write_bundle(bench.folder / "b.jsonl", TRUE.entries)
    true = bench.heads.read_text()
    bench.heads.write_text(true.replace('"position":', '"position":1', 1))
    assert bench.judge_chain(lines, with_head=True).deed == Deed.FORGED
    bench.heads.write_text(true)
    bench.gateway_key.write_text(STRANGER_KEY.public_key)
    gateway.verify(bundle, gateway.VerifyOptions(bench.heads, bench.gateway_key, False, True))
    assert bench._verdict().deed == Deed.FORGED


def test_a_file_that_holds_no_heads_is_refused(bench: Bench) -> None:
    lines = write_lines(bench.folder / "e.jsonl", TRUE.rows)
    for text in ("[]\n", '{"head":[]}\n', '{"head":"agent","site":"门"}\n', "{\n"):
        bench.heads.write_text(text)
        assert agent.verify(lines, agent.VerifyOptions(heads=bench.heads)) == Exit.REFUSED
        assert f"{bench.heads}:1:1: " in bench.capsys.readouterr().err
    bench.heads.write_text("")
    assert agent.verify(lines, agent.VerifyOptions(heads=bench.heads)) == Exit.REFUSED


def test_the_story_has_two_heads_of_each_kind() -> None:
    assert isinstance(TRUE, Story)
    assert [json.loads(line)["head"] for line in TRUE.heads] == ["journal", "agent", "journal", "agent"]
