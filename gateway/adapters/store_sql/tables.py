"""All modules that declare tables, imported for `METADATA`: what migrations must produce."""

from __future__ import annotations

from gateway.adapters.store_sql import alarm_tables, schema
from gateway.adapters.store_sql.schema import METADATA

TABLE_MODULES = (schema, alarm_tables)
"""Every module whose import declares tables on `METADATA`."""

__all__ = ["METADATA", "TABLE_MODULES"]
