"""One bucket of a running InfluxDB: line protocol in, Flux answers out, by the HTTP API itself.

Tests read back what the gateway wrote without the client library that wrote it.
"""

import csv
import io
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.server_process import ServerError

_HTTP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class InfluxBucket:
    """One bucket of a running InfluxDB, with a token that may do everything."""

    url: str
    org: str
    token: str
    bucket: str

    def write_lines(self, lines: str) -> None:
        """Write line protocol, timestamps in nanoseconds."""
        query = urllib.parse.urlencode({"org": self.org, "bucket": self.bucket, "precision": "ns"})
        post(f"{self.url}/api/v2/write?{query}", lines.encode(), "text/plain; charset=utf-8", self.token)

    def query_lines(self, flux: str) -> list[dict[str, object]]:
        """Run a Flux query; one dict for each record of the answer, values converted by their declared type."""
        body = json.dumps({"query": flux, "dialect": {"header": True, "annotations": ["datatype"]}})
        query = urllib.parse.urlencode({"org": self.org})
        answer = post(f"{self.url}/api/v2/query?{query}", body.encode(), "application/json", self.token)
        return list(_parse_annotated_csv(answer.decode()))


def post(url: str, body: bytes, content_type: str, token: str | None) -> bytes:
    """POST a body; returns the answer's. Raises ServerError when it is refused, OSError when nobody answers."""
    return request(url, body, {"Content-Type": content_type}, token)


def request(url: str, body: bytes | None, headers: dict[str, str], token: str | None) -> bytes:
    """GET, or POST when there is a body. Raises as `post`."""
    if token is not None:
        headers = {**headers, "Authorization": f"Token {token}"}
    prepared = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(prepared, timeout=_HTTP_TIMEOUT_S) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as refused:
        with refused:
            raise ServerError(f"{url} answered {refused.code}: {refused.read().decode()}") from refused


_CONVERT: dict[str, Callable[[str], object]] = {
    "long": int,
    "unsignedLong": int,
    "double": float,
    "boolean": lambda text: text == "true",
}


def _parse_annotated_csv(text: str) -> Iterator[dict[str, object]]:
    """Read Flux's answer: tables, each of a `#datatype` row, a header row and records; the first column is empty."""
    types: list[str] = []
    header: list[str] | None = None
    for row in csv.reader(io.StringIO(text)):
        if not row:
            continue
        if row[0] == "#datatype":
            types, header = row[1:], None
        elif header is None:
            header = row[1:]
        else:
            cells = zip(header, types, row[1:], strict=True)
            yield {name: _CONVERT.get(kind, str)(cell) if cell else None for name, kind, cell in cells}
