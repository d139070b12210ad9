"""What a configuration means, for people (`check_report`) and programs (`check_data`): no socket is opened for it.

The read plan shows each link with its load, and each request with what it reads and costs; the rules show, for every guard and device, what is judged, with
which parameters, and how long the worst case takes from the physical change to the finding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from edge_agent.domain.plan import CellPlan, ReadBlock, RulePlan
from edge_agent.settings.busload import LinkLoad, RequestLoad, link_loads, requests_per_second
from edge_agent.settings.rules import HOLD_GAP_MS, JUDGED
from edge_agent.wire.event import Json

if TYPE_CHECKING:
    from edge_agent.settings import AgentSettings


def check_report(settings: AgentSettings, *, rules: bool, plan: bool) -> str:
    """Summary, read plan and detection times as text; `rules` adds every rule with all parameters and defaults.

    `plan` False leaves out requests and detection times.
    """
    cell = settings.plan
    guards = sum(len(machine.guards) for machine in cell.machines.values())
    lines = [
        (
            f"{cell.site}/{cell.agent}: {len(cell.devices)} devices, {len(cell.machines)} machines, {guards} guards, "
            f"{len(cell.signals)} signals in {len(cell.blocks)} requests"
        ),
        f"config_hash {cell.config_hash}",
        (
            f"broker {settings.mqtt.scheme}://{settings.mqtt.host}:{settings.mqtt.port}{settings.mqtt.path}, "
            f"delivery {settings.mqtt.delivery}"
        ),
        f"store {settings.store.path}, at most {settings.store.size_max_mb} MB",
    ]
    if plan:
        lines += ["", "Requests", *_link_lines(cell), "", "Worst-case detection", *_detection_lines(cell)]
    if rules:
        lines += ["", "Rules judged by this version, and their defaults", *_rule_lines()]
        lines += ["", "Rules of this configuration", *_resolved_lines(cell)]
    return "\n".join(lines) + "\n"


def check_data(settings: AgentSettings) -> dict[str, Json]:
    """The same as JSON data, complete."""
    cell = settings.plan
    loads = link_loads(cell)
    return {
        "site": cell.site,
        "agent": cell.agent,
        "config_hash": cell.config_hash,
        "links": [_link_data(load) for load in loads],
        "reads": [_read_data(cell, request) for load in loads for request in load.requests],
        "devices": {
            device.id: {
                "url": device.url,
                "unit": device.unit,
                "poll_ms": device.poll_ms,
                "stale_ms": device.stale_ms,
                "max_rps": device.max_rps,
                "requests_per_min": round(
                    60 * requests_per_second(cell.blocks[block] for block in device.blocks)
                ),
                "rules": _rules_data(device.rules),
            }
            for device in cell.devices.values()
        },
        "guards": {
            guard.path: {
                "kind": guard.kind.value,
                "stale_ms": guard.stale_ms,
                "rules": _rules_data(guard.rules),
            }
            for machine in cell.machines.values()
            for guard in machine.guards
        },
        "defaults": {name.value: _defaults(name.value) for name in JUDGED},
        "warnings": [str(warning) for warning in settings.warnings],
    }


def _link_lines(cell: CellPlan) -> Iterator[str]:
    for load in link_loads(cell):
        yield f"  {load.url}: {_load_text(load)}"
        for device in load.devices:
            rps = requests_per_second(cell.blocks[block] for block in device.blocks)
            share = 100 * rps / device.max_rps
            yield (
                f"    {device.id}, unit {device.unit}: {_rounded(rps)} requests/s, "
                f"{float(share):.0f} % of its max_rps of {device.max_rps}"
            )
            yield from (
                _request_line(cell, request) for request in load.requests if request.block.device == device.id
            )


def _load_text(load: LinkLoad) -> str:
    text = f"{_rounded(load.rps)} requests/s"
    if load.baud is not None:
        text += f", {float(load.busy_pct):.0f} % busy at {load.baud} baud"
    elif load.busy_pct:
        text += f", {float(load.busy_pct):.0f} % of the time in pauses"
    return text


def _request_line(cell: CellPlan, request: RequestLoad) -> str:
    block = request.block
    span = f"{block.table.value}/{block.start}" + (
        f"…{block.start + block.count - 1}" if block.count > 1 else ""
    )
    names = [cell.signals[index].path or "-" for index in block.signals]
    shown = ", ".join(names[:6]) + (f", … {len(names) - 6} more" if len(names) > 6 else "")
    longer = _longer(cell, block)
    why = f" ({longer} more than needed: unlike its neighbour's answer)" if longer else ""
    return (
        f"      {block.device}/{span}  function {block.table.function_code}, every {block.poll_ms} ms, "
        f"{block.count} item{'s' if block.count > 1 else ''}{why}, {request.bytes_out} bytes out, {request.bytes_in} in: {shown}"
    )


def _longer(cell: CellPlan, block: ReadBlock) -> int:
    """How many items a request reads beyond its signals, so that its answer has a length of its own."""
    inside = [cell.signals[index] for index in block.signals]
    needed = max(signal.end for signal in inside) - min(signal.number for signal in inside)
    return block.count - needed


def _rounded(value: Fraction) -> float:
    return round(float(value), 1)


def _detection_lines(cell: CellPlan) -> Iterator[str]:
    for path, rule in _all_rules(cell):
        yield f"  {path}  {rule.name.value}  {rule.priority.value}  at most {rule.detect_ms} ms"


def _rule_lines() -> Iterator[str]:
    for name, defaults in JUDGED.items():
        given = _spoken(_defaults(name.value))
        yield f"  {defaults.id} {name.value}, for {defaults.when}"
        yield f"      {given}"
        yield f"      {defaults.why}"


def _resolved_lines(cell: CellPlan) -> Iterator[str]:
    for path, rule in _all_rules(cell):
        yield f"  {path}  {rule.name.value}: {_spoken(_rule_data(rule))}"


def _spoken(parameters: Mapping[str, Json]) -> str:
    """Parameters as the file would have them; what a rule does not have is left out."""
    return ", ".join(f"{key}: {json.dumps(value)}" for key, value in parameters.items() if value is not None)


def _all_rules(cell: CellPlan) -> Iterator[tuple[str, RulePlan]]:
    for machine in cell.machines.values():
        for guard in machine.guards:
            yield from ((guard.path, rule) for rule in guard.rules)
    for device in cell.devices.values():
        yield from ((device.id, rule) for rule in device.rules)


def _link_data(load: LinkLoad) -> dict[str, Json]:
    return {
        "url": load.url,
        "transport": load.transport,
        "devices": [device.id for device in load.devices],
        "requests_per_min": round(60 * load.rps),
        "baud": load.baud,
        "busy_pct": None if load.baud is None else math.ceil(load.busy_pct),
    }


def _read_data(cell: CellPlan, request: RequestLoad) -> dict[str, Json]:
    block = request.block
    return {
        "device": block.device,
        "unit": cell.devices[block.device].unit,
        "table": block.table.value,
        "function": block.table.function_code,
        "start": block.start,
        "count": block.count,
        "longer": _longer(cell, block),
        "bytes_out": request.bytes_out,
        "bytes_in": request.bytes_in,
        "poll_ms": block.poll_ms,
        "stale_ms": block.stale_ms,
        "signals": [cell.signals[index].path for index in block.signals],
    }


def _rules_data(rules: tuple[RulePlan, ...]) -> dict[str, Json]:
    return {rule.name.value: _rule_data(rule) for rule in rules}


def _rule_data(rule: RulePlan) -> dict[str, Json]:
    return {
        "priority": rule.priority.value,
        "on_delay_ms": rule.on_delay_ms,
        "off_delay_ms": rule.off_delay_ms,
        "unknown_delay_ms": rule.unknown_delay_ms,
        "latch": rule.latch,
        "hold_gap_ms": rule.hold_gap_ms,
        **rule.parameters,
        "detect_ms": rule.detect_ms,
    }


def _defaults(name: str) -> dict[str, Json]:
    """A rule's defaults as the file's keys name them; a delay that depends on the guard is None."""
    defaults = next(item for rule, item in JUDGED.items() if rule.value == name)
    return {
        "enabled": True,
        "priority": defaults.priority.value,
        "on_delay_ms": defaults.on_delay_ms,
        "off_delay_ms": defaults.off_delay_ms,
        "unknown_delay_ms": defaults.unknown_delay_ms,
        "latch": defaults.latch,
        "hold_gap_ms": HOLD_GAP_MS,
        **defaults.parameters,
    }
