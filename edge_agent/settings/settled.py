"""What loading a configuration gives: plain values. Importing this costs neither the schema nor the YAML parser.

A running agent holds these for as long as it lives, and nothing else of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.domain.plan import CellPlan

if TYPE_CHECKING:
    from edge_agent.configfile import Problem


class Delivery(StrEnum):
    """Who must have taken an event before it is settled."""

    GATEWAY = "gateway"
    BROKER = "broker"


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How to reach the broker. `path` is for WebSockets (else empty); `password` is a secret and not in its repr."""

    scheme: str
    host: str
    port: int
    path: str
    is_tls: bool
    username: str | None
    password: str | None = field(repr=False)
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files, their paths resolved: the authority (None: the system's), and the own certificate with its key."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The store's file, and the size up to which acked events are kept."""

    path: Path
    size_max_mb: int


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """A good configuration: the plan, and how to reach devices, broker and store.

    `certificates`: by URL, for encrypted links. `warnings` are no errors, but worth reading.
    """

    plan: CellPlan
    certificates: Mapping[str, CertificateFiles]
    mqtt: MqttSettings
    store: StoreSettings
    warnings: tuple[Problem, ...]
