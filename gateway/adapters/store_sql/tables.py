"""All modules that declare tables, imported for `METADATA`: what migrations must produce."""

from __future__ import annotations

from gateway.adapters.store_sql import schema
from gateway.adapters.store_sql.schema import METADATA

TABLE_MODULES = (schema,)
"""Every module whose import declares tables on `METADATA`."""

__all__ = ["METADATA", "TABLE_MODULES"]
