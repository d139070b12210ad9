"""Rows of notices: decisions written with the alarm, outcomes written after the send.

Decisions are kept back and written by `flush`, like all rows that a flood brings many of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    RowMapping,
    Select,
    and_,
    bindparam,
    exists,
    func,
    select,
    update,
)

from edge_agent.wire.chain import canonical
from edge_agent.wire.event import Json
from edge_agent.wire.structure import plain, structure
from gateway.adapters.store_sql.alarm_tables import NOTICES
from gateway.adapters.store_sql.rows_base import RowsBase
from gateway.domain.notice import Alert, Notice, NoticeNow, NoticeState
from gateway.domain.notify import Reason

OUTCOME_MAX_CHARS = 500
"""A receiver's answer is kept up to here: enough to see what it wants."""


_OF_ALARM = select(NOTICES).where(NOTICES.c.alarm == bindparam("alarm")).order_by(NOTICES.c.number)
_SETTLE = update(NOTICES).where(NOTICES.c.key == bindparam("settled"))
"""Built once, as all here that a flood needs for every alarm: building one costs more than SQLite needs to answer it."""

_CHANNEL: BindParameter[str] = bindparam("channel")
_NOW_MS: BindParameter[int] = bindparam("now_ms")


def _is_next() -> ColumnElement[bool]:
    """Pending for the channel, and no earlier notice of the same alarm to the same person by the same channel is."""
    earlier = NOTICES.alias("earlier")
    is_behind = exists().where(
        earlier.c.state == NoticeState.PENDING.value,
        earlier.c.alarm == NOTICES.c.alarm,
        earlier.c.person == NOTICES.c.person,
        earlier.c.channel == NOTICES.c.channel,
        earlier.c.number < NOTICES.c.number,
    )
    return and_(NOTICES.c.state == NoticeState.PENDING.value, NOTICES.c.channel == _CHANNEL, ~is_behind)


_DUE = (
    select(NOTICES)
    .where(
        _is_next(), NOTICES.c.next_try_ms + 0 <= _NOW_MS
    )  # `+ 0`: SQLite would sort all that are due instead
    .order_by(NOTICES.c.priority, NOTICES.c.number)
    .limit(bindparam("limit", type_=Integer))
)
_NEXT_TRY = select(func.min(NOTICES.c.next_try_ms)).where(_is_next(), NOTICES.c.next_try_ms > _NOW_MS)
_WITHDRAWN = select(NOTICES).where(NOTICES.c.state == NoticeState.WITHDRAWN.value).order_by(NOTICES.c.number)
_OLDEST_WITHDRAWN = select(func.min(NOTICES.c.changed_ms)).where(
    NOTICES.c.state == NoticeState.WITHDRAWN.value
)


