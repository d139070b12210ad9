"""Rows of the agents' streams: how far each epoch is held, its gaps, and what tells the time of a boot.

What every batch asks of every agent is remembered from one transaction to the next (`StreamMemory`): one process writes
these tables, so what it wrote or read is so, until a transaction fails and all of it is forgotten. What is asked again
is asked by statements that are built once: building one costs more than SQLite needs to answer it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sqlalchemy import BindParameter, ColumnElement, Connection, Row, bindparam, insert, select, update

from edge_agent.wire.codec import DecodeError, decode
from edge_agent.wire.event import AgentStarted, Event, Position
from gateway.adapters.store_sql.rows_base import RowsBase
from gateway.adapters.store_sql.schema import BOOTS, EPOCHS, GAPS, JOURNAL, REFUSED
from gateway.domain.journal import EdgeEvent, Entry, GapClosed, GapFound
from gateway.domain.occurred import Anchor, anchor_of

EpochKey: TypeAlias = tuple[str, str, str]
"""Site, agent and epoch."""

AgentKey: TypeAlias = tuple[str, str]
"""Site and agent."""

BootKey: TypeAlias = tuple[str, str, str]
"""Site, agent and boot."""

ANCHOR_AGE_MAX_MS = 3_600_000
"""A boot's anchor is renewed after this: a quartz drifts some 100 ms in an hour, and a write an hour costs nothing."""


_SITE: BindParameter[str] = bindparam("site")
_AGENT: BindParameter[str] = bindparam("agent")
_EPOCH: BindParameter[str] = bindparam("epoch")

_FIND_EPOCH = select(EPOCHS).where(EPOCHS.c.site == _SITE, EPOCHS.c.agent == _AGENT, EPOCHS.c.epoch == _EPOCH)
_OF_AGENT = select(EPOCHS).where(EPOCHS.c.site == _SITE, EPOCHS.c.agent == _AGENT)
_NEWEST = _OF_AGENT.order_by(EPOCHS.c.last_position.desc()).limit(1)
_LATEST = _OF_AGENT.order_by(EPOCHS.c.first_position.desc()).limit(1)
_FIND_EVENT = select(JOURNAL.c.hash, JOURNAL.c.position, JOURNAL.c.payload).where(
    JOURNAL.c.site == _SITE,
    JOURNAL.c.agent == _AGENT,
    JOURNAL.c.epoch == _EPOCH,
    JOURNAL.c.seq == bindparam("seq"),
)
_FIND_BOOT = select(BOOTS).where(
    BOOTS.c.site == _SITE, BOOTS.c.agent == _AGENT, BOOTS.c.boot == bindparam("boot")
)
_OPEN_GAPS = select(GAPS).where(
    GAPS.c.site == _SITE, GAPS.c.agent == _AGENT, GAPS.c.filled_at_ms.is_(None), GAPS.c.final_at_ms.is_(None)
)


REMEMBERED_MAX = 20_000
"""Rows remembered: every run of an agent is an epoch of its own, so those of years would add up."""


@dataclass(slots=True)
class _Epoch:
    """A row of `EPOCHS` in memory."""

    last: Position
    last_position: int
    first_position: int
    store_position: int


@dataclass(slots=True)
class StreamMemory:
    """What the tables say of the streams that were heard lately; for the writer's transactions, one after the other."""

    epochs: dict[EpochKey, _Epoch | None] = field(default_factory=dict)
    latest: dict[AgentKey, str | None] = field(default_factory=dict)
    anchors: dict[BootKey, Anchor | None] = field(default_factory=dict)
    open_gaps: dict[AgentKey, Sequence[GapFound]] = field(default_factory=dict)

    def forget(self) -> None:
        """Everything: a transaction failed, so what it wrote here is not so."""
        for part in (self.epochs, self.latest, self.anchors, self.open_gaps):
            part.clear()

    def forget_some(self) -> None:
        """Everything, when it has become too much. Between transactions only."""
        if len(self.epochs) + len(self.anchors) > REMEMBERED_MAX:
            self.forget()


