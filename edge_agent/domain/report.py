"""The state report: every guard's and machine's state and every open occurrence, packed into parts.

A report is the level behind the edges: whatever a gateway has missed, it heals by comparing. It is complete over its
parts, which are consecutive events of one commit; entries are packed greedily in board order.

Source: the outside contract, section 3; delivery protocol §2.7 and §3.7.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_agent.domain.findings import GuardView, MachineView
from edge_agent.wire.chain import canonical
from edge_agent.wire.event import (
    GUARD_CODES,
    QUALITY_CODES,
    GuardState,
    Json,
    OpenOccurrence,
    Quality,
    StateReport,
)
from edge_agent.wire.structure import plain

PART_MAX_BYTES = 32 * 1024
"""Canonical JSON of one part's body at most (the outside contract, section 3)."""

_FRAME_BYTES = 128
"""What a part needs beside its entries: braces, the five names, two counts."""

_STATE_LETTERS = {state: letter for letter, state in GUARD_CODES.items()}
_QUALITY_LETTERS = {quality: letter for letter, quality in QUALITY_CODES.items()}


def guard_code(state: GuardState, bypass: bool | None, locked: bool | None, quality: Quality) -> str:  # noqa: FBT001
    """The four letters of a guard in a state report."""
    return f"{_STATE_LETTERS[state]}{_tri_letter(bypass)}{_tri_letter(locked)}{_QUALITY_LETTERS[quality]}"


def _tri_letter(value: bool | None) -> str:  # noqa: FBT001
    return "-" if value is None else "01"[value]


@dataclass(slots=True)
class _Part:
    guards: dict[str, dict[str, str]] = field(default_factory=dict)
    machines: dict[str, tuple[bool | None, str | None]] = field(default_factory=dict)
    open: list[OpenOccurrence] = field(default_factory=list)


class _Packer:
    """Opens a further part when the next entry would not fit."""

    def __init__(self) -> None:
        self.parts = [_Part()]
        self._room = PART_MAX_BYTES - _FRAME_BYTES

    def part_for(self, entry: Json) -> _Part:
        """The part that `entry`, about as large as it will stand there, goes into."""
        size = len(canonical({"": entry}))
        if size > self._room:
            self.parts.append(_Part())
            self._room = PART_MAX_BYTES - _FRAME_BYTES
        self._room -= size
        return self.parts[-1]


def pack_report(
    guards: Iterable[GuardView], machines: Iterable[MachineView], occurrences: Iterable[OpenOccurrence]
) -> list[StateReport]:
    """The parts of one complete report, each within `PART_MAX_BYTES`."""
    packer = _Packer()
    for guard in guards:
        code = guard_code(guard.state, guard.bypass, guard.locked, guard.quality)
        # The machine's name is counted with each guard though it stands once: parts may split a machine.
        part = packer.part_for({guard.machine: {guard.guard: code}})
        part.guards.setdefault(guard.machine, {})[guard.guard] = code
    for machine in machines:
        packer.part_for({machine.machine: [machine.moving, machine.mode]}).machines[machine.machine] = (
            machine.moving,
            machine.mode,
        )
    for occurrence in occurrences:
        packer.part_for(plain(occurrence)).open.append(occurrence)
    count = len(packer.parts)
    return [
        StateReport(number, count, part.guards, part.machines, tuple(part.open))
        for number, part in enumerate(packer.parts, start=1)
    ]
