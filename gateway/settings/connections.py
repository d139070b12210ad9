"""Where the gateway listens and what it connects to: addresses parsed, secrets read, files found.

Source: the outside contract, section 4.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from edge_agent.configfile import Document, PathKey, Problem, read_secret
from gateway.settings.schema import EvidenceSection, HttpSection, InfluxSection, JournalSection, MqttSection

BROKER_PORTS: Final[Mapping[str, int]] = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""Kinds of broker and their usual ports."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where to listen, and where people reach it (no slash at the end)."""

    host: str
    port: int
    base_url: str


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How to reach the broker. `path` is for WebSockets, else empty."""

    host: str
    port: int
    path: str
    is_tls: bool
    client_id: str
    username: str | None
    password: str | None = field(repr=False)
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None


@dataclass(frozen=True, slots=True)
class InfluxSettings:
    """How to reach InfluxDB."""

    url: str
    org: str
    bucket: str
    token: str = field(repr=False)
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """The file of the gateway's signing key; where heads are appended (None: nowhere), and how often."""

    key_file: Path
    heads_dir: Path | None
    every_h: int


class Findings:
    """Problems of one document, as they are found."""

    def __init__(self, document: Document, problems: Collection[Problem]) -> None:
        self.document = document
        self.problems = list(problems)

    def add(self, path: PathKey, what: str, mend: str, *, at_key: bool = False) -> None:
        """Something is wrong at `path`."""
        self.problems.append(self.document.problem(path, what, mend, at_key=at_key))

    def secret(self, path: PathKey) -> str | None:
        """The text in the file that the value at `path` names; None, and a problem, where there is none."""
        found = read_secret(self.document, path)
        if isinstance(found, Problem):
            self.problems.append(found)
            return None
        return found

    def file(self, path: PathKey, written: Path | None) -> Path | None:
        """A readable file beside the configuration; None, and a problem, where it is not."""
        if written is None:
            return None
        found = self.document.resolve(written)
        try:
            with found.open("rb"):
                return found
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
            self.add(path, f"`{path[-1]}`: {found} cannot be read: {reason}", "check path and permissions")
            return None

    def url(self, path: PathKey, text: str, schemes: Collection[str], example: str) -> SplitResult | None:
        """A URL of one of `schemes`, with host and without user; None, and a problem, where it is none."""
        try:
            parts = urlsplit(text)
            is_usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_usable = False
        if not is_usable or parts.scheme not in schemes or not text.isprintable() or " " in text:
            self.add(path, f"`{path[-1]}` is no address of this kind", f"write it like {example}")
            return None
        if parts.username is not None or parts.password is not None:
            mend = "use the keys username and password_file"
            self.add(path, f"`{path[-1]}`: a user or password stands in the URL", mend)
            return None
        return parts


