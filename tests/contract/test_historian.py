"""The InfluxDB historian: what it makes of every answer, and that a real server takes exactly our lines."""

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.adapters.historian_influx import InfluxHistorian
from gateway.ports import BadLine, NotAllowed, TooLarge, Unreachable, Written
from tests.server_process import free_port
from tests.servers import InfluxBucket

NS = 1_795_327_402_000_000_000
GOOD = [f'violation,site=a,rule=r event_id="x",active=1i {NS + n}' for n in range(5)]


@dataclass
class Server:
    """A server that answers with `status`, and remembers what came."""

    url: str = ""
    status: int = 204
    body: bytes = b'{"code":"invalid","message":"because"}'
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server() -> Iterator[Server]:
    kept = Server()
    kept.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            kept.got.append((self.path, dict(self.headers.items()), content))
            kept.may_answer.wait(60)
            self.send_response(kept.status)
            body = b"" if kept.status == 204 else kept.body
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        kept.url = f"http://127.0.0.1:{http.server_port}"
        yield kept
        kept.may_answer.set()
        http.shutdown()
        thread.join()


def write(url: str, timeout_ms: int = 10_000) -> object:
    historian = InfluxHistorian(url, "plant", "guards", "token", timeout_ms)
    try:
        return historian.write(GOOD)
    finally:
        historian.close()


def test_lines_go_out_gzipped_with_nanosecond_precision_in_one_request(server: Server) -> None:
    assert write(server.url) == Written()
    ((path, headers, body),) = server.got
    assert path == "/api/v2/write?org=plant&bucket=guards&precision=ns"
    assert headers["Authorization"] == "Token token"
    assert gzip.decompress(body).decode().split("\n") == GOOD


@pytest.mark.parametrize("status", [400, 422])
def test_refused_content_is_a_bad_line_with_the_servers_reason(server: Server, status: int) -> None:
    server.status = status
    assert write(server.url) == BadLine(f"HTTP {status}: because")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_token_or_bucket_needs_a_person(server: Server, status: int) -> None:
    server.status = status
    assert write(server.url) == NotAllowed(f"HTTP {status}: because")


def test_too_much_at_once_is_told_apart(server: Server) -> None:
    server.status = 413
    assert write(server.url) == TooLarge()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_busy_or_broken_server_is_asked_again(server: Server, status: int) -> None:
    server.status = status
    assert write(server.url) == Unreachable(f"HTTP {status}: because")
    assert len(server.got) == 1


def test_an_answer_that_is_no_json_is_judged_by_its_status(server: Server) -> None:
    server.status, server.body = 400, b"<html>"
    assert isinstance(write(server.url), BadLine)


def test_a_server_that_hangs_or_is_not_there_is_unreachable(server: Server) -> None:
    server.may_answer.clear()
    assert isinstance(write(server.url, timeout_ms=300), Unreachable)
    assert isinstance(write(f"http://127.0.0.1:{free_port()}"), Unreachable)


def points(bucket: InfluxBucket) -> list[dict[str, object]]:
    """One record for each point, without what differs from query to query."""
    flux = f'from(bucket: "{bucket.bucket}") |> range(start: 0) |> filter(fn: (r) => r._field == "active")'
    return [
        {key: row[key] for key in ("_time", "_value", "site", "rule")} for row in bucket.query_lines(flux)
    ]


@pytest.mark.integration
def test_a_real_server_takes_our_lines_and_writing_again_changes_nothing(influx: InfluxBucket) -> None:
    historian = InfluxHistorian(influx.url, influx.org, influx.bucket, influx.token, 10_000)
    assert historian.write(GOOD) == Written()
    before = points(influx)
    assert len(before) == len(GOOD)
    assert historian.write(GOOD) == Written()
    assert points(influx) == before
    historian.close()


@pytest.mark.integration
def test_a_real_server_refuses_a_bad_line_and_a_bad_token_as_expected(influx: InfluxBucket) -> None:
    historian = InfluxHistorian(influx.url, influx.org, influx.bucket, influx.token, 10_000)
    assert isinstance(historian.write([GOOD[0], "violation,site=a active=one 5"]), BadLine)
    assert historian.write([GOOD[0]]) == Written()
    assert isinstance(
        historian.write([f'violation,site=a,rule=r active="text" {NS}']), BadLine
    )  # another type
    historian.close()
    for org, bucket, token in (
        (influx.org, influx.bucket, "wrong"),
        (influx.org, "no-such-bucket", influx.token),
        ("no-such-org", influx.bucket, influx.token),
    ):
        refused = InfluxHistorian(influx.url, org, bucket, token, 10_000)
        assert isinstance(refused.write(GOOD), NotAllowed)
        refused.close()
