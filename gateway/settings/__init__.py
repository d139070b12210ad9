"""The gateway's settings: one configuration file, checked completely, made into frozen values.

    load(path, environ)
      ├─ configfile.load          YAML 1.2, ${ENV}, duplicate keys
      ├─ configfile.validate      `schema`: keys, types, ranges
      ├─ connections              URLs, secrets, certificates, listening address
      └─ alerting                 people, shifts, channels and routes name each other; P1 and P2 reach somebody
           → GatewaySettings | list[Problem]

Each step reports all it finds, with file, line and column, and nothing opens a socket. Where the schema already finds
problems, what does fit is still cross-checked, so that people see all their mistakes in one go.

Source: the outside contract, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge_agent.configfile import Document, Problem, in_order, validate_partly
from edge_agent.configfile import load as load_document
from gateway.domain.access import Role
from gateway.domain.channels import Channel
from gateway.domain.notify import AlertPlan, Language
from gateway.settings.alerting import compile_alerting, compile_channels
from gateway.settings.connections import (
    EvidenceSettings,
    Findings,
    HttpSettings,
    InfluxSettings,
    MqttSettings,
    compile_evidence,
    compile_http,
    compile_influx,
    compile_journal,
    compile_mqtt,
)
from gateway.settings.schema import GatewayFile

__all__ = [
    "EvidenceSettings",
    "GatewaySettings",
    "HttpSettings",
    "InfluxSettings",
    "MqttSettings",
    "load",
    "make_settings",
]


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """A good configuration. `journal_url` is absolute; `anonymous` is the role of those who did not sign in."""

    http: HttpSettings
    mqtt: MqttSettings
    journal_url: str
    evidence: EvidenceSettings
    influxdb: InfluxSettings | None
    time_zone: ZoneInfo
    language: Language
    anonymous: Role | None
    alerting: AlertPlan
    channels: Mapping[str, Channel]


def load(path: Path, environ: Mapping[str, str]) -> GatewaySettings | list[Problem]:
    """The settings in the file at `path`, or everything that is wrong with it, in reading order. Never raises."""
    document = load_document(path, environ)
    return document if isinstance(document, list) else make_settings(document)


def make_settings(document: Document) -> GatewaySettings | list[Problem]:
    """The settings in `document`, or everything that is wrong with it, in reading order."""
    file, problems = validate_partly(GatewayFile, document)
    if file is None:
        return problems
    findings = Findings(document, problems)
    http = compile_http(file.http, findings)
    mqtt = compile_mqtt(file.mqtt, findings)
    journal_url = compile_journal(file.journal, findings)
    influxdb = None if file.influxdb is None else compile_influx(file.influxdb, findings)
    zone = _time_zone(file.time_zone, findings)
    channels = compile_channels(file, findings)
    alerting = compile_alerting(file, findings)
    if findings.problems or http is None or mqtt is None or journal_url is None or zone is None:
        return in_order(findings.problems)
    return GatewaySettings(
        http=http,
        mqtt=mqtt,
        journal_url=journal_url,
        evidence=compile_evidence(file.evidence, journal_url, document),
        influxdb=influxdb,
        time_zone=zone,
        language=file.language,
        anonymous=file.auth.anonymous,
        alerting=alerting,
        channels=channels,
    )


def _time_zone(name: str, findings: Findings) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        mend = "write an IANA name such as Asia/Shanghai"
        findings.add(("time_zone",), f'`time_zone`: "{name[:60]}" is not known on this machine', mend)
        return None
