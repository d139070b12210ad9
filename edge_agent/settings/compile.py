"""From the validated file to the frozen plan, with every cross-check; all problems at once.

    file ──wiring──▶ machines, guards, signals by name ──points──▶ SignalPlans ──plan_reads──▶ blocks
                                                             │                                    │
                                                             └──judging──▶ RulePlans ─────────────┴──▶ CellPlan

Each step goes on after a problem and leaves out what it could not make, so that one mistake does not hide the next; only
what would be a mere consequence of an earlier problem is kept silent. A plan exists only without problems.

Source: the outside contract, section 2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Final

from edge_agent.configfile import Document, Problem
from edge_agent.domain.plan import (
    CellPlan,
    DevicePlan,
    GuardPlan,
    HeartbeatPlan,
    MachinePlan,
    PresencePlan,
    ReadBlock,
    RulePlan,
)
from edge_agent.domain.readlength import vary_lengths
from edge_agent.domain.readplan import CHANNEL_NAMES, ReadLimits, plan_reads
from edge_agent.domain.units import AgentId, BlockId, DeviceId, GuardId, MachineId, SignalId, SiteId
from edge_agent.settings import checks
from edge_agent.settings.busload import link_loads, load_problems
from edge_agent.settings.checks import stale_ms, written_keys
from edge_agent.settings.judging import GuardInputs, Judging
from edge_agent.settings.limits import check_payloads, check_rates
from edge_agent.settings.points import Owner, Points
from edge_agent.settings.profile_use import Profiles
from edge_agent.settings.reading import (
    connection_problems,
    read_limits,
    request_problems,
    rtu_lines,
    torn_channels,
)
from edge_agent.settings.schema import AgentFile, DeviceSection, Labels
from edge_agent.settings.signals import GUARD_SIGNALS, MACHINE_SIGNALS, MOTION_SOURCES, Meaning, PointRow
from edge_agent.settings.spot import Spot
from edge_agent.settings.wiring import WiredGuard, WiredMachine, Wiring, all_guards, overrides

DEVICE_SIGNALS: Mapping[str, Meaning] = {
    "heartbeat": Meaning.NUMBER,
    "cfg_crc": Meaning.NUMBER,
    "op_mode": Meaning.WORD,
    "force_active": Meaning.BIT,
    "uptime_s": Meaning.NUMBER,
}

_NO_SIGNALS: Final[Mapping[str, SignalId]] = {}
"""Of guards that have nothing but channels: one object for all of them."""


@dataclass(slots=True)
class _Named:
    """Signal ids by name, of one machine or guard; `channels` are a guard's."""

    signals: dict[str, SignalId] = field(default_factory=dict)
    channels: tuple[SignalId, ...] = ()


