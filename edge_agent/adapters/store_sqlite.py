"""The agent's store: outbox, evidence ledger and memory in one SQLite file, so that they can never disagree.

Theory of operation. Events stand in one chain, numbered by place `n` across epochs. A commit mints `seq`, `prev`,
`hash` and `at` and writes rows and memory in one transaction (WAL, synchronous=FULL: a power cut loses nothing that
was committed). One connection, used by one thread at a time, does all of it; another process is kept out by a file
lock, another site or agent by the identity bound at creation.

    store ─┬─ event    n │ epoch seq │ hash │ payload     the payload is what travels, byte for byte
           ├─ cut      n │ at synced                      the checkpoints: where a pruned chain may begin
           ├─ epoch    epoch │ first_n                    every epoch this store ever had
           ├─ memory   key │ JSON                         what the engine and the runtime remember
           ├─ gone     first_n last_n                     places found unreadable: never sent, named in health
           └─ fact     key │ value                        identity, first, swept, acked and where that is, clean stop, losses

What goes wrong, and what comes of it:

    StoreRefusedError   opened by another agent, for another site or agent, no durable mode   (exit 2: mend and start)
    not a database      moved aside beside itself, a new store begun, said in `store_damaged`
    damaged row         `gone`, said in `store_damaged`; the rest is sent on
    damaged memory      forgotten, said in `store_damaged`: the next look at the plant finds it out
    end cut off         a lost or spoilt log, an older copy: seen by the note beside it, said in `store_damaged`
    disk full           `StoreFull`: rolled back; a ballast file is given up; the note beside the store says what waits
    any other I/O error `StoreBrokenError`: unknown what is on disk; the process ends and the next one reads
    gone from its place `StoreBrokenError`: unmounted, deleted or replaced; what is written nobody would find

Never-acked events fill the store up to `size_max_mb`, or what the disk has room for. What does not fit gets no `seq`: it
is counted, and an `outbox_overflow` says so in room kept free for it, as soon as events fit again (`store_loss`). Acked
events are pruned (`store_pruning`).

Sources: the delivery protocol §1, §2; the outside contract, sections 3 and 6.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

from edge_agent.adapters.minting import Head, Minter, Run, is_p1_raise
from edge_agent.adapters.store_file import (
    IN_MEMORY,
    START_BYTES,
    Ballast,
    FileLock,
    LogKeeper,
    StoreRefusedError,
    free_bytes,
    identity,
    is_damage,
    is_full,
    move_aside,
    open_connection,
    owner_problem,
)
from edge_agent.adapters.store_loss import LossBook
from edge_agent.adapters.store_note import StoreNote
from edge_agent.adapters.store_pruning import CHECKPOINT_SHARE, Bounds, Pruner
from edge_agent.adapters.store_rows import EventRows, event_bytes
from edge_agent.adapters.store_tables import KeyedTexts, join_losses, span_ranges, transaction
from edge_agent.adapters.ulid import mint_ulid
from edge_agent.domain.delivery import NOT_PLACED, Match, Placed, Span, skip_spans, spans
from edge_agent.domain.findings import Draft
from edge_agent.domain.units import NS_PER_S, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.ports import Committed, Loss, Pruned, Reading, StoreBrokenError, StoreFull, StoreStatus
from edge_agent.wire.chain import seed_hash
from edge_agent.wire.event import (
    AgentStarted,
    Body,
    Checkpoint,
    Event,
    Json,
    Observation,
    Position,
    StateReport,
)

CHECKPOINT_PERIOD_NS: Final = 3600 * NS_PER_S  # the outside contract, section 6

_RESERVED_BYTES: Final = 64 * 1024
"""Kept free below `size_max_mb` for `agent_started`, checkpoints and the record of an overflow."""

_ROOM_MIN_BYTES: Final = 8 * 1024 * 1024
"""Less room than this on the disk is alarmed, whatever is un-acked: twice the write-ahead log."""

_ALARM_PCT: Final = 80
"""From here on the gateway says that the store is filling up (reliability invariant I-5)."""

GONE_TOLD_MAX: Final = 128
"""Ranges of `gone` in one health, the next ones to be met: a health that were larger than a payload may be, nobody would read.
As acks move on, the ones behind them follow."""

_KEYS_TOLD_MAX: Final = 20
"""Forgotten keys of memory named in `store_damaged`; all are counted."""

_MIB: Final = 1024 * 1024


class _DiskFullError(Exception):
    """A transaction was rolled back for want of room."""


class EventStore:
    """A store, opened. Use from one thread at a time; `store_threaded` gives it a thread of its own.

    Raises `StoreRefusedError` at construction (see the module), `StoreBrokenError` from any method.
    """

    def __init__(
        self,
        path: Path,
        run: Run,
        *,
        size_max_mb: int,
        sign: Callable[[bytes], str],
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._run = run
        self._minter = Minter(run, sign)
        self._draw = draw
        self._limit_bytes = size_max_mb * _MIB - _RESERVED_BYTES
        self._path = None if path == IN_MEMORY else path
        if self._path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path) if self._path else None
        self._ballast = Ballast(path) if self._path else None
        self._note = StoreNote(path) if self._path else None
        try:
            self._db, moved_aside = self._open(path)
            self._facts, self._memory = KeyedTexts(self._db, "fact"), KeyedTexts(self._db, "memory")
            self._rows = EventRows(self._db)
            self._head = self._rows.head()
            self._prepare(path)
        except BaseException:
            self._release()
            raise
        self._acked = int(self._facts.get("acked", "0"))
        self._ever_acked = int(self._facts.get("ever_acked", "0"))
        self._pruner = Pruner(self._db, self._rows, self._facts, run.boot, size_max_mb * _MIB)
        self._unacked_bytes = self._rows.count_bytes(self._ever_acked + 1)
        self._unsealed_bytes = self._rows.count_bytes(self._pruner.last_cut)
        self._log = LogKeeper(self._db)
        self._losses = LossBook(self._facts, self._note)
        self._spoilt = self._find_spoilt_memory()
        self._damage = self._find_damage(moved_aside)
        self._identity = identity(path)
        self._checkpoint_at: MonoNs | None = (
            None  # None: one is due (a clean stop); a run's hour begins with it
        )
        self._has_begun = False
        self._take_room()

    @property
    def acked(self) -> int:
        """The furthest place kept as acked, 0 for none."""
        return self._acked

    @property
    def first(self) -> int:
        """The place at which the chain begins: 1 until something is pruned."""
        return self._pruner.first

    @property
    def tail(self) -> int:
        """The last place, 0 in a new store."""
        return self._head.n if self._head else 0

    @property
    def epoch(self) -> str:
        """The present epoch; only after `begin_epoch`."""
        assert self._head is not None, "no epoch has begun"
        return self._head.epoch

    @property
    def gone(self) -> list[Span]:
        """Places that can no longer be read."""
        return [Span(*row) for row in self._db.execute("SELECT first_n, last_n FROM gone ORDER BY first_n")]

    @property
    def memory(self) -> dict[str, Json]:
        """Everything remembered."""
        return {key: json.loads(text) for key, text in self._memory.all().items() if key not in self._spoilt}

    def begin_epoch(self, pair: WallPair) -> Committed | StoreFull:
        """A new epoch, so that no restored image or clone ever mints a key twice; seq 1 is `agent_started`."""
        is_clean = self._head is None or self._has_begun or self._facts.get("clean_stop", "0") == "1"
        after = Position(self._head.epoch, self._head.seq, self._head.hash) if self._head else None
        started = AgentStarted(after, self._run.version, self._run.config_hash, is_clean)
        bodies: list[tuple[MonoNs, Body]] = [(pair.mono, started)]
        if self._damage is not None:
            bodies.append((pair.mono, Observation("store_damaged", self._damage)))
        facts: dict[str, str | None] = {"clean_stop": "0"}
        owed = None if self._has_begun else self._losses.owed(None, pair)
        is_told = owed is not None and self._unacked_bytes < self._limit_bytes
        if owed is not None and is_told:
            bodies.append((pair.mono, owed))
            facts |= self._losses.facts(None, is_told=True, is_healed=False)
        epoch = mint_ulid(pair.utc, self._draw)
        head = self._head or Head(0, epoch, 0, seed_hash(self._run.site, self._run.agent, epoch), UtcNs(0))
        self._has_begun = True
        self._checkpoint_at = self._checkpoint_at or pair.mono
        forgotten: dict[str, Json] = dict.fromkeys(self._spoilt)
        outcome = self._write(replace(head, epoch=epoch, seq=0), bodies, forgotten, pair, facts)
        if isinstance(outcome, Committed):
            self._spoilt = frozenset()
            if is_told:
                self._losses.settle()
            return self._with_losses(outcome)
        return outcome

    def commit(
        self, drafts: Sequence[Draft], memory: Mapping[str, Json], pair: WallPair, loss: Loss | None = None
    ) -> Committed | StoreFull:
        """Mint and store the drafts, in this order, and the memory that goes with them, or nothing at all.

        A checkpoint follows in the same transaction when one of them raises a P1, or an hour or a 16th of the store
        has passed without. Drafts that find the store full are counted instead (the module says how).
        """
        assert self._head is not None, "no epoch has begun"
        bodies = [(draft.observed, draft.body) for draft in drafts]
        if bodies and self._unacked_bytes >= self._limit_bytes:
            times = [observed for observed, _ in bodies]
            loss = join_losses(loss, Loss(len(bodies), min(times), max(times)))
            bodies = []
        # what came back from a full disk together with a loss may hold a report from before it
        is_healed = loss is None and any(map(_ends_report, bodies))
        counted = self._losses.owed(loss, pair)
        is_told = counted is not None and self._unacked_bytes < self._limit_bytes
        if counted is not None and is_told:
            # never later than what waited with it: `at` does not go back
            bodies.insert(0, (min([pair.mono, *(observed for observed, _ in bodies)]), counted))
            counted = None
        facts = self._losses.facts(counted, is_told=is_told, is_healed=is_healed)
        outcome = self._write(self._head, bodies, memory, pair, facts)
        if isinstance(outcome, Committed):
            self._losses.settle()
            return self._with_losses(outcome)
        return outcome

    def _with_losses(self, outcome: Committed) -> Committed:
        return replace(outcome, is_untold=self._losses.is_untold, is_unhealed=self._losses.is_unhealed)

    def note_waiting(self, waiting: Loss, pair: WallPair) -> None:
        """These found the disk full and wait in memory: said beside the store, where a kill leaves it for the next run."""
        self._losses.endanger(waiting, pair)

    def stop_clean(self, pair: WallPair) -> Committed | StoreFull:
        """A last checkpoint, and the mark that this run stopped cleanly."""
        assert self._head, "no epoch has begun"
        self._checkpoint_at = None
        outcome = self._write(self._head, [], {}, pair, {"clean_stop": "1"})
        with self._guarding():
            self._log.checkpoint()
        return outcome

    def place(self, position: Position) -> Placed:
        """How a position lies in this store's chain. What is damaged or pruned is unknown."""
        row = self._db.execute("SELECT first_n FROM epoch WHERE epoch=?", (position.epoch,)).fetchone()
        if row is None or position.seq < 1:
            return NOT_PLACED
        n: int = row[0] + position.seq - 1
        (after,) = self._db.execute("SELECT min(first_n) FROM epoch WHERE first_n>?", row).fetchone()
        end: int = self.tail if after is None else after - 1
        if n > end:
            return Placed(Match.BEYOND, end)
        found = self._kept(n)
        if found is None:
            return NOT_PLACED
        return Placed(Match.HELD if found.hash == position.hash else Match.OTHER_HASH, n)

    def read(self, places: Sequence[int]) -> Reading:
        """The stored bytes at these ascending places, each verified by its hash.

        What cannot be read is gone from now on, unless the full disk has no room to say so: then it is asked for again.
        What was pruned meanwhile is neither.
        """
        kept = [place for place in places if place >= self.first]
        payloads: dict[int, bytes] = {}
        for span in spans(kept):
            payloads |= self._rows.read(span)
        damaged = spans(place for place in kept if place not in payloads)
        if damaged:
            try:
                with self._transaction():
                    rows = [(span.first, span.last) for span in damaged]
                    self._db.executemany("INSERT OR REPLACE INTO gone VALUES (?, ?)", rows)
            except _DiskFullError:
                damaged = []
        return Reading(payloads, tuple(damaged))

    def set_acked(self, acked: int, ever_acked: int) -> Position | None:
        """Keep how far the receiver has got, and see to the file: each beat asks for it, and no event waits behind it.

        A full disk is no reason to fail here: it is only progress.
        """
        ever_acked = max(ever_acked, self._ever_acked)
        if (acked, ever_acked) != (self._acked, self._ever_acked):
            at = self._kept(acked)
            acked_at = None if at is None else json.dumps([at.epoch, at.seq, at.hash])
            facts = {"acked": str(acked), "ever_acked": str(ever_acked), "acked_at": acked_at}
            try:
                with self._transaction():
                    self._facts.put(facts)
            except _DiskFullError:
                return self._acked_position()
            self._unacked_bytes -= self._rows.count_bytes(self._ever_acked + 1, ever_acked)
            self._acked, self._ever_acked = acked, ever_acked
        with self._guarding():
            self._log.tend()
        self._take_room()
        return self._acked_position()

    def status(self) -> StoreStatus:
        """What health says about the store. Raises `StoreBrokenError` when its file is not in its place any more."""
        if self._path is not None and identity(self._path) != self._identity:
            raise StoreBrokenError(f"{self._path}: gone from its place: unmounted, deleted or replaced")
        starts = self._db.execute("SELECT epoch, first_n FROM epoch ORDER BY first_n").fetchall()
        lost = self.gone
        told = lost if len(lost) <= GONE_TOLD_MAX else [span for span in lost if span.last > self._acked]
        ranges = (item for span in told for item in span_ranges(span, starts, self.tail))
        gone = tuple(islice(ranges, GONE_TOLD_MAX))
        return StoreStatus(
            self._rows.position(skip_spans(self.first, lost)), gone, min(100, self._filled_pct())
        )

    def prune(self, acked: int, pair: WallPair) -> Pruned:
        """A step of pruning (`store_pruning`); `acked` is how far the receiver is known to have got by now."""
        bounds = Bounds(min(acked, self._acked), self._ever_acked, self.tail)
        is_more = self._pruner.step(bounds, pair.mono)
        with self._guarding():
            self._log.committed()
        return Pruned(is_more=is_more, first=self.first)

    def close(self) -> None:
        """Close the file and let others in. Committed is committed: nothing is written here."""
        self._db.close()
        if self._note is not None:
            self._note.close()
        self._release()

    def _find_damage(self, moved_aside: str | None) -> dict[str, Json] | None:
        """What happened to the store since it was written, by the file and by the note beside it."""
        if moved_aside is not None:
            return {"moved_aside": moved_aside[:500]}
        damage: dict[str, Json] = {}
        if self._spoilt:
            keys: list[Json] = [*sorted(self._spoilt)[:_KEYS_TOLD_MAX]]
            damage |= {"forgotten": keys, "forgotten_count": len(self._spoilt)}
        place, digest = self._note.tail() if self._note else (0, "")
        held = self._kept(place) if place else None
        if place > self.tail:
            damage["lost_end"] = f"it ends at place {self.tail}; places up to {place} were in it"
        elif held is not None and held.hash != digest:
            damage["lost_end"] = f"its place {place} is another event than was written"
        return damage or None

    def _find_spoilt_memory(self) -> frozenset[str]:
        """What is remembered and says nothing any more: SQLite does not see a bit that fell over in a text."""
        return frozenset(
            str(key) for (key,) in self._db.execute("SELECT key FROM memory WHERE NOT json_valid(value)")
        )

    def _take_room(self) -> None:
        """What is to be had on the day on which there is none."""
        if self._ballast is not None and self._note is not None:
            self._note.open()
            self._ballast.fill()

    def _filled_pct(self) -> int:
        """How much of what the outbox may take up, or what the disk has room for, the never-acked events do."""
        if self._path is None:
            return self._unacked_bytes * 100 // self._limit_bytes
        room_bytes = free_bytes(self._path.parent)
        limit_bytes = min(self._limit_bytes, self._unacked_bytes + room_bytes)
        pct = self._unacked_bytes * 100 // max(1, limit_bytes)
        return max(pct, _ALARM_PCT) if room_bytes < _ROOM_MIN_BYTES else pct

    def _acked_position(self) -> Position | None:
        """What is acked, from the fact when its row cannot be read any more: only by it a gateway knows what it lost."""
        kept = self._facts.get("acked_at", "")
        is_unreadable = self._acked >= self.first and kept
        return self._kept(self._acked) or (Position(*json.loads(kept)) if is_unreadable else None)

    def _kept(self, n: int) -> Position | None:
        """What stands at place `n` of the chain as it is now."""
        return self._rows.position(n) if n >= self.first else None

    def _open(self, path: Path) -> tuple[sqlite3.Connection, str | None]:
        """`open_connection`, with the room that is kept for it when the disk is full."""
        while True:
            try:
                return open_connection(path)
            except StoreBrokenError:
                has_no_room = free_bytes(path.parent) < START_BYTES  # SQLite calls that an I/O error, too
                if not (has_no_room and self._give_room(is_start=True)):
                    raise

    def _give_room(self, *, is_start: bool) -> bool:
        return self._ballast is not None and self._ballast.release(is_start=is_start)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _prepare(self, path: Path) -> None:
        """Bind a new store to its site and agent; refuse another's. Forget what lay beyond an end that was cut off."""
        own = f"{self._run.site}/{self._run.agent}"
        owner = self._facts.get("owner", "")
        if owner and (problem := owner_problem(path, owner, own)):
            raise StoreRefusedError(problem)
        facts = {} if owner else {"owner": own}
        for key in ("acked", "ever_acked"):
            if int(self._facts.get(key, "0")) > self.tail:
                facts[key] = str(self.tail)
        ever_acked = min(int(self._facts.get("ever_acked", "0")), self.tail)
        try:
            with self._transaction():  # writes nothing where there is nothing to change: the disk may be full
                if int(self._facts.get("first", "1")) > max(1, ever_acked):
                    facts |= {"first": str(self._rows.oldest_beginning()), "swept": "0"}
                self._facts.put(facts)
                self._rows.forget_beyond(self.tail)
        except _DiskFullError as error:
            raise StoreBrokenError(f"{path}: no room on the disk to take the store up") from error

    def _write(
        self,
        head: Head,
        bodies: Sequence[tuple[MonoNs, Body]],
        memory: Mapping[str, Json],
        pair: WallPair,
        facts: Mapping[str, str | None],
    ) -> Committed | StoreFull:
        """One transaction, tried again without the ballast when the disk is full."""
        first, is_start = head.n + 1, head.seq == 0
        events: list[Event] = []
        for observed, body in bodies:
            head = self._minter.mint(head, body, observed, pair, events)
        if self._is_checkpoint_due(pair.mono) or any(map(is_p1_raise, events)):
            head = self._minter.mint(head, self._minter.checkpoint(head), pair.mono, pair, events)
        while events or memory or facts:
            try:
                self._store(first, events, memory, facts)
                break
            except _DiskFullError:
                if not self._give_room(is_start=is_start):
                    return StoreFull()
        if events:
            self._head = head
            self._damage = None
            if self._note is not None:
                self._note.note_tail(head.n, head.hash)
            added_bytes = sum(map(event_bytes, events))
            with self._guarding():
                self._log.committed(added_bytes)
            self._unacked_bytes += added_bytes
            self._unsealed_bytes += added_bytes
            if isinstance(events[-1].body, Checkpoint):
                self._checkpoint_at = pair.mono
                self._unsealed_bytes = 0
        return Committed(first, self.tail, tuple(events))

    def _store(
        self, first: int, events: list[Event], memory: Mapping[str, Json], facts: Mapping[str, str | None]
    ) -> None:
        with self._transaction():
            self._rows.insert(first, events)
            if events:
                self._facts.put({"end": json.dumps([first + len(events) - 1, events[-1].hash])})
            begun = [(event.epoch, n) for n, event in enumerate(events, first) if event.seq == 1]
            self._db.executemany("INSERT INTO epoch VALUES (?, ?)", begun)
            self._memory.put({key: _text(value) for key, value in memory.items()})
            self._facts.put(facts)

    def _is_checkpoint_due(self, now: MonoNs) -> bool:
        if self._checkpoint_at is None or now - self._checkpoint_at >= CHECKPOINT_PERIOD_NS:
            return True
        return self._unsealed_bytes >= self._limit_bytes // CHECKPOINT_SHARE

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._guarding(), transaction(self._db):
            yield

    @contextmanager
    def _guarding(self) -> Iterator[None]:
        """No room, or a failure after which nobody knows what is on disk. Raises `_DiskFullError`, `StoreBrokenError`."""
        try:
            yield
        except sqlite3.Error as error:
            if is_full(error):
                raise _DiskFullError from error
            if self._path is not None and is_damage(error):
                move_aside(self._path)  # it opened, and would open again: only writing shows it
            raise StoreBrokenError(f"the store failed: {error}") from error


def _ends_report(item: tuple[MonoNs, Body]) -> bool:
    """Whether this is the last part of a state report: all parts go into one commit."""
    _, body = item
    return isinstance(body, StateReport) and body.part == body.parts


def _text(value: Json) -> str | None:
    """A remembered value as text; None forgets."""
    return None if value is None else json.dumps(value, sort_keys=True)
