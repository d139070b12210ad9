"""The agent's settings: one configuration file, checked completely, compiled to a frozen plan.

Theory of operation. `load` runs four steps; each reports all it finds, with file, line and column:

    load(path, environ)
      ├─ configfile.load          YAML 1.2, ${ENV}, duplicate keys
      ├─ configfile.validate      `schema`: keys, types, ranges
      ├─ broker, certificates     URL, secrets, certificate files
      └─ compile                  names resolve, addresses do not collide, requests fit, rules have their signals
           → AgentSettings | list[Problem]

Importing this package costs neither the schema nor the parser: `load` and `compile_settings` bring them along when they are
called. A running agent leaves both to a process of its own (`app.loading`).

Nothing opens a socket. Where the schema already finds problems, the parts that do fit are still cross-checked, so that
people see all their mistakes in one go. Defaults live in the schema (`schema`, `signals`, `rules`) and nowhere else.

`report.check_report` and `report.check_data` say what a configuration means: the read plan, what each rule detects and how fast.
`editor.editor_schema` is the JSON schema that editors complete from (`config/agent.schema.json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.settings.settled import AgentSettings, Delivery, MqttSettings, StoreSettings

if TYPE_CHECKING:
    from edge_agent.configfile import Document, Problem

__all__ = ["AgentSettings", "Delivery", "MqttSettings", "StoreSettings", "compile_settings", "load"]


def load(path: Path, environ: Mapping[str, str]) -> AgentSettings | list[Problem]:
    """The settings in the file at `path`, or everything that is wrong with it, in reading order. Never raises."""
    from edge_agent.configfile import load as load_document  # noqa: PLC0415 — see above

    document = load_document(path, environ)
    return document if isinstance(document, list) else compile_settings(document)


def compile_settings(document: Document) -> AgentSettings | list[Problem]:
    """The settings in `document`, or everything that is wrong with it, in reading order."""
    from edge_agent.settings import loading  # noqa: PLC0415 — see above

    return loading.compile_settings(document)