class Compiler:
    """One compilation: `compile` once, then look at `problems` and `warnings`."""

    def __init__(self, document: Document, file: AgentFile) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._document = document
        self._profiles = Profiles(document, file.devices)
        self._file = file = self._profiles.applied_to(file)
        self._urls: dict[str, str] = {}
        self._heartbeats: dict[str, SignalId] = {}
        self._presence: dict[str, tuple[PresencePlan, ...]] = {}
        polls_ms = {name: device.poll_ms for name, device in file.devices.items()}
        self._points = Points(written_keys(document, "devices"), polls_ms, self._profiles)
        self._machines: dict[str, WiredMachine] = {}
        self._rows: tuple[PointRow, ...] = ()
        self._labels: dict[tuple[str, str], Mapping[str, str]] = {}
        self._machine_signals: dict[str, _Named] = {}
        self._guard_signals: dict[tuple[str, str], _Named] = {}
        self._home: dict[SignalId, ReadBlock] = {}
        self._blocks_of: dict[str, list[ReadBlock]] = {}

    def compile(self, *, is_whole: bool) -> CellPlan | None:
        """The plan, or None with `problems`. `is_whole` False: parts were cut out of the file, check what is left."""
        self._urls = checks.links(self._document, self._file.devices, self.problems)
        wiring = Wiring(self._document)
        self._machines = wiring.collect(self._file)
        self._rows = wiring.rows
        self._collect_points()
        self._points.check_overlaps()
        self._points.check_one_based()
        self._points.check_modules({name: device.presence for name, device in self._file.devices.items()})
        areas = None if self._file.areas is None else written_keys(self._document, "areas")
        self.problems += checks.machine_problems(self._machines, areas)
        self.warnings += checks.machine_warnings(self._machines)
        self.problems += [*wiring.problems, *self._points.problems]
        self.problems += self._profiles.problems
        self.warnings += [*self._points.warnings, *self._profiles.warnings]
        if not is_whole:
            return None
        limits = read_limits(self._file.devices, self._profiles.avoided())
        blocks = plan_reads(self._points.signals, limits)
        blocks = vary_lengths(blocks, limits, rtu_lines(self._file.devices, self._urls))
        self._points.settle_rates(blocks)
        for block in blocks:
            self._blocks_of.setdefault(block.device, []).append(block)
            self._home.update(dict.fromkeys(block.signals, block))
        self._check_blocks(blocks, limits)
        rules = self._judge()
        plan = self._plan(blocks, rules)
        self.problems += check_rates(self._document, plan)
        if len(self._urls) == len(plan.devices):
            problems, warnings = load_problems(self._document, link_loads(plan))
            self.problems += problems
            self.warnings += warnings
        if not self.problems:
            self.problems += check_payloads(self._document, plan)
        return None if self.problems else plan

    def _collect_points(self) -> None:
        for name, device in self._file.devices.items():
            spot = Spot(self._document, ("devices", name))
            for signal, meaning in DEVICE_SIGNALS.items():
                section = getattr(device, signal)
                if section is not None:
                    at = spot.at(signal)
                    index = self._points.add(at, section, signal, meaning, Owner(), device=DeviceId(name))
                    if device.heartbeat is section and index is not None:
                        self._heartbeats[name] = index
                        poll_ms = self._points.signals[index].poll_ms
                        self.problems += checks.heartbeat_problems(at, device.heartbeat, poll_ms)
            self._presence[name] = tuple(self._proofs(spot, DeviceId(name), device))
        for machine in self._machines.values():
            owner = Owner(MachineId(machine.id))
            named = self._machine_signals.setdefault(machine.id, _Named())
            for signal, wire in machine.signals.items():
                index = self._points.add(wire.spot, wire.section, signal, MACHINE_SIGNALS[signal], owner)
                if index is not None:
                    named.signals[signal] = index
        for machine, guard in all_guards(self._machines):
            self._guard_signals[machine.id, guard.id] = self._guard_points(machine, guard)

    def _proofs(self, spot: Spot, device: DeviceId, section: DeviceSection) -> Iterator[PresencePlan]:
        for name, proof in section.presence.items():
            at = spot.at("presence", name)
            signal = f"presence/{name}"
            index = self._points.add(at, proof.as_signal(), signal, Meaning.PROOF, Owner(), device=device)
            if index is not None:
                yield PresencePlan(name, index)

    def _guard_points(self, machine: WiredMachine, guard: WiredGuard) -> _Named:
        owner, named = Owner(MachineId(machine.id), GuardId(intern(guard.id))), _Named()
        for name in CHANNEL_NAMES:
            if (wire := guard.channels.get(name)) is not None:
                index = self._points.add(wire.spot, wire.section, name, Meaning.BIT, owner)
                named.channels += () if index is None else (index,)
        for name, wire in guard.signals.items():
            index = self._points.add(wire.spot, wire.section, name, GUARD_SIGNALS[name], owner)
            if index is not None:
                named.signals[name] = index
        return named

    def _judge(self) -> dict[tuple[str, str], tuple[RulePlan, ...]]:
        """The rules of each guard, by machine and guard."""
        judging = Judging()
        found: dict[tuple[str, str], tuple[RulePlan, ...]] = {}
        for machine, guard in all_guards(self._machines):
            rules = judging.guard_rules(guard.rules, self._inputs(machine, guard), guard.overrides)
            if not rules and guard.channels:
                what, mend = (
                    f"no rule judges the guard {guard.id}",
                    "see `check --rules` for what each kind needs",
                )
                self.warnings.append(guard.spot.problem(what, mend, at_key=True))
            found[machine.id, guard.id] = rules
        for machine in self._machines.values():
            own = {
                name: rule for name, rule in machine.overrides.items() if name not in ("estop", "pull_cord")
            }
            judging.warn_unjudged(machine.spot.at("rules"), own)
        for name, device in self._file.devices.items():
            spot = Spot(self._document, ("devices", name, "rules"))
            blocks = self._blocks_of.get(name, [])
            poll_ms = max((block.poll_ms for block in blocks), default=device.poll_ms)
            stale = max((block.stale_ms for block in blocks), default=stale_ms(device))
            if device.heartbeat is not None and (counter := self._heartbeats.get(name)) is not None:
                stands_ms = device.heartbeat.stale_ms + self._points.signals[counter].poll_ms
                stale = max(stale, stands_ms)
            found["", name] = judging.device_rules(spot, poll_ms, stale, overrides(device.rules))
        self.problems += judging.problems
        self.warnings += judging.warnings
        return found

    def _inputs(self, machine: WiredMachine, guard: WiredGuard) -> GuardInputs:
        signals, named = self._points.signals, self._guard_signals[machine.id, guard.id]
        of_machine = self._machine_signals[machine.id].signals
        by_name = {name: signals[index] for name, index in named.signals.items()}
        return GuardInputs(
            kind=guard.kind,
            design_stop_ms=guard.design_stop_ms,
            channels=tuple(signals[index] for index in named.channels),
            locked=by_name.get("locked"),
            bypass=by_name.get("bypass"),
            motion=tuple(signals[of_machine[name]] for name in MOTION_SOURCES if name in of_machine),
        )

    def _check_blocks(self, blocks: tuple[ReadBlock, ...], limits: Mapping[DeviceId, ReadLimits]) -> None:
        signals, spots = tuple(self._points.signals), tuple(self._points.spots)
        self.problems += request_problems(self._document, blocks, limits, signals, spots)
        self.problems += self._profiles.trespasses(blocks)
        self.problems += connection_problems(self._document, self._file.devices, self._urls)
        for machine, guard in all_guards(self._machines):
            channels = tuple(signals[index] for index in self._guard_signals[machine.id, guard.id].channels)
            if (torn := torn_channels(channels, self._home, limits)) is not None:
                what, mend, is_error = torn
                problem = guard.spot.problem(f"the channels of {guard.id} {what}", mend, at_key=True)
                (self.problems if is_error else self.warnings).append(problem)
        for name in self._file.devices:
            if name not in self._blocks_of:
                what, mend = (
                    f"the device {name} is not read: no signal names it",
                    "remove it, or correct the addresses",
                )
                self.warnings.append(self._document.problem(("devices", name), what, mend, at_key=True))

    def _plan(
        self, blocks: tuple[ReadBlock, ...], rules: Mapping[tuple[str, str], tuple[RulePlan, ...]]
    ) -> CellPlan:
        file = self._file
        devices = {
            DeviceId(name): self._device(name, device, rules["", name])
            for name, device in file.devices.items()
        }
        areas = {name: _labels(area.labels) for name, area in (file.areas or {}).items()}
        if file.areas is None:
            used = [machine.section.area for machine in self._machines.values() if machine.section.area]
            areas = {name: {"zh": name, "en": name} for name in used}
        return CellPlan(
            site=SiteId(file.site),
            agent=AgentId(file.agent),
            labels=_labels(file.labels),
            site_labels=_labels(file.site_labels) if file.site_labels else None,
            areas=areas,
            devices=devices,
            machines={
                MachineId(name): self._machine(machine, rules) for name, machine in self._machines.items()
            },
            signals=tuple(self._points.signals),
            blocks=blocks,
            config_hash=self._hash(),
            state_report_s=file.state_report_s,
            shared=frozenset(self._points.shared),
        )

    def _device(self, name: str, device: DeviceSection, rules: tuple[RulePlan, ...]) -> DevicePlan:
        counter = self._heartbeats.get(name)
        heartbeat = device.heartbeat
        return DevicePlan(
            id=DeviceId(name),
            url=self._urls.get(name, device.url),
            unit=device.unit,
            poll_ms=device.poll_ms,
            timeout_ms=device.timeout_ms,
            stale_ms=stale_ms(device),
            max_rps=device.max_rps,
            heartbeat=HeartbeatPlan(counter, heartbeat.stale_ms)
            if heartbeat and counter is not None
            else None,
            rules=rules,
            blocks=self._poll_order(name),
            pause_ms=device.pause_ms,
            connect_pause_ms=device.connect_pause_ms,
            connections=device.connections,
            presence=self._presence.get(name, ()),
        )

    def _poll_order(self, device: str) -> tuple[BlockId, ...]:
        """Its blocks as they are read: proofs of presence first, so that what they cover counts from the first poll."""
        proofs = {proof.signal for proof in self._presence.get(device, ())}
        blocks = sorted(self._blocks_of.get(device, []), key=lambda block: proofs.isdisjoint(block.signals))
        return tuple(block.id for block in blocks)

    def _machine(
        self,
        machine: WiredMachine,
        rules: Mapping[tuple[str, str], tuple[RulePlan, ...]],
    ) -> MachinePlan:
        section = machine.section
        guards = (
            self._guard(machine, guard, rules[machine.id, guard.id]) for guard in machine.guards.values()
        )
        return MachinePlan(
            id=MachineId(machine.id),
            labels=_labels(section.labels),
            area=section.area,
            kind=section.kind,
            rundown_ms=None if section.rundown_s is None else round(section.rundown_s * 1000),
            signals=self._machine_signals[machine.id].signals,
            guards=tuple(guards),
            rules=(),
        )

    def _guard(
        self,
        machine: WiredMachine,
        guard: WiredGuard,
        rules: tuple[RulePlan, ...],
    ) -> GuardPlan:
        named = self._guard_signals[machine.id, guard.id]
        shown = [
            *named.channels,
            *(named.signals[name] for name in ("locked", "bypass") if name in named.signals),
        ]
        stale = [self._home[index].stale_ms for index in shown]
        return GuardPlan(
            id=GuardId(intern(guard.id)),
            machine=MachineId(machine.id),
            labels=self._shared_labels(guard.labels),
            kind=guard.kind,
            channels=named.channels,
            locked=named.signals.get("locked"),
            bypass=named.signals.get("bypass"),
            signals=named.signals or _NO_SIGNALS,
            rules=rules,
            stale_ms=max(stale, default=0),
        )

    def _shared_labels(self, labels: Labels) -> Mapping[str, str]:
        """Every machine has a "door 1": one object for all of them."""
        return self._labels.setdefault((labels.zh, labels.en), _labels(labels))

    def _hash(self) -> str:
        """SHA-256 of the resolved configuration without its secrets: the same plant has the same hash anywhere.

        A default counts as if it were left out, written or not; with them all a large plant would be 100 MB of text.
        """
        resolved = self._file.model_dump(mode="json", exclude_defaults=True, exclude={"mqtt": {"password"}})
        resolved["profiles"] = self._profiles.content()
        resolved["points"] = [row.model_dump(mode="json", exclude_defaults=True) for row in self._rows]
        canonical = json.dumps(resolved, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _labels(labels: Labels) -> dict[str, str]:
    return {"zh": labels.zh, "en": labels.en}
