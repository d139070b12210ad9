"""Rows of the agents' streams: how far each epoch is held."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from edge_agent.wire.event import Position
from gateway.adapters.store_sql.rows_base import RowsBase
from gateway.adapters.store_sql.schema import EPOCHS, JOURNAL
from gateway.domain.journal import EdgeEvent, Entry


class SqlStreamRows(RowsBase):
    """`gateway.ports.StreamRows` over SQL."""

    def note_entry(self, entry: Entry) -> None:
        """Keep the derived rows in step with an entry just appended."""
        if not isinstance(entry.body, EdgeEvent):
            return
        event = entry.body.event
        key = (
            (EPOCHS.c.site == event.site) & (EPOCHS.c.agent == event.agent) & (EPOCHS.c.epoch == event.epoch)
        )
        last = {"last_seq": event.seq, "last_hash": event.hash, "last_position": entry.position}
        if self._connection.execute(update(EPOCHS).where(key).values(last)).rowcount == 0:
            row = {"site": event.site, "agent": event.agent, "epoch": event.epoch, **last}
            row |= {"first_position": entry.position, "store_position": entry.position, "is_followed": False}
            self._connection.execute(insert(EPOCHS), row)

    def find_event(self, site: str, agent: str, epoch: str, seq: int) -> tuple[str, int] | None:
        """Hash and journal position of an event that is held, or None."""
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
        found = self._connection.execute(
            select(EPOCHS.c.last_seq, EPOCHS.c.last_hash).where(
                EPOCHS.c.site == site, EPOCHS.c.agent == agent, EPOCHS.c.epoch == epoch
            )
        ).first()
        return None if found is None else Position(epoch, found.last_seq, found.last_hash)

    def newest_held(self, site: str, agent: str) -> Position | None:
        """The event of this agent that was journaled last."""
        found = self._connection.execute(
            select(EPOCHS.c.epoch, EPOCHS.c.last_seq, EPOCHS.c.last_hash)
            .where(EPOCHS.c.site == site, EPOCHS.c.agent == agent)
            .order_by(EPOCHS.c.last_position.desc())
            .limit(1)
        ).first()
        return None if found is None else Position(found.epoch, found.last_seq, found.last_hash)
