"""Rows of the agents' streams: how far each epoch is held, its gaps, and what tells the time of a boot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from edge_agent.wire.codec import DecodeError, decode
from edge_agent.wire.event import AgentStarted, Event, Position
from gateway.adapters.store_sql.rows_base import RowsBase
from gateway.adapters.store_sql.schema import BOOTS, EPOCHS, GAPS, JOURNAL, REFUSED
from gateway.domain.journal import EdgeEvent, Entry, GapClosed, GapFound
from gateway.domain.occurred import Anchor, anchor_of

EpochKey: TypeAlias = tuple[str, str, str]
"""Site, agent and epoch."""

BootKey: TypeAlias = tuple[str, str, str]
"""Site, agent and boot."""

ANCHOR_AGE_MAX_MS = 3_600_000
"""A boot's anchor is renewed after this: a quartz drifts some 100 ms in an hour, and a write an hour costs nothing."""


@dataclass(slots=True)
class _Epoch:
    """A row of `EPOCHS` in memory; `is_new` until it is written first, `is_changed` until it is written again."""

    last: Position
    last_position: int
    first_position: int
    store_position: int
    is_new: bool = False
    is_changed: bool = False


class SqlStreamRows(RowsBase):
    """`gateway.ports.StreamRows` over SQL."""

    def __init__(self, connection: Connection, now_ms: int) -> None:
        super().__init__(connection, now_ms)
        self._epochs: dict[EpochKey, _Epoch | None] = {}
        self._anchors: dict[BootKey, Anchor | None] = {}

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
                column = "filled_at_ms" if closed.filled else "final_at_ms"
                self._connection.execute(
                    update(GAPS).where(GAPS.c.gap == closed.gap).values({column: self.now_ms})
                )
            case _:
                pass

    def flush(self) -> None:
        """Write how far each epoch came."""
        super().flush()
        for (site, agent, epoch), row in self._epochs.items():
            if row is None or not row.is_changed:
                continue
            last = {"last_seq": row.last.seq, "last_hash": row.last.hash, "last_position": row.last_position}
            if row.is_new:
                own = {"site": site, "agent": agent, "epoch": epoch, "first_position": row.first_position}
                self._connection.execute(
                    insert(EPOCHS), {**own, **last, "store_position": row.store_position}
                )
            else:
                changed = update(EPOCHS).where(*_epoch_key(site, agent, epoch)).values(last)
                self._connection.execute(changed)
            row.is_new = row.is_changed = False

    def find_event(self, site: str, agent: str, epoch: str, seq: int) -> tuple[str, int] | None:
        """Hash and journal position of an event that is held, or None."""
        self.flush()
        found = self._connection.execute(
            select(JOURNAL.c.hash, JOURNAL.c.position).where(
                JOURNAL.c.site == site,
                JOURNAL.c.agent == agent,
                JOURNAL.c.epoch == epoch,
                JOURNAL.c.seq == seq,
            )
        ).first()
        return None if found is None else (found.hash, found.position)

    def last_held(self, site: str, agent: str, epoch: str) -> Position | None:
        """The last event held of one epoch."""
        row = self._epoch(site, agent, epoch)
        return None if row is None else row.last

    def newest_held(self, site: str, agent: str) -> Position | None:
        """The event of this agent that was journaled last."""
        self.flush()
        found = self._connection.execute(
            select(EPOCHS.c.epoch, EPOCHS.c.last_seq, EPOCHS.c.last_hash)
            .where(EPOCHS.c.site == site, EPOCHS.c.agent == agent)
            .order_by(EPOCHS.c.last_position.desc())
            .limit(1)
        ).first()
        return None if found is None else Position(found.epoch, found.last_seq, found.last_hash)

    def latest_epoch(self, site: str, agent: str) -> str | None:
        """The epoch of this agent that began last here."""
        self.flush()
        epoch: str | None = self._connection.execute(
            select(EPOCHS.c.epoch)
            .where(EPOCHS.c.site == site, EPOCHS.c.agent == agent)
            .order_by(EPOCHS.c.first_position.desc())
            .limit(1)
        ).scalar()
        return epoch

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
        self.flush()
        payload = self._connection.execute(
            select(JOURNAL.c.payload).where(
                JOURNAL.c.site == site,
                JOURNAL.c.agent == agent,
                JOURNAL.c.epoch == epoch,
                JOURNAL.c.seq == seq,
            )
        ).scalar()
        event = None if payload is None else decode(payload)
        return None if isinstance(event, DecodeError) else event

    def store_began(self, site: str, agent: str, epoch: str) -> int:
        """The journal position at which the store that `epoch` belongs to began here; 0 where it is not held."""
        row = self._epoch(site, agent, epoch)
        return 0 if row is None else row.store_position

    def open_gaps(self, site: str, agent: str) -> Sequence[GapFound]:
        """Gaps of this agent that are neither filled nor final."""
        rows = self._connection.execute(
            select(GAPS).where(
                GAPS.c.site == site,
                GAPS.c.agent == agent,
                GAPS.c.filled_at_ms.is_(None),
                GAPS.c.final_at_ms.is_(None),
            )
        )
        return [
            GapFound(
                site, agent, row.gap, row.epoch, row.from_seq, row.to_seq, final=False, reason=row.reason
            )
            for row in rows
        ]

    def boot_anchor(self, site: str, agent: str, boot: str) -> Anchor | None:
        """A synchronised event of this boot of the agent's machine, or None."""
        key = (site, agent, boot)
        if key not in self._anchors:
            found = self._connection.execute(
                select(BOOTS.c.at, BOOTS.c.mono_ms).where(*_boot_key(*key))
            ).first()
            self._anchors[key] = None if found is None else Anchor(found.at, found.mono_ms)
        return self._anchors[key]

    def _epoch(self, site: str, agent: str, epoch: str) -> _Epoch | None:
        key = (site, agent, epoch)
        if key not in self._epochs:
            row = self._connection.execute(select(EPOCHS).where(*_epoch_key(*key))).first()
            self._epochs[key] = None if row is None else _load_epoch(row)
        return self._epochs[key]

    def _note_epoch(self, event: Event, position: int) -> None:
        row = self._epoch(event.site, event.agent, event.epoch)
        if row is None:
            after = event.body.after if isinstance(event.body, AgentStarted) else None
            began = 0 if after is None else self.store_began(event.site, event.agent, after.epoch)
            row = _Epoch(event.position, position, position, began or position, is_new=True)
            self._epochs[event.site, event.agent, event.epoch] = row
        row.last, row.last_position, row.is_changed = event.position, position, True

    def _note_boot(self, event: Event) -> None:
        fresh = anchor_of(event)
        if fresh is None:
            return
        key = (event.site, event.agent, event.boot)
        known = self.boot_anchor(*key)
        values = {"at": fresh.at, "mono_ms": fresh.mono_ms}
        if known is None:
            row = {"site": event.site, "agent": event.agent, "boot": event.boot, **values}
            self._connection.execute(insert(BOOTS), row)
        elif fresh.mono_ms - known.mono_ms >= ANCHOR_AGE_MAX_MS:
            self._connection.execute(update(BOOTS).where(*_boot_key(*key)).values(values))
        else:
            return
        self._anchors[key] = fresh

    def _note_gap(self, found: GapFound) -> None:
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


def _epoch_key(site: str, agent: str, epoch: str) -> list[ColumnElement[bool]]:
    return [EPOCHS.c.site == site, EPOCHS.c.agent == agent, EPOCHS.c.epoch == epoch]


def _boot_key(site: str, agent: str, boot: str) -> list[ColumnElement[bool]]:
    return [BOOTS.c.site == site, BOOTS.c.agent == agent, BOOTS.c.boot == boot]


def _load_epoch(row: Row[tuple[object, ...]]) -> _Epoch:
    held = Position(row.epoch, row.last_seq, row.last_hash)
    return _Epoch(held, row.last_position, row.first_position, row.store_position)
