"""The shift manager's mailbox of the demo: a webhook receiver that keeps each message as a line of a file.

`python -m simulators.mailbox PORT FILE`. It answers 204, which a sender takes as delivered, and nothing else.
"""

from __future__ import annotations

import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

BODY_MAX_BYTES = 64 * 1024
"""A message is about 1 kB; a sender of more is no gateway of ours."""


class Mailbox(HTTPServer):
    """Receives messages on a loopback port and appends them to `file`."""

    def __init__(self, port: int, file: Path) -> None:
        super().__init__(("127.0.0.1", port), _Receiver)
        self.file = file


class _Receiver(BaseHTTPRequestHandler):
    server: Mailbox

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if length > BODY_MAX_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(length)
        with self.server.file.open("ab") as output:
            output.write(body + b"\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
        """Say nothing: the messages are in the file."""


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Mailbox(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()


if __name__ == "__main__":
    main()
