"""Birth certificates: what an agent tells about itself and its machines, built from the plan.

Built in one place, because `check` refuses a configuration whose certificates would not fit into one payload, and what
it measured must be what is published. A set of rule parameters is written once a machine, however many guards share it.

Source: the outside contract, section 3 (`model`, `model/{machine}`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_agent.domain.plan import CellPlan, GuardPlan, MachinePlan, RulePlan, SignalPlan
from edge_agent.wire.event import Json
from edge_agent.wire.status import AgentModel, GuardModel, MachineModel


def agent_model(plan: CellPlan, epoch: str, version: str, public_key: str) -> AgentModel:
    """The agent's own certificate; `public_key` is base64 of the raw 32 bytes."""
    return AgentModel(
        agent=plan.agent,
        epoch=epoch,
        version=version,
        labels=plan.labels,
        site_labels=plan.site_labels,
        areas=plan.areas,
        machines=tuple(plan.machines),
        devices=tuple(plan.devices),
        config_hash=plan.config_hash,
        public_key=public_key,
    )


def machine_model(
    machine: MachinePlan, signals: Sequence[SignalPlan], order: int, epoch: str
) -> MachineModel:
    """One machine's certificate; `signals` are the whole plan's, `order` is its place among the plan's machines."""
    sets = _ParameterSets()
    guards: dict[str, GuardModel] = {guard.id: _guard_model(guard, signals, sets) for guard in machine.guards}
    return MachineModel(
        machine=machine.id,
        labels=machine.labels,
        area=machine.area,
        kind=machine.kind,
        order=order,
        guards=guards,
        rules=sets.refer(machine.rules),
        detect_ms=_detect_ms(machine.rules),
        rule_parameters=sets.by_key,
        epoch=epoch,
    )


def _guard_model(guard: GuardPlan, signals: Sequence[SignalPlan], sets: _ParameterSets) -> GuardModel:
    wired = (*guard.channels, *guard.signals.values())
    return GuardModel(
        labels=guard.labels,
        kind=guard.kind.value,
        stale_ms=guard.stale_ms,
        devices=tuple(sorted({signals[index].device for index in wired})),
        rules=sets.refer(guard.rules),
        detect_ms=_detect_ms(guard.rules),
    )


def _detect_ms(rules: Sequence[RulePlan]) -> Mapping[str, int]:
    return {rule.name.value: rule.detect_ms for rule in rules}


class _ParameterSets:
    """Each distinct set of a rule's parameters once, under `RULE.N` in order of first use."""

    def __init__(self) -> None:
        self.by_key: dict[str, Mapping[str, Json]] = {}
        self._keys: dict[tuple[str, tuple[tuple[str, Json], ...]], str] = {}

    def refer(self, rules: Sequence[RulePlan]) -> Mapping[str, str]:
        """Rule name → key of its parameters."""
        return {rule.name.value: self._key(rule) for rule in rules}

    def _key(self, rule: RulePlan) -> str:
        parameters: dict[str, Json] = {
            "priority": rule.priority.value,
            "on_delay_ms": rule.on_delay_ms,
            "off_delay_ms": rule.off_delay_ms,
            "unknown_delay_ms": rule.unknown_delay_ms,
            "latch": rule.latch,
            "hold_gap_ms": rule.hold_gap_ms,
            **rule.parameters,
        }
        identity = (rule.name.value, tuple(parameters.items()))
        if identity not in self._keys:
            count = sum(1 for name, _ in self._keys if name == rule.name.value)
            self._keys[identity] = f"{rule.name.value}.{count + 1}"
            self.by_key[self._keys[identity]] = parameters
        return self._keys[identity]
