"""From the compiled plan to the judges that watch it, in the order in which they must step.

Order of dependence: devices, machines, channel pairs (R09), guards, lost monitoring (R29, the parent), then the rules
whose raises it may hide (R01, R17, R22), the tallies of openings, and last the keeper that refreshes the memory of long occurrences.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from edge_agent.domain.device import DEVICE_KEY_PREFIX, DeviceWatch
from edge_agent.domain.findings import Findings
from edge_agent.domain.guard import GUARD_KEY_PREFIX, GuardWatch
from edge_agent.domain.machine import MACHINE_KEY_PREFIX, MachineWatch
from edge_agent.domain.node import Node
from edge_agent.domain.occurrence import Place
from edge_agent.domain.opening import OPENING_KEY_PREFIX, TALLIES, OpeningTally
from edge_agent.domain.plan import CellPlan, GuardPlan, MachinePlan, RuleName, RulePlan
from edge_agent.domain.quality import BlockState
from edge_agent.domain.rule import Rule
from edge_agent.domain.rule_bypass import BypassActive
from edge_agent.domain.rule_discrepancy import ChannelDiscrepancy
from edge_agent.domain.rule_estop import EmergencyStop
from edge_agent.domain.rule_guard_open import GuardOpenMotion
from edge_agent.domain.rule_monitoring import MonitoringLost
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_S, DeviceId, MachineId, MonoNs
from edge_agent.wire.event import Json

_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)

PERMIT_SIGNALS = ("permit_setup", "permit_open")
"""The machine's signals that can prove a permit, by their configuration names."""

HEALTHY_SUFFIX = "_ok"
"""Signals so named are 1 when healthy (the catalogue's polarity rule), like every guard channel."""

REFRESH_NS = 60 * NS_PER_S
"""The memory of open occurrences is written again this often: a killed agent loses at most so much known duration."""


class MemoryKeeper(Node):
    """Refreshes what the memory holds of open occurrences whose known duration grows."""

    __slots__ = ("_rules",)

    def __init__(self, rules: tuple[Rule, ...], start: MonoNs) -> None:
        super().__init__()
        self._rules = rules
        self.due = MonoNs(start + REFRESH_NS)

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """None: it judges nothing."""
        return ()

    def step(self, now: MonoNs, *, sampled: bool) -> bool:  # noqa: ARG002 — time is all it waits for
        """Write, and wait again."""
        for rule in self._rules:
            if rule.occurrence is not None and rule.occurrence.known_from is not None:
                rule.remember(now)
        self.due = MonoNs(now + REFRESH_NS)
        return False


@dataclass(frozen=True, slots=True)
class Assembly:
    """All judges of one agent; `nodes` in stepping order."""

    devices: Mapping[DeviceId, DeviceWatch]
    machines: Mapping[MachineId, MachineWatch]
    guards: tuple[GuardWatch, ...]
    rules: tuple[Rule, ...]
    tallies: tuple[OpeningTally, ...]
    nodes: tuple[Node, ...]

    def memory_keys(self) -> frozenset[str]:
        """The memory of devices, machines, guards and tallies that belongs here."""
        keys = [DEVICE_KEY_PREFIX + item for item in self.devices]
        keys += [MACHINE_KEY_PREFIX + item for item in self.machines]
        keys += [GUARD_KEY_PREFIX + guard.path for guard in self.guards]
        keys += [tally.key for tally in self.tallies]
        return frozenset(keys)


def live_signals(plan: CellPlan, blocks: tuple[BlockState, ...]) -> tuple[Signal, ...]:
    """Every signal of `plan`, living in its block."""
    block_of = {signal: block for block in plan.blocks for signal in block.signals}
    return tuple(Signal(signal, blocks[block_of[signal.id].id]) for signal in plan.signals)


