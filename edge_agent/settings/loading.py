"""The four steps of loading, as the package describes them."""

from __future__ import annotations

from edge_agent.configfile import Document, Problem, collection_paused, in_order, validate_partly
from edge_agent.settings.broker import broker_settings
from edge_agent.settings.certificates import device_certificates
from edge_agent.settings.compile import Compiler
from edge_agent.settings.schema import AgentFile
from edge_agent.settings.settled import AgentSettings, StoreSettings


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
