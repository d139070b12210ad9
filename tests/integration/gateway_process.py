"""The real gateway as a process, and its journal as the test reads it, beside it or after it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeVar, cast

from sqlalchemy import select

from edge_agent.wire.event import Json
from gateway.adapters.store_sql.engine import open_readers
from gateway.adapters.store_sql.entries import load_entry
from gateway.adapters.store_sql.schema import JOURNAL
from gateway.domain.journal import EdgeEvent, EntryBody, FindingCleared, FindingRaised, GatewayRule
from tests.server_process import ServerProcess, free_port

BodyT = TypeVar("BodyT", bound=EntryBody)

_CONFIG = """\
http: {{listen: 127.0.0.1:{http}, base_url: "http://127.0.0.1:{http}"}}
mqtt: {{url: "mqtt://127.0.0.1:{mqtt}"}}
journal: {{url: "{journal}"}}
auth: {{anonymous: viewer}}
"""


class GatewayProcess:
    """`guardwatch-gateway run` on a folder of its own; `url` of a journal elsewhere, or SQLite in the folder; `more` configuration."""

    def __init__(self, folder: Path, mqtt_port: int, url: str | None = None, more: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.database = folder / "gateway.db"
        self.url = url or f"sqlite:///{self.database}"
        self._http = free_port()
        self.config = folder / "gateway.yaml"
        self.config.write_text(_CONFIG.format(http=self._http, mqtt=mqtt_port, journal=self.url) + more)
        self._process = ServerProcess("gateway", folder / "gateway.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def start(self) -> None:
        """Start it; returns when it has the broker and the journal."""
        self.start_as([sys.executable, "-m", "gateway", "run", str(self.config)])

    def start_as(self, command: Sequence[str]) -> None:
        """Start it by this command, which runs `python -m gateway run CONFIG` in the end."""
        self._process.start(command, env=dict(os.environ), is_ready=self.is_ready)

    def stop(self) -> None:
        """End it politely."""
        self._process.stop()

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def url_of_rest(self) -> str:
        """Where its REST interface is."""
        return f"http://127.0.0.1:{self._http}"

    def is_ready(self) -> bool:
        """Whether it says that it can work."""
        try:
            return self.get("/readyz")["status"] != "unavailable"
        except (OSError, ValueError):
            return False

    def get(self, path: str) -> dict[str, Json]:
        """A JSON document of its REST interface, whatever the status code."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http}{path}", timeout=5) as answer:
                return cast("dict[str, Json]", json.loads(answer.read()))
        except urllib.error.HTTPError as refusal:
            return cast("dict[str, Json]", json.loads(refusal.read()))

    def back_up(self, name: str) -> Path:
        """A copy of the stopped gateway's database."""
        return Path(shutil.copy(self.database, self.folder / name))

    def restore(self, backup: Path | None) -> None:
        """Put a backup in the stopped gateway's place, or (None) nothing at all."""
        for left in self.folder.glob("gateway.db*"):
            left.unlink()
        if backup is not None:
            shutil.copy(backup, self.database)

    def bodies(self, kind: type[BodyT]) -> Sequence[BodyT]:
        """All entries of one kind, in order."""
        return [body for body in self.entries() if isinstance(body, kind)]

    def entries(self) -> Sequence[EntryBody]:
        """The whole journal, in order."""
        readers = open_readers(self.url)
        with readers.connect() as connection:
            rows = connection.execute(select(JOURNAL).order_by(JOURNAL.c.position))
            entries = [load_entry(row).body for row in rows]
        readers.dispose()
        return entries

    def held(self) -> list[tuple[str, int]]:
        """Epoch and seq of every journaled event, in the order of the journal."""
        return [(body.event.epoch, body.event.seq) for body in self.bodies(EdgeEvent)]

    def open_findings(self) -> list[GatewayRule]:
        """The gateway's own findings that are not cleared."""
        over = {body.occurrence for body in self.bodies(FindingCleared)}
        return [body.rule for body in self.bodies(FindingRaised) if body.occurrence not in over]