class SqlStreamRows(RowsBase):
    """`gateway.ports.StreamRows` over SQL."""

    def __init__(self, connection: Connection, now_ms: int, memory: StreamMemory) -> None:
        super().__init__(connection, now_ms)
        self._memory = memory
        self._moved: dict[EpochKey, _Epoch] = {}
        """Epochs that came further, until that is written."""

    def note_entry(self, entry: Entry) -> None:
        """Keep epochs, anchors and gaps in step."""
        super().note_entry(entry)
        match entry.body:
            case EdgeEvent(event=event):
                self._note_epoch(event, entry.position)
                self._note_boot(event)
            case GapFound() as found:
                self._note_gap(found)
            case GapClosed() as closed:
                self._memory.open_gaps.pop((closed.site, closed.agent), None)
                column = "filled_at_ms" if closed.filled else "final_at_ms"
                self._connection.execute(
                    update(GAPS).where(GAPS.c.gap == closed.gap).values({column: self.now_ms})
                )
            case _:
                pass

    def flush(self) -> None:
        """Write how far each epoch came."""
        super().flush()
        self._write_epochs()

    def _write_epochs(self) -> None:
        self._upsert(EPOCHS, [_epoch_values(key, row) for key, row in self._moved.items()])
        self._moved.clear()

    def find_event(self, site: str, agent: str, epoch: str, seq: int) -> tuple[str, int] | None:
        """Hash and journal position of an event that is held, or None."""
        found = self._find_event(site, agent, epoch, seq)
        return None if found is None else (found.hash, found.position)

    def last_held(self, site: str, agent: str, epoch: str) -> Position | None:
        """The last event held of one epoch."""
        row = self._epoch(site, agent, epoch)
        return None if row is None else row.last

    def newest_held(self, site: str, agent: str) -> Position | None:
        """The event of this agent that was journaled last."""
        self._write_epochs()
        found = self._connection.execute(_NEWEST, {"site": site, "agent": agent}).first()
        return None if found is None else Position(found.epoch, found.last_seq, found.last_hash)

    def latest_epoch(self, site: str, agent: str) -> str | None:
        """The epoch of this agent that began last here."""
        latest, key = self._memory.latest, (site, agent)
        if key not in latest:
            self._write_epochs()
            found = self._connection.execute(_LATEST, {"site": site, "agent": agent}).first()
            latest[key] = None if found is None else found.epoch
        return latest[key]

    def find_hash(self, site: str, agent: str, digest: str) -> Position | None:
        """The event held with this hash: a scan of the agent's events, for rare cases only."""
        self.flush()
        found = self._connection.execute(
            select(JOURNAL.c.epoch, JOURNAL.c.seq)
            .where(JOURNAL.c.site == site, JOURNAL.c.agent == agent, JOURNAL.c.hash == digest)
            .limit(1)
        ).first()
        return None if found is None else Position(found.epoch, found.seq, digest)

    def is_refused(self, site: str, agent: str, position: Position) -> bool:
        """Whether this very event was refused a place and lies in quarantine."""
        found = self._connection.execute(select(REFUSED.c.seq).where(*_refused_key(site, agent, position)))
        return found.first() is not None

    def note_refused(self, site: str, agent: str, position: Position) -> None:
        """Remember that this very event was refused a place."""
        row = {"site": site, "agent": agent, "epoch": position.epoch, "seq": position.seq}
        self._connection.execute(insert(REFUSED), {**row, "hash": position.hash})

    def load_event(self, site: str, agent: str, epoch: str, seq: int) -> Event | None:
        """An event that is held, decoded."""
        found = self._find_event(site, agent, epoch, seq)
        event = None if found is None else decode(found.payload)
        return None if isinstance(event, DecodeError) else event

    def _find_event(self, site: str, agent: str, epoch: str, seq: int) -> Row[str, int, bytes] | None:
        self.flush()
        key = {"site": site, "agent": agent, "epoch": epoch, "seq": seq}
        return self._connection.execute(_FIND_EVENT, key).first()

    def store_began(self, site: str, agent: str, epoch: str) -> int:
        """The journal position at which the store that `epoch` belongs to began here; 0 where it is not held."""
        row = self._epoch(site, agent, epoch)
        return 0 if row is None else row.store_position

    def open_gaps(self, site: str, agent: str) -> Sequence[GapFound]:
        """Gaps of this agent that are neither filled nor final."""
        known, key = self._memory.open_gaps, (site, agent)
        if key not in known:
            rows = self._connection.execute(_OPEN_GAPS, {"site": site, "agent": agent})
            known[key] = [
                GapFound(*key, row.gap, row.epoch, row.from_seq, row.to_seq, final=False, reason=row.reason)
                for row in rows
            ]
        return known[key]

    def boot_anchor(self, site: str, agent: str, boot: str) -> Anchor | None:
        """A synchronised event of this boot of the agent's machine, or None."""
        anchors, key = self._memory.anchors, (site, agent, boot)
        if key not in anchors:
            found = self._connection.execute(_FIND_BOOT, {"site": site, "agent": agent, "boot": boot}).first()
            anchors[key] = None if found is None else Anchor(found.at, found.mono_ms)
        return anchors[key]

    def _epoch(self, site: str, agent: str, epoch: str) -> _Epoch | None:
        epochs, key = self._memory.epochs, (site, agent, epoch)
        if key not in epochs:
            row = self._connection.execute(
                _FIND_EPOCH, {"site": site, "agent": agent, "epoch": epoch}
            ).first()
            epochs[key] = None if row is None else _load_epoch(row)
        return epochs[key]

    def _note_epoch(self, event: Event, position: int) -> None:
        key = (event.site, event.agent, event.epoch)
        row = self._epoch(*key)
        if row is None:
            after = event.body.after if isinstance(event.body, AgentStarted) else None
            began = 0 if after is None else self.store_began(event.site, event.agent, after.epoch)
            row = _Epoch(event.position, position, position, began or position)
            self._memory.epochs[key] = row
            self._memory.latest[event.site, event.agent] = event.epoch
        row.last, row.last_position = event.position, position
        self._moved[key] = row

    def _note_boot(self, event: Event) -> None:
        key = (event.site, event.agent, event.boot)
        known = self.boot_anchor(*key)
        if known is not None and event.mono_ms - known.mono_ms < ANCHOR_AGE_MAX_MS:
            return
        fresh = anchor_of(event)
        if fresh is None:
            return
        values = {"at": fresh.at, "mono_ms": fresh.mono_ms}
        if known is None:
            row = {"site": event.site, "agent": event.agent, "boot": event.boot, **values}
            self._connection.execute(insert(BOOTS), row)
        else:
            self._connection.execute(update(BOOTS).where(*_boot_key(*key)).values(values))
        self._memory.anchors[key] = fresh

    def _note_gap(self, found: GapFound) -> None:
        self._memory.open_gaps.pop((found.site, found.agent), None)
        row: dict[str, object] = {
            "gap": found.gap,
            "site": found.site,
            "agent": found.agent,
            "epoch": found.epoch,
        }
        row |= {"from_seq": found.from_seq, "to_seq": found.to_seq, "reason": found.reason}
        row |= {"found_at_ms": self.now_ms, "final_at_ms": self.now_ms if found.final else None}
        self._connection.execute(insert(GAPS), row)


def _refused_key(site: str, agent: str, position: Position) -> list[ColumnElement[bool]]:
    table = REFUSED.c
    own = [table.site == site, table.agent == agent, table.epoch == position.epoch]
    return [*own, table.seq == position.seq, table.hash == position.hash]


def _epoch_values(key: EpochKey, row: _Epoch) -> dict[str, object]:
    site, agent, epoch = key
    return {
        "site": site,
        "agent": agent,
        "epoch": epoch,
        "last_seq": row.last.seq,
        "last_hash": row.last.hash,
        "last_position": row.last_position,
        "first_position": row.first_position,
        "store_position": row.store_position,
    }


def _boot_key(site: str, agent: str, boot: str) -> list[ColumnElement[bool]]:
    return [BOOTS.c.site == site, BOOTS.c.agent == agent, BOOTS.c.boot == boot]


def _load_epoch(row: Row[tuple[object, ...]]) -> _Epoch:
    held = Position(row.epoch, row.last_seq, row.last_hash)
    return _Epoch(held, row.last_position, row.first_position, row.store_position)
