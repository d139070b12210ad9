"""InfluxDB 2 by its official client: synchronous writes of our own line protocol.

The client's batching writer is refused: with the server down it takes everything without an exception and drops it in
the end. A synchronous write says what happened, by one of three families of exceptions:

    ApiException: 400, 422 ─▶ BadLine (good lines beside the bad ones may be stored) · 413 ─▶ TooLarge
                  401, 403, 404 ─▶ NotAllowed · everything else ─▶ Unreachable
    urllib3, OSError (refused, timeout, hung) ─▶ Unreachable

Source: InfluxDB v2 write API (status codes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from gateway.ports import BadLine, NotAllowed, TooLarge, Unreachable, Written

NANOSECONDS = cast("WritePrecision", WritePrecision.NS)
"""The client's constants are text; its annotations say otherwise."""

REASON_MAX_CHARS: Final = 500
"""How much of a server's answer is kept."""


class InfluxHistorian:
    """`gateway.ports.Historian`; used by one thread at a time. Close it with `close`."""

    def __init__(self, url: str, org: str, bucket: str, token: str, timeout_ms: int) -> None:
        self._bucket = bucket
        self._org = org
        self._client = InfluxDBClient(url, token, org=org, timeout=timeout_ms, enable_gzip=True)
        self._api = self._client.write_api(write_options=SYNCHRONOUS)

    def write(self, lines: Sequence[str]) -> Written | TooLarge | BadLine | NotAllowed | Unreachable:
        """Write lines with nanosecond times (blocking). Never raises for anything outside."""
        try:
            self._api.write(self._bucket, self._org, "\n".join(lines), NANOSECONDS)
        except ApiException as error:
            return _judge(error)
        except (HTTPError, OSError) as error:
            return Unreachable(f"{type(error).__name__}: {error}"[:REASON_MAX_CHARS])
        return Written()

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()  # type: ignore[no-untyped-call]  # the client is annotated in part
        self._client.close()  # type: ignore[no-untyped-call]  # as above


def _judge(error: ApiException) -> TooLarge | BadLine | NotAllowed | Unreachable:
    reason = f"HTTP {error.status}: {error.message or error.reason}"[:REASON_MAX_CHARS]
    match error.status:
        case 400 | 422:
            return BadLine(reason)
        case 413:
            return TooLarge()
        case 401 | 403 | 404:
            return NotAllowed(reason)
        case _:
            return Unreachable(reason)
