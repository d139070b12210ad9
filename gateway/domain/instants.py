"""Points in time as the outside sees them: RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso_utc(utc_ms: int) -> str:
    """RFC 3339 with milliseconds, e.g. `2026-11-22T06:03:22.412Z`."""
    moment = _EPOCH + timedelta(milliseconds=utc_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_utc_ms(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time with a zone. Raises `ValueError` for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: end it in Z or an offset")
    return (moment - _EPOCH) // timedelta(milliseconds=1)
