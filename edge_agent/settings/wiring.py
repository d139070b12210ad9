"""What is wired: the file's machines and guards with their signals, from YAML, shorthands and the point list alike.

Theory of operation. A point list only adds signals to machines and guards that the YAML file names; `estop_ok` and
`pullcord_ok` become guards `estop` and `pullcord-N`. After this step the compiler sees one form: a machine has signals
by name, a guard has channels and signals by name, and each carries the place it came from.

Source: the outside contract, section 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.configfile import Document, Problem, Section, load_table, validate
from edge_agent.domain.plan import GuardKind
from edge_agent.domain.readplan import CHANNEL_NAMES
from edge_agent.settings.points import near_mend
from edge_agent.settings.rules import RuleOverride
from edge_agent.settings.schema import AgentFile, GuardSection, Labels, MachineSection
from edge_agent.settings.signals import (
    CSV_ALIASES,
    GUARD_SIGNALS,
    MACHINE_SIGNALS,
    POINT_COLUMN_ALIASES,
    POINT_TEXT_COLUMNS,
    PointRow,
    SignalSection,
)
from edge_agent.settings.spot import Spot

ESTOP_GUARD: Final = "estop"
ESTOP_LABELS: Final = Labels(zh="急停", en="Emergency stop")
_PULLCORD: Final = re.compile(r"pullcord_ok\[([1-9][0-9]?)\]")


@dataclass(frozen=True, slots=True)
class Wire:
    """One signal as written, and where."""

    section: SignalSection
    spot: Spot


@dataclass(slots=True)
class WiredGuard:
    """One guard as written. `overrides`: rule name → what its rules section says, standing at `rules`."""

    id: str
    labels: Labels
    kind: GuardKind
    spot: Spot
    rules: Spot
    overrides: Mapping[str, RuleOverride]
    design_stop_ms: int | None = None
    channels: dict[str, Wire] = field(default_factory=dict)
    signals: dict[str, Wire] = field(default_factory=dict)


@dataclass(slots=True)
class WiredMachine:
    """One machine as written."""

    id: str
    section: MachineSection
    spot: Spot
    overrides: Mapping[str, RuleOverride]
    signals: dict[str, Wire] = field(default_factory=dict)
    guards: dict[str, WiredGuard] = field(default_factory=dict)


class Wiring:
    """Collects what is wired, and the problems of putting it together."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.problems: list[Problem] = []
        self.rows: tuple[PointRow, ...] = ()

    def collect(self, file: AgentFile) -> dict[str, WiredMachine]:
        """Every machine of the file, its point list included."""
        machines = {name: self._machine(name, section) for name, section in file.machines.items()}
        if file.signals_csv is not None:
            self._read_points(file.signals_csv, machines)
        return machines

    def _machine(self, name: str, section: MachineSection) -> WiredMachine:
        spot = Spot(self._document, ("machines", name))
        machine = WiredMachine(name, section, spot, overrides(section.rules))
        for guard_name, guard in section.guards.items():
            machine.guards[guard_name] = _guard(guard_name, guard, spot.at("guards", guard_name))
        signals = spot.at("signals")
        for signal in MACHINE_SIGNALS:
            written: SignalSection | None = getattr(section.signals, signal)
            if written is not None:
                self._wire_machine(machine, signal, Wire(written, signals.at(signal)))
        for index, cord in enumerate(section.signals.pullcord_ok):
            wire = Wire(cord, signals.at("pullcord_ok", index))
            self._wire_machine(machine, f"pullcord_ok[{index + 1}]", wire)
        return machine

    def _wire_machine(self, machine: WiredMachine, name: str, wire: Wire) -> None:
        """One signal of a machine; a shorthand becomes a guard."""
        cord = _PULLCORD.fullmatch(name)
        if cord is None and name != "estop_ok":
            self._wire(machine.signals, name, wire)
            return
        if cord is None:
            guard_id, kind, labels, key = ESTOP_GUARD, GuardKind.ESTOP, ESTOP_LABELS, "estop"
        else:
            number = int(cord[1])
            guard_id, kind, key = f"pullcord-{number}", GuardKind.PULL_CORD, "pull_cord"
            labels = Labels(zh=f"拉绳开关{number}", en=f"Pull cord {number}")
        if guard_id in machine.guards:
            self.problems.append(
                wire.spot.problem(
                    f"{name} is shorthand for the guard {guard_id}, which exists already",
                    "keep either the shorthand or the guard",
                    at_key=True,
                )
            )
            return
        chosen = {key: machine.overrides[key]} if key in machine.overrides else {}
        rules = machine.spot.at("rules")
        channels = {CHANNEL_NAMES[0]: wire}
        machine.guards[guard_id] = WiredGuard(
            guard_id, labels, kind, wire.spot, rules, chosen, channels=channels
        )

    def _wire(self, signals: dict[str, Wire], name: str, wire: Wire) -> None:
        if name in signals:
            first = signals[name].spot
            line, _ = first.document.key_position(first.path)
            what = f"the signal {name} is wired twice, first in line {line} of {first.document.file}"
            self.problems.append(wire.spot.problem(what, "keep one of the two", at_key=True))
            return
        signals[name] = wire

    def _read_points(self, file: Path, machines: Mapping[str, WiredMachine]) -> None:
        path = self._document.resolve(file)
        if not path.is_file():
            self.problems.append(
                self._document.problem(
                    ("signals_csv",),
                    f"there is no file {path}",
                    "check the path, it is relative to this file",
                )
            )
            return
        table = load_table(path, text_columns=POINT_TEXT_COLUMNS, aliases=POINT_COLUMN_ALIASES)
        if isinstance(table, list):
            self.problems.extend(table)
            return
        points = validate(PointTable, table)
        if isinstance(points, list):
            self.problems.extend(points)
            return
        self.rows = points.rows
        for index, row in enumerate(points.rows):
            self._take_row(row, Spot(table, ("rows", index)), machines)

    def _take_row(self, row: PointRow, spot: Spot, machines: Mapping[str, WiredMachine]) -> None:
        machine = machines.get(row.machine)
        if machine is None:
            mend = near_mend(row.machine, machines, "machines")
            self.problems.append(spot.problem(f"there is no machine {row.machine[:60]}", mend, "machine"))
            return
        name, wire = CSV_ALIASES.get(row.signal, row.signal), Wire(row.as_signal(), spot)
        if row.guard is None:
            if name in MACHINE_SIGNALS or _PULLCORD.fullmatch(name):
                self._wire_machine(machine, name, wire)
            else:
                mend = near_mend(name, MACHINE_SIGNALS, "a machine's signals")
                self.problems.append(spot.problem(f"a machine has no signal {name[:60]}", mend, "signal"))
            return
        guard = machine.guards.get(row.guard)
        if guard is None:
            mend = near_mend(row.guard, machine.guards, "guards")
            self.problems.append(spot.problem(f"{machine.id} has no guard {row.guard[:60]}", mend, "guard"))
        elif name in CHANNEL_NAMES:
            self._wire(guard.channels, name, wire)
        elif name in GUARD_SIGNALS:
            self._wire(guard.signals, name, wire)
        else:
            mend = near_mend(name, (*CHANNEL_NAMES, *GUARD_SIGNALS), "a guard's signals")
            self.problems.append(spot.problem(f"a guard has no signal {name[:60]}", mend, "signal"))


class PointTable(Section):
    """A point list, as `load_table` gives it."""

    rows: tuple[PointRow, ...]


def overrides(section: Section) -> dict[str, RuleOverride]:
    """The overrides that a rules section holds, by rule name."""
    return {
        name: item
        for name in section.model_fields_set
        if isinstance(item := getattr(section, name), RuleOverride)
    }


def all_guards(machines: Mapping[str, WiredMachine]) -> Iterator[tuple[WiredMachine, WiredGuard]]:
    """Every guard with its machine, in board order."""
    return ((machine, guard) for machine in machines.values() for guard in machine.guards.values())


def _guard(name: str, section: GuardSection, spot: Spot) -> WiredGuard:
    guard = WiredGuard(
        name,
        section.labels,
        section.kind,
        spot,
        spot.at("rules"),
        overrides(section.rules),
        section.design_stop_ms,
    )
    for index, channel in enumerate(section.channels):
        guard.channels[CHANNEL_NAMES[index]] = Wire(channel, spot.at("channels", index))
    for signal in GUARD_SIGNALS:
        written: SignalSection | None = getattr(section, signal)
        if written is not None:
            guard.signals[signal] = Wire(written, spot.at(signal))
    return guard
