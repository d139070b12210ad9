"""Rows of violations and alarms, inside the writer's transaction.

What is put is kept back and written by `flush`, once a row: a flood puts the same alarm several times in one batch, and
one statement for many rows costs a tenth of as many statements.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Connection, RowMapping, select, update

from edge_agent.wire.chain import canonical
from edge_agent.wire.codec import decode
from edge_agent.wire.event import Basis, Event, EventKind, Json, Priority
from edge_agent.wire.structure import plain, structure
from gateway.adapters.store_sql.alarm_tables import ALARMS, VIOLATIONS
from gateway.adapters.store_sql.rows_base import RowsBase
from gateway.adapters.store_sql.schema import JOURNAL
from gateway.domain.alarm import Alarm
from gateway.domain.book_state import Dating
from gateway.domain.instants import parse_utc_ms
from gateway.domain.occurred import rebuild, undated_of
from gateway.domain.violation import Origin, Violation
from gateway.ports import OpenRow

ACTIVE, CLEARED = "active", "cleared"
"""`state` of a violation."""

_VIOLATION_FIELDS = tuple(
    column.name for column in VIOLATIONS.columns if column.name not in ("since_ms", "state")
)
"""Columns that are fields of `Violation`; the other two follow from them."""


class SqlAlarmRows(RowsBase):
    """`gateway.ports.AlarmRows` over SQL."""

    def __init__(self, connection: Connection, now_ms: int) -> None:
        super().__init__(connection, now_ms)
        self._violations: dict[str, Violation] = {}
        self._alarms: dict[int, Alarm] = {}

    def flush(self) -> None:
        """Write what was put."""
        super().flush()
        self._write_alarms()

    def _write_alarms(self) -> None:
        self._upsert(VIOLATIONS, [violation_values(item) for item in self._violations.values()])
        self._upsert(ALARMS, [alarm_values(item) for item in self._alarms.values()])
        self._violations.clear()
        self._alarms.clear()

    def put_violation(self, violation: Violation) -> None:
        """Insert or replace one row of the violation log."""
        self._violations[violation.occurrence] = violation

    def put_alarm(self, alarm: Alarm) -> None:
        """Insert or replace one alarm."""
        self._alarms[alarm.id] = alarm

    def annotate_alarm(self, alarm: int, note: str) -> None:
        """Set the note of an alarm that is history already."""
        known = self.find_alarm(alarm)
        if known is not None:
            document = cast("dict[str, Json]", plain(known)) | {"note": note}
            values = {"document": canonical(document).decode()}
            self._connection.execute(update(ALARMS).where(ALARMS.c.id == alarm).values(values))

    def date_violations(self, dating: Dating, before: int) -> None:
        """Put right the times of violations told from `dating.position` up to, but not including, `before`."""
        self.flush()
        table, kinds = JOURNAL.c, (EventKind.VIOLATION_RAISED.value, EventKind.VIOLATION_CLEARED.value)
        told = select(table.position, table.payload, table.occurrence, table.occurred_at).where(
            table.site == dating.site,
            table.agent == dating.agent,
            table.event_kind.in_(kinds),
            table.position >= dating.position,
            table.position < before,
        )
        for row in self._connection.execute(told).all():
            event = decode(bytes(row.payload))
            undated = (
                undated_of(event, row.occurred_at, row.occurred_at) if isinstance(event, Event) else None
            )
            at = rebuild(dating.anchor, undated.mono_ms) if undated and undated.boot == dating.boot else None
            if at is None:
                continue
            known = update(VIOLATIONS).where(VIOLATIONS.c.occurrence == row.occurrence)
            is_raise = VIOLATIONS.c.raised_position == row.position
            self._connection.execute(known.where(is_raise).values(occurred_at=at, raised_at=at))
            is_clear = VIOLATIONS.c.cleared_at == row.occurred_at
            self._connection.execute(known.where(is_clear).values(cleared_at=at))

    def find_alarm(self, alarm: int) -> Alarm | None:
        """An alarm, listed or history."""
        self._write_alarms()
        row = self._connection.execute(select(ALARMS.c.document).where(ALARMS.c.id == alarm)).first()
        return None if row is None else load_alarm(row.document)

    def open_occurrences(self, site: str, agent: str) -> Sequence[OpenRow]:
        """The open violations that this agent reported, oldest first."""
        self._write_alarms()
        table = VIOLATIONS.c
        query = select(VIOLATIONS).where(
            table.site == site,
            table.agent == agent,
            table.state == ACTIVE,
            table.origin == Origin.AGENT.value,
        )
        return [
            OpenRow(
                row.occurrence,
                row.rule,
                row.machine,
                row.guard,
                row.device,
                Priority(row.priority),
                Basis(row.basis),
                row.hidden_by,
                row.raised_position,
            )
            for row in self._connection.execute(query.order_by(table.raised_position))
        ]

    def find_violation(self, occurrence: str) -> bool | None:
        """Whether the violation of this very id is open (True), cleared (False) or unknown here (None)."""
        self._write_alarms()
        query = select(VIOLATIONS.c.state).where(VIOLATIONS.c.occurrence == occurrence)
        state = self._connection.execute(query).scalar()
        return None if state is None else state == ACTIVE

    def load_violation(self, occurrence: str) -> Violation | None:
        """One row of the violation log."""
        self._write_alarms()
        query = select(VIOLATIONS).where(VIOLATIONS.c.occurrence == occurrence)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else load_violation(row)


def violation_values(violation: Violation) -> dict[str, object]:
    """A violation as a row."""
    try:
        since_ms = parse_utc_ms(violation.since)
    except ValueError:
        since_ms = violation.received_at_ms
    values: dict[str, object] = {name: plain(getattr(violation, name)) for name in _VIOLATION_FIELDS}
    values["evidence"] = json.dumps(values["evidence"], ensure_ascii=False, sort_keys=True)
    return values | {"since_ms": since_ms, "state": ACTIVE if violation.is_active else CLEARED}


def load_violation(row: RowMapping) -> Violation:
    """The inverse of `violation_values`."""
    fields: dict[str, Any] = {key: row[key] for key in row if key not in ("since_ms", "state")}
    fields["priority"] = Priority(fields["priority"])
    fields["raised_priority"] = Priority(fields["raised_priority"])
    fields["basis"] = Basis(fields["basis"])
    fields["origin"] = Origin(fields["origin"])
    fields["evidence"] = json.loads(fields["evidence"])
    return Violation(**fields)


def alarm_values(alarm: Alarm) -> dict[str, object]:
    """An alarm as a row."""
    return {
        "id": alarm.id,
        "letter": alarm.letter.value,
        "priority": alarm.priority.value,
        "site": alarm.site,
        "machine": alarm.machine,
        "guard": alarm.guard,
        "occurrence": alarm.occurrence,
        "document": canonical(cast("dict[str, Json]", plain(alarm))).decode(),
    }


def load_alarm(document: str) -> Alarm:
    """The inverse of `alarm_values`."""
    return cast("Alarm", structure(Alarm, json.loads(document), "alarm"))