class SqlNoticeRows(RowsBase):
    """`gateway.ports.NoticeRows` over SQL."""

    def __init__(self, connection: Connection, now_ms: int) -> None:
        super().__init__(connection, now_ms)
        self._decided: dict[str, dict[str, object]] = {}
        self._decided_of: set[int | None] = set()
        """Alarms of `_decided`."""

    def flush(self) -> None:
        """Write what was decided."""
        super().flush()
        self._write_decided()

    def _write_decided(self) -> None:
        self._insert_new(NOTICES, "key", list(self._decided.values()))
        self._decided.clear()
        self._decided_of.clear()

    def add_notice(self, notice: Notice) -> None:
        """Keep a decision; one whose key is there already changes nothing."""
        if notice.key in self._decided:
            return
        self._decided_of.add(notice.alert.alarm)
        self._decided[notice.key] = {
            "key": notice.key,
            "alarm": notice.alert.alarm,
            "person": notice.alert.to.id,
            "channel": notice.channel,
            "priority": notice.alert.priority.value,
            "reason": notice.reason.value,
            "alert": canonical(cast("dict[str, Json]", plain(notice.alert))).decode(),
            "decided_ms": notice.decided_ms,
            "not_before_ms": notice.not_before_ms,
            "state": NoticeState.PENDING.value,
            "changed_ms": notice.decided_ms,
            "attempts": 0,
            "next_try_ms": notice.not_before_ms,
            "outcome": None,
        }

    def notices_of(self, alarm: int) -> Sequence[NoticeNow]:
        """Every notice of an alarm, in the order of decision."""
        if alarm in self._decided_of:
            self._write_decided()
        return self._load(_OF_ALARM, alarm=alarm)

    def withdraw_notice(self, key: str) -> None:
        """It is over before it was told: it waits for the summary instead."""
        decided = self._decided.get(key)
        if decided is not None:
            decided |= {"state": NoticeState.WITHDRAWN.value, "changed_ms": self.now_ms}
            return
        self._settle(key, NoticeState.WITHDRAWN, None)

    def due_notices(self, channel: str, limit: int) -> Sequence[NoticeNow]:
        """Notices to send by `channel` now: the urgent first, and of one alarm and person only the earliest."""
        self._write_decided()
        return self._load(_DUE, channel=channel, now_ms=self.now_ms, limit=limit)

    def next_try_ms(self, channel: str) -> int | None:
        """When the next notice of `channel` that is not due yet can be sent; None: there is none."""
        self._write_decided()
        values = {"channel": channel, "now_ms": self.now_ms}
        found: int | None = self._connection.execute(_NEXT_TRY, values).scalar()
        return found

    def pending_channels(self) -> Sequence[str]:
        """Every channel that a pending notice is for."""
        self._write_decided()
        query = select(NOTICES.c.channel).where(NOTICES.c.state == NoticeState.PENDING.value).distinct()
        return [row.channel for row in self._connection.execute(query.order_by(NOTICES.c.channel))]

    def note_retry(self, key: str, next_try_ms: int, outcome: str) -> None:
        """An attempt failed, or nobody knows how it ended; it is tried again at `next_try_ms`."""
        self._write_decided()
        values = {"next_try_ms": next_try_ms, "outcome": outcome[:OUTCOME_MAX_CHARS]}
        query = update(NOTICES).where(NOTICES.c.key == key).values(attempts=NOTICES.c.attempts + 1, **values)
        self._connection.execute(query)

    def note_delivered(self, key: str) -> None:
        """The receiver took it."""
        self._settle(key, NoticeState.DELIVERED, None)

    def note_dead(self, key: str, outcome: str) -> None:
        """The receiver will never take it."""
        self._settle(key, NoticeState.DEAD, outcome[:OUTCOME_MAX_CHARS])

    def bury_channel(self, channel: str, outcome: str) -> None:
        """No pending notice of `channel` will ever be sent."""
        self._write_decided()
        is_pending = and_(NOTICES.c.state == NoticeState.PENDING.value, NOTICES.c.channel == channel)
        values = {"state": NoticeState.DEAD.value, "changed_ms": self.now_ms, "outcome": outcome}
        self._connection.execute(update(NOTICES).where(is_pending).values(values))

    def withdrawn_notices(self) -> Sequence[NoticeNow]:
        """Those that wait for the summary, in the order of decision."""
        self._write_decided()
        return self._load(_WITHDRAWN)

    def oldest_withdrawn_ms(self) -> int | None:
        """When the first of them was withdrawn (gateway UTC)."""
        self._write_decided()
        found: int | None = self._connection.execute(_OLDEST_WITHDRAWN).scalar()
        return found

    def note_summarised(self, key: str) -> None:
        """A summary tells of it."""
        self._settle(key, NoticeState.SUMMARISED, None)

    def shift_notices(self, leap_ms: int) -> None:
        """The gateway's time leaps: what waits goes on waiting as long as before."""
        self._write_decided()
        waiting = NOTICES.c.state.in_((NoticeState.PENDING.value, NoticeState.WITHDRAWN.value))
        times = (NOTICES.c.not_before_ms, NOTICES.c.next_try_ms, NOTICES.c.changed_ms)
        later = {column.name: column + leap_ms for column in times}
        self._connection.execute(update(NOTICES).where(waiting).values(later))

    def _settle(self, key: str, state: NoticeState, outcome: str | None) -> None:
        if key in self._decided:
            self._write_decided()
        values = {"state": state.value, "changed_ms": self.now_ms, "outcome": outcome}
        self._connection.execute(_SETTLE, {"settled": key, **values})

    def _load(self, query: Select[tuple[object, ...]], **values: str | int) -> list[NoticeNow]:
        return [load_notice(row) for row in self._connection.execute(query, values).mappings()]


def load_notice(row: RowMapping) -> NoticeNow:
    """The notice that a row holds."""
    alert = cast("Alert", structure(Alert, json.loads(row["alert"]), "alert"))
    notice = Notice(alert, row["channel"], Reason(row["reason"]), row["decided_ms"], row["not_before_ms"])
    return NoticeNow(notice, NoticeState(row["state"]), row["attempts"], row["next_try_ms"], row["outcome"])
