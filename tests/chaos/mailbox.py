"""The webhook's other end: keeps what people were told, and can refuse, dawdle or break off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mood(StrEnum):
    """How messages are received."""

    GOOD = "good"
    REFUSING = "refusing"  # 503
    LOSING_ANSWERS = "losing answers"  # taken, but the connection ends before the sender learns it
    DAWDLING = "dawdling"  # answers come after the sender's patience


DAWDLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Told:
    """One message that was taken, and when (CLOCK_MONOTONIC seconds)."""

    at_s: float
    body: Mapping[str, object]


class Mailbox:
    """A webhook receiver on a free port, in threads of this process."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.mood = Mood.GOOD
        self._is_over = threading.Event()
        mailbox = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                payload = self.rfile.read(size)
                if len(payload) < size:  # its sender was killed
                    self.close_connection = True
                    return
                body = json.loads(payload)
                match mailbox.mood:
                    case Mood.REFUSING:
                        self.send_response(503)
                        self.end_headers()
                        return
                    case Mood.LOSING_ANSWERS:
                        mailbox.told.append(Told(time.monotonic(), body))
                        self.close_connection = True
                        return
                    case Mood.DAWDLING:
                        mailbox._is_over.wait(DAWDLE_S)
                        return
                    case Mood.GOOD:
                        mailbox.told.append(Told(time.monotonic(), body))
                        self.send_response(204)
                        self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop receiving."""
        self._is_over.set()
        self._server.shutdown()
        self._server.server_close()
