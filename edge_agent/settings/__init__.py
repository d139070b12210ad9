"""The agent's settings: one configuration file, checked completely, compiled to a frozen plan.

Theory of operation. `load` runs four steps; each reports all it finds, with file, line and column:

    load(path, environ)
      ├─ configfile.load          YAML 1.2, ${ENV}, duplicate keys
      ├─ configfile.validate      `schema`: keys, types, ranges
      ├─ broker, certificates     URL, secrets, certificate files
      └─ compile                  names resolve, addresses do not collide, requests fit, rules have their signals
           → AgentSettings | list[Problem]

Nothing opens a socket. Where the schema already finds problems, the parts that do fit are still cross-checked, so that
people see all their mistakes in one go. Defaults live in the schema (`schema`, `signals`, `rules`) and nowhere else.

`report.check_report` and `report.check_data` say what a configuration means: the read plan, what each rule detects and how fast.
`editor.editor_schema` is the JSON schema that editors complete from (`config/agent.schema.json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.configfile import Document, Problem, collection_paused, in_order, validate_partly
from edge_agent.configfile import load as load_document
from edge_agent.domain.plan import CellPlan
from edge_agent.settings.broker import Delivery, MqttSettings, broker_settings
from edge_agent.settings.certificates import CertificateFiles, device_certificates
from edge_agent.settings.compile import Compiler
from edge_agent.settings.schema import AgentFile

__all__ = ["AgentSettings", "Delivery", "MqttSettings", "StoreSettings", "compile_settings", "load"]


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


def load(path: Path, environ: Mapping[str, str]) -> AgentSettings | list[Problem]:
    """The settings in the file at `path`, or everything that is wrong with it, in reading order. Never raises."""
    document = load_document(path, environ)
    return document if isinstance(document, list) else compile_settings(document)


def compile_settings(document: Document) -> AgentSettings | list[Problem]:
    """The settings in `document`, or everything that is wrong with it, in reading order."""
    with collection_paused():
        return _compile(document)


def _compile(document: Document) -> AgentSettings | list[Problem]:
    file, problems = validate_partly(AgentFile, document)
    if file is None:
        return problems
    is_whole = not problems
    mqtt, mqtt_problems = broker_settings(document, file.mqtt)
    link_problems: list[Problem] = []
    certificates = device_certificates(document, file.devices, link_problems)
    compiler = Compiler(document, file)
    plan = compiler.compile(is_whole=is_whole)
    problems = in_order([*problems, *mqtt_problems, *link_problems, *compiler.problems])
    if problems or plan is None or mqtt is None:
        return problems
    store = StoreSettings(document.resolve(file.store.path), file.store.size_max_mb)
    return AgentSettings(plan, certificates, mqtt, store, tuple(in_order(compiler.warnings)))