class Assembler:
    """Builds the judges of `plan` around its signals; what an earlier run remembered is in `memory`."""

    def __init__(
        self,
        plan: CellPlan,
        signals: tuple[Signal, ...],
        blocks: tuple[BlockState, ...],
        findings: Findings,
        memory: Mapping[str, Json],
    ) -> None:
        self._plan = plan
        self._signals = signals
        self._findings = findings
        self._memory = memory
        signals_of = _grouped(signals, lambda signal: [signal.plan.device])
        self._devices = {
            device.id: DeviceWatch(
                device,
                signals_of.get(device.id, []),
                [blocks[block] for block in device.blocks],
                findings,
                memory.get(DEVICE_KEY_PREFIX + device.id),
            )
            for device in plan.devices.values()
        }
        self._machines = {
            machine.id: MachineWatch(
                machine,
                {name: signals[signal] for name, signal in machine.signals.items()},
                findings,
                memory.get(MACHINE_KEY_PREFIX + machine.id),
            )
            for machine in plan.machines.values()
        }
        self._permits = {
            machine.id: tuple(
                signals[machine.signals[name]] for name in PERMIT_SIGNALS if name in machine.signals
            )
            for machine in plan.machines.values()
        }

    def assemble(self, start: MonoNs) -> Assembly:
        """Everything, indexed and connected."""
        pairs: list[ChannelDiscrepancy] = []
        guards: list[GuardWatch] = []
        judges: list[Rule] = []
        for machine in self._plan.machines.values():
            for plan in machine.guards:
                place = Place(plan.machine, plan.id, None)
                channels = tuple(self._signals[channel] for channel in plan.channels)
                pair = self._pair(plan, place, channels)
                guard = self._guard(plan, channels, pair)
                guards.append(guard)
                if pair is not None:
                    pair.guards = (guard,)
                    pairs.append(pair)
                rules_here = self._rules_of(machine, guard, place)
                guard.judges = tuple(rules_here)
                judges.extend(rules_here)
        self._connect_machines(judges)
        monitoring = self._monitoring(guards, judges)
        tallies = tuple(tally for guard in guards if (tally := self._tally(guard)) is not None)
        rules: tuple[Rule, ...] = (*pairs, *monitoring, *judges)
        nodes: tuple[Node, ...] = (
            *self._devices.values(),
            *self._machines.values(),
            *pairs,
            *guards,
            *monitoring,
            *judges,
            *tallies,
            MemoryKeeper(rules, start),
        )
        shared: dict[tuple[BlockState, ...], tuple[BlockState, ...]] = {}
        for index, node in enumerate(nodes):
            node.index = index
            node.blocks = shared.setdefault(node.blocks, node.blocks)
        return Assembly(self._devices, self._machines, tuple(guards), rules, tallies, nodes)

    def _pair(
        self, guard: GuardPlan, place: Place, channels: tuple[Signal, ...]
    ) -> ChannelDiscrepancy | None:
        rule = _rule_named(guard.rules, RuleName.CHANNEL_DISCREPANCY)
        if rule is None or len(channels) != 2:
            return None
        return ChannelDiscrepancy(rule, place, channels, self._findings)

    def _guard(
        self, plan: GuardPlan, channels: tuple[Signal, ...], pair: ChannelDiscrepancy | None
    ) -> GuardWatch:
        return GuardWatch(
            plan,
            channels,
            locked=None if plan.locked is None else self._signals[plan.locked],
            bypass=None if plan.bypass is None else self._signals[plan.bypass],
            discrepancy=pair,
            findings=self._findings,
            memory=self._memory.get(GUARD_KEY_PREFIX + plan.path),
        )

    def _tally(self, guard: GuardWatch) -> OpeningTally | None:
        """What the PLC tallies of its openings; a counter says more than a latch."""
        wired = guard.plan.signals
        tally = next((wired[name] for name in TALLIES if name in wired), None)
        if tally is None:
            return None
        memory = self._memory.get(OPENING_KEY_PREFIX + guard.path)
        return OpeningTally(guard, self._signals[tally], self._findings, memory)

    def _rules_of(self, machine_plan: MachinePlan, guard: GuardWatch, place: Place) -> list[Rule]:
        machine = self._machines[machine_plan.id]
        rules: list[Rule] = []
        for rule in guard.plan.rules:
            match rule.name:
                case RuleName.GUARD_OPEN_MOTION if machine.has_motion_source:
                    rules.append(GuardOpenMotion(rule, place, guard, machine, self._findings))
                case RuleName.BYPASS_ACTIVE if guard.plan.bypass is not None:
                    bypass = self._signals[guard.plan.bypass]
                    permits = self._permits[machine_plan.id]
                    rules.append(
                        BypassActive(rule, place, bypass, machine, permits=permits, findings=self._findings)
                    )
                case RuleName.ESTOP:
                    healthy = self._healthy(machine_plan)
                    rules.append(EmergencyStop(rule, place, guard, healthy, self._findings))
                case _:
                    pass
        return rules

    def _healthy(self, machine: MachinePlan) -> tuple[Signal, ...]:
        """The machine's 1 = healthy signals, its guards' channels among them."""
        ids = [channel for guard in machine.guards for channel in guard.channels]
        for named in (machine.signals, *(guard.signals for guard in machine.guards)):
            ids += [signal for name, signal in named.items() if name.endswith(HEALTHY_SUFFIX)]
        return tuple(self._signals[signal] for signal in dict.fromkeys(ids))

    def _connect_machines(self, judges: list[Rule]) -> None:
        reading = [judge for judge in judges if isinstance(judge, GuardOpenMotion | BypassActive)]
        readers_of = _grouped(reading, lambda judge: [judge.place.machine])
        for machine in self._machines.values():
            machine.judges = tuple(readers_of.get(machine.plan.id, []))

    def _monitoring(self, guards: list[GuardWatch], judges: list[Rule]) -> list[MonitoringLost]:
        feeds_of = _grouped(guards, lambda guard: _devices_of(guard.judged_by))
        judges_of = _grouped(judges, lambda judge: _devices_of(judge.inputs))
        machines_of = _grouped(self._machines.values(), lambda machine: _devices_of(machine.inputs))
        rules: list[MonitoringLost] = []
        for device in self._devices.values():
            own = device.plan.id
            device.feeds = tuple(feeds_of.get(own, []))
            plan = _rule_named(device.plan.rules, RuleName.MONITORING_LOST)
            if plan is None:
                continue
            children = tuple(judges_of.get(own, []))
            rule = MonitoringLost(
                plan,
                device,
                machines_of.get(own, []),
                self._findings,
                feeds_motion_rule=any(isinstance(child, GuardOpenMotion) for child in children),
            )
            rule.children = children
            device.monitors = (rule,)
            rules.append(rule)
        return rules


def _devices_of(signals: Iterable[Signal]) -> list[DeviceId]:
    return list(dict.fromkeys(signal.plan.device for signal in signals))


def _grouped(items: Iterable[_Item], keys: Callable[[_Item], Iterable[_Key]]) -> dict[_Key, list[_Item]]:
    """Items by each of their keys, in their own order: one pass, for agents with tens of thousands of guards."""
    groups: dict[_Key, list[_Item]] = {}
    for item in items:
        for key in keys(item):
            groups.setdefault(key, []).append(item)
    return groups


def _rule_named(rules: tuple[RulePlan, ...], name: RuleName) -> RulePlan | None:
    return next((rule for rule in rules if rule.name is name), None)
