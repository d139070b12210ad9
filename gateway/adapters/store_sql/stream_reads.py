"""Reads of agents' streams outside the writer: gaps, quarantine, and what a guard was over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, Engine, func, or_, select

from gateway.adapters.store_sql.entries import load_entry
from gateway.adapters.store_sql.schema import BOOTS, GAPS, JOURNAL, QUARANTINE
from gateway.domain.listing import GapRow, Interval, Page, Query, RefusedPayload
from gateway.domain.occurred import Anchor
from gateway.domain.timeline import trace_guard

LOOK_BACK_MS = 2 * 3600 * 1000
"""Agents report every state hourly: twice that before a window tells what a guard was when it begins."""


class SqlStreamReads:
    """`gateway.ports.StreamReads` over a reading engine; every call is one short transaction (blocking)."""

    def __init__(self, readers: Engine) -> None:
        self._readers = readers

    def gaps(self) -> Mapping[tuple[str, str], Sequence[GapRow]]:
        """Every gap by site and agent, oldest first."""
        found: dict[tuple[str, str], list[GapRow]] = {}
        statement = select(GAPS).order_by(GAPS.c.found_at_ms, GAPS.c.gap)
        with self._readers.connect() as connection:
            for row in connection.execute(statement):
                gap = GapRow(
                    row.epoch, row.from_seq, row.to_seq, row.found_at_ms, row.filled_at_ms, row.final_at_ms
                )
                found.setdefault((row.site, row.agent), []).append(gap)
        return found

    def quarantine(self, query: Query) -> Page[RefusedPayload]:
        """A page of the quarantine, newest first."""
        conditions: list[ColumnElement[bool]] = [
            QUARANTINE.c[name].in_(values) for name, values in query.equal.items()
        ]
        if query.after is not None:
            conditions.append(QUARANTINE.c.id < query.after[0])
        statement = (
            select(QUARANTINE).where(*conditions).order_by(QUARANTINE.c.id.desc()).limit(query.limit + 1)
        )
        with self._readers.connect() as connection:
            rows = connection.execute(statement).all()
        items = tuple(
            RefusedPayload(
                row.id, row.received_at_ms, row.topic, row.site, row.agent, row.reason, row.payload
            )
            for row in rows[: query.limit]
        )
        return Page(items, (items[-1].id, 0) if len(rows) > query.limit else None)

    def timeline(self, guard: tuple[str, str, str], from_ms: int, to_ms: int) -> Sequence[Interval]:
        """What (site, machine, guard) was, without holes from `from_ms` to `to_ms`, never past the last word on it."""
        site, machine, name = guard
        with self._readers.connect() as connection:
            agent = connection.execute(
                select(JOURNAL.c.agent)
                .where(JOURNAL.c.site == site, JOURNAL.c.machine == machine, JOURNAL.c.guard == name)
                .order_by(JOURNAL.c.position.desc())
                .limit(1)
            ).scalar()
            whose = [JOURNAL.c.site == site, *([] if agent is None else [JOURNAL.c.agent == agent])]
            about = or_(
                (JOURNAL.c.machine == machine) & (JOURNAL.c.guard == name),
                JOURNAL.c.machine.is_(None) & JOURNAL.c.guard.is_(None),
            )
            first = _first_position(connection, from_ms - LOOK_BACK_MS)
            statement = (
                select(JOURNAL)
                .where(*whose, about, JOURNAL.c.position >= first)
                .order_by(JOURNAL.c.position)
                .execution_options(yield_per=1000)
            )
            entries = (load_entry(row) for row in connection.execute(statement))
            return trace_guard(entries, machine, name, (from_ms, to_ms), _anchors(connection, site, agent))


def _anchors(connection: Connection, site: str, agent: str | None) -> Mapping[str, Anchor]:
    """What tells the time of each boot of this agent's machine."""
    query = select(BOOTS).where(BOOTS.c.site == site, BOOTS.c.agent == agent)
    return {row.boot: Anchor(row.at, row.mono_ms) for row in connection.execute(query)}


def _first_position(connection: Connection, from_ms: int) -> int:
    """The first position recorded at `from_ms` or later: times rise with positions, so halving finds it."""
    low, high = 1, (connection.execute(select(func.max(JOURNAL.c.position))).scalar() or 0) + 1
    while low < high:
        middle = (low + high) // 2
        recorded = select(JOURNAL.c.recorded_at_ms).where(JOURNAL.c.position == middle)
        if (connection.execute(recorded).scalar() or 0) < from_ms:
            low = middle + 1
        else:
            high = middle
    return low
