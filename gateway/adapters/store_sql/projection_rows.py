"""Rows of projections: how far each has got, and what its receiver refused."""

from __future__ import annotations

import json

from sqlalchemy import func, insert, select

from edge_agent.wire.event import Json
from gateway.adapters.store_sql.alarm_tables import CURSORS, REFUSED_LINES
from gateway.adapters.store_sql.rows_base import RowsBase
from gateway.ports import Cursor


class SqlProjectionRows(RowsBase):
    """`gateway.ports.ProjectionRows` over SQL."""

    def find_cursor(self, name: str) -> Cursor | None:
        """How far a projection has got; None before its first step."""
        row = self._connection.execute(select(CURSORS).where(CURSORS.c.name == name)).first()
        return None if row is None else Cursor(row.position, json.loads(row.state))

    def move_cursor(self, name: str, position: int, state: Json) -> None:
        """It has got to `position`, with `state`."""
        text = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
        self._upsert(CURSORS, [{"name": name, "position": position, "state": text}])

    def add_refused_line(self, line: str, reason: str) -> None:
        """Keep a line that was refused for good."""
        row = {"refused_ms": self.now_ms, "line": line, "reason": reason}
        self._connection.execute(insert(REFUSED_LINES), row)

    def count_refused_lines(self) -> int:
        """How many lines were refused for good so far."""
        found: int = self._connection.execute(select(func.count()).select_from(REFUSED_LINES)).scalar_one()
        return found