def compile_http(section: HttpSection, findings: Findings) -> HttpSettings | None:
    """Where to listen."""
    try:
        parts = urlsplit(f"//{section.listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.path or parts.username is not None:
        mend = "write HOST:PORT, such as 127.0.0.1:8080"
        findings.add(("http", "listen"), f'`listen`: "{section.listen[:60]}" is no HOST:PORT', mend)
        return None
    if section.base_url is None:
        reached = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        shown = f"[{reached}]" if ":" in reached else reached
        return HttpSettings(host, port, f"http://{shown}:{port}")
    example = "https://guardwatch.plant.example"
    if findings.url(("http", "base_url"), section.base_url, ("http", "https"), example) is None:
        return None
    return HttpSettings(host, port, section.base_url.rstrip("/"))


def compile_mqtt(section: MqttSection, findings: Findings) -> MqttSettings | None:
    """How to reach the broker."""
    parts = findings.url(("mqtt", "url"), section.url, tuple(BROKER_PORTS), "mqtt://127.0.0.1:1883")
    is_web = parts is not None and parts.scheme in ("ws", "wss")
    if parts is not None and (parts.query or parts.fragment or (parts.path not in ("", "/") and not is_web)):
        mend = "write scheme://host:port and nothing more"
        findings.add(("mqtt", "url"), "`url`: the URL goes on after the port", mend)
    password = _mqtt_password(section, findings)
    is_tls = parts is not None and parts.scheme in ("mqtts", "wss")
    files = {key: getattr(section, key) for key in ("ca_file", "cert_file", "key_file")}
    for key, written in files.items():
        if written is not None and parts is not None and not is_tls:
            mend = "write mqtts:// or wss://"
            findings.add(
                ("mqtt", key), f"`{key}` needs an encrypted link, not {parts.scheme}", mend, at_key=True
            )
    if (section.cert_file is None) != (section.key_file is None):
        given, missing = ("cert_file", "key_file") if section.cert_file else ("key_file", "cert_file")
        findings.add(("mqtt", given), f"`{given}` stands without `{missing}`", f"add {missing}", at_key=True)
    found = {key: findings.file(("mqtt", key), written) for key, written in files.items()}
    if parts is None or parts.hostname is None:
        return None
    return MqttSettings(
        host=parts.hostname,
        port=parts.port or BROKER_PORTS[parts.scheme],
        path=(parts.path or "/mqtt") if is_web else "",
        is_tls=is_tls,
        client_id=section.client_id,
        username=section.username,
        password=password,
        ca_file=found["ca_file"],
        cert_file=found["cert_file"],
        key_file=found["key_file"],
    )


def _mqtt_password(section: MqttSection, findings: Findings) -> str | None:
    """The password from its file or from the environment; one that stands in the file itself is refused."""
    path = ("mqtt", "password")
    if section.password is not None and section.password_file is not None:
        findings.add(path, "`password` and `password_file` stand both", "keep one", at_key=True)
        return None
    if section.password is not None and not findings.document.is_substituted(path):
        mend = "write password: ${NAME}, or use password_file"
        findings.add(path, "a password stands in the configuration", mend, at_key=True)
    found = section.password
    if section.password_file is not None:
        found = findings.secret(("mqtt", "password_file"))
    if found is not None and section.username is None:
        findings.add(("mqtt",), "a password stands without `username`", "add username", at_key=True)
    return found


def compile_journal(section: JournalSection, findings: Findings) -> str | None:
    """The database's URL: a file's path made absolute, a server's password put in."""
    path = ("journal", "url")
    try:
        parts = urlsplit(section.url)
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    match parts.scheme:
        case "sqlite" if not parts.netloc and len(parts.path) > 1:
            if section.password_file is not None:
                findings.add(("journal", "password_file"), "a file has no password", "remove it", at_key=True)
            return f"sqlite:///{findings.document.resolve(parts.path[1:]).absolute()}"
        case "postgresql" if parts.hostname and len(parts.path) > 1:
            return _server_url(section, parts, findings)
        case _:
            mend = "write sqlite:///PATH or postgresql://USER@HOST/NAME"
            findings.add(path, "`url` names no database that can hold a journal", mend)
            return None


def _server_url(section: JournalSection, parts: SplitResult, findings: Findings) -> str | None:
    path = ("journal", "url")
    if parts.password is not None and not findings.document.is_substituted(path):
        mend = "use password_file, or write ${NAME}"
        findings.add(path, "`url`: a password stands in the configuration", mend)
        return None
    if section.password_file is None:
        return section.url
    password = findings.secret(("journal", "password_file"))
    if password is None:
        return None
    if parts.username is None or parts.password is not None:
        findings.add(path, "`url` and `password_file` do not fit", "write postgresql://USER@HOST/NAME")
        return None
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(parts.username)}:{quote(password, safe='')}@{host}").geturl()


def compile_evidence(section: EvidenceSection, journal_url: str, document: Document) -> EvidenceSettings:
    """Where heads go and the key lies: nothing here can be wrong before it is used."""
    parts = urlsplit(journal_url)
    beside = Path(parts.path[1:] + ".key") if parts.scheme == "sqlite" else document.resolve("gateway.key")
    key_file = beside if section.key_file is None else document.resolve(section.key_file)
    heads_dir = None if section.heads_dir is None else document.resolve(section.heads_dir)
    return EvidenceSettings(key_file, heads_dir, section.every_h)


def compile_influx(section: InfluxSection, findings: Findings) -> InfluxSettings | None:
    """How to reach InfluxDB."""
    parts = findings.url(("influxdb", "url"), section.url, ("http", "https"), "http://127.0.0.1:8086")
    token = findings.secret(("influxdb", "token_file"))
    if parts is None or token is None:
        return None
    return InfluxSettings(section.url.rstrip("/"), section.org, section.bucket, token, section.timeout_ms)
