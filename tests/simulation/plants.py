"""Plans for one to three agents over the one cell: the demo's configuration, its machines dealt out."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from edge_agent.domain.plan import CellPlan
from edge_agent.settings import AgentSettings, load

CONFIG: Final = Path(__file__).parents[2] / "config" / "demo" / "agent.yaml"
_PORTS: Final = {"GUARDWATCH_MQTT_PORT": "1883", "GUARDWATCH_SIM_PORT": "5020"}
_DEVICE_OF: Final = {"mixer-18": "plc-mixer", "belt-03": "plc-belt", "palletiser-01": "plc-palletiser"}

MACHINES: Final = tuple(_DEVICE_OF)

POLL_MS: Final = 500
"""How often the demo's devices are read where nothing else is said: often enough for stories, and cheap."""


def demo_plan(poll_ms: int = POLL_MS) -> CellPlan:
    """The demo's plant for one agent."""
    return plan_for("gw-01", MACHINES, poll_ms)


@cache
def plan_for(agent: str, machines: tuple[str, ...], poll_ms: int) -> CellPlan:
    """The demo's configuration with these machines only, for an agent of this name, compiled as the agent compiles it."""
    document = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    document["agent"] = agent
    document["machines"] = {name: document["machines"][name] for name in machines}
    document["devices"] = {
        _DEVICE_OF[name]: document["devices"][_DEVICE_OF[name]] | {"poll_ms": poll_ms} for name in machines
    }
    document["areas"] = {
        machine["area"]: document["areas"][machine["area"]] for machine in document["machines"].values()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.yaml"
        path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
        settings = load(path, _PORTS)
    assert isinstance(settings, AgentSettings), settings
    return settings.plan


def deal(machines: tuple[str, ...], agents: int, poll_ms: int) -> tuple[CellPlan, ...]:
    """The machines dealt out to so many agents, each getting at least one."""
    hands = [machines[place::agents] for place in range(agents)]
    return tuple(plan_for(f"gw-{number:02}", hand, poll_ms) for number, hand in enumerate(hands, 1))
