"""`doctor`: what is wrong on this machine, the gravest first, each with its mend."""

from __future__ import annotations

import os
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent.wire.event import Json
from gateway.adapters.accounts_admin import AccountAdmin
from gateway.adapters.accounts_tables import open_accounts
from gateway.adapters.store_sql.plant_reads import load_plant, reading
from gateway.app.exits import Exit, refuse, say, say_json
from gateway.ports import AccountsUnavailable, JournalUnavailable
from gateway.settings import GatewaySettings, load

CONNECT_S = 3.0
"""A broker or database of the same plant answers in milliseconds."""
DISK_FREE_MIN_MB = 1024
"""A journal grows some MB a day; below this somebody has to look before the next holidays."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend` is empty where nothing is wrong; `is_grave`: the gateway cannot work."""

    what: str
    is_ok: bool
    mend: str = ""
    is_grave: bool = False


def doctor(config: Path, *, as_json: bool) -> Exit:
    """Check configuration, journal, accounts, broker, InfluxDB, alerting and the running gateway."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    findings = sorted(_look(settings), key=lambda finding: (finding.is_ok, not finding.is_grave))
    if as_json:
        items: list[Json] = [
            {"what": item.what, "ok": item.is_ok, "mend": item.mend or None} for item in findings
        ]
        say_json({"items": items})
    for finding in () if as_json else findings:
        mark = "ok  " if finding.is_ok else "FAIL" if finding.is_grave else "warn"
        say(f"{mark}  {finding.what}" + (f" — {finding.mend}" if finding.mend else ""))
    return Exit.OK if all(finding.is_ok or not finding.is_grave for finding in findings) else Exit.FAILED


def _look(settings: GatewaySettings) -> Iterator[Finding]:
    yield _journal(settings)
    yield from _disk(settings)
    yield _accounts(settings)
    mqtt = settings.mqtt
    yield _reach("broker", mqtt.host, mqtt.port, is_grave=True)
    if settings.influxdb is not None:
        parts = urlsplit(settings.influxdb.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        yield _reach("InfluxDB", parts.hostname or "", port, is_grave=False)
    yield Finding(
        f"alerting {'on' if settings.alerting.is_on else 'off: nobody is told of anything'}",
        settings.alerting.is_on,
        "" if settings.alerting.is_on else "add people, channels and routes to the configuration",
    )
    if settings.http.base_url.startswith("http://") and settings.http.host not in {
        "127.0.0.1",
        "::1",
        "localhost",
    }:
        yield Finding(
            "the board is served unencrypted", is_ok=False, mend="put it behind TLS, set http.base_url"
        )
    yield _running(settings)


def _journal(settings: GatewaySettings) -> Finding:
    try:
        with reading(settings.journal_url) as readers:
            position = load_plant(readers).state.position
    except JournalUnavailable as error:
        return Finding(f"journal: {error}", is_ok=False, mend="start the gateway once, or run `verify`")
    except ValueError as error:
        mend = "run `verify`; restore a backup if it fails"
        return Finding(f"journal cannot be read: {error}", is_ok=False, mend=mend, is_grave=True)
    return Finding(f"journal readable, at {position}", is_ok=True)


def _disk(settings: GatewaySettings) -> Iterator[Finding]:
    parts = urlsplit(settings.journal_url)
    if parts.scheme != "sqlite":
        return
    folder = Path(parts.path[1:]).parent
    while not folder.exists():
        folder = folder.parent
    free_mb = shutil.disk_usage(folder).free // 2**20
    is_enough = free_mb >= DISK_FREE_MIN_MB
    mend = "" if is_enough else f"free some, at least {DISK_FREE_MIN_MB} MB"
    yield Finding(f"{free_mb} MB free for the journal", is_enough, mend, is_grave=free_mb == 0)
    if not os.access(folder, os.W_OK):
        yield Finding(
            f"{folder} is not writable", is_ok=False, mend="check its owner and rights", is_grave=True
        )


def _accounts(settings: GatewaySettings) -> Finding:
    try:
        engine = open_accounts(settings.journal_url)
    except AccountsUnavailable as error:
        return Finding(str(error), is_ok=False, mend="check the folder of the journal", is_grave=True)
    admin = AccountAdmin(engine, "doctor")
    usable = [user for user in admin.users() if not user["disabled"]]
    tokens = [token for token in admin.tokens() if token["revoked_at"] is None]
    engine.dispose()
    if usable or tokens:
        return Finding(f"{len(usable)} users and {len(tokens)} tokens may sign in", is_ok=True)
    return Finding("nobody can sign in", is_ok=False, mend="`user add`, `user link` or `token create`")


def _reach(name: str, host: str, port: int, *, is_grave: bool) -> Finding:
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        mend = "start it, or correct its address"
        return Finding(
            f"{name} at {host}:{port}: {error.strerror or error}", is_ok=False, mend=mend, is_grave=is_grave
        )
    return Finding(f"{name} at {host}:{port} accepts connections", is_ok=True)


def _running(settings: GatewaySettings) -> Finding:
    host = "127.0.0.1" if settings.http.host in {"0.0.0.0", "::"} else settings.http.host  # noqa: S104 - compared
    url = f"http://{host}:{settings.http.port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_S) as answer:
            return Finding(f"gateway running, HTTP {answer.status} at {url}", is_ok=True)
    except urllib.error.HTTPError as error:
        return Finding(f"gateway running but not ready, HTTP {error.code}", is_ok=False, mend=f"see {url}")
    except OSError:
        return Finding(f"no gateway answers at {url}", is_ok=False, mend="`guardwatch-gateway run`")
