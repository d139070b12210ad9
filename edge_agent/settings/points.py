"""Points: every signal of the configuration, checked by itself and against all others.

Theory of operation. Each `SignalSection` becomes one `SignalPlan` with the next id, wherever it stood (YAML or point
list); its `Spot` says where, for problems found later. A point is first checked alone (address, type, what its kind of
value allows), then against everything that reads the same bit: one bit twice in a guard is always wrong (two channels
would always agree), elsewhere only where both say `shared: true`.

Source: the outside contract, section 2 (ids, signals, addresses).
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from sys import intern
from typing import Final

from edge_agent.configfile import Problem
from edge_agent.domain.decode import footprint
from edge_agent.domain.plan import PLAIN, Coding, ReadBlock, SignalPlan, Table, ValueType
from edge_agent.domain.readplan import ADDRESSES
from edge_agent.domain.units import DeviceId, GuardId, MachineId, SignalId
from edge_agent.settings.address import ZERO_BASED, Address, Misaddress, looks_like_label, parse_address
from edge_agent.settings.encoding import Encoding, EncodingCheck
from edge_agent.settings.profile_use import Profiles
from edge_agent.settings.signals import POLL_MIN_MS, Meaning, SignalSection
from edge_agent.settings.spot import Spot

ONE_BASED_RUN: Final = 4
"""So many addresses in a row from 1, without 0, are taken for a list that counts from 1."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose signal it is; both None for a device's own."""

    machine: MachineId | None = None
    guard: GuardId | None = None


class Points:
    """All signals collected so far, their places, and the problems and warnings found with them."""

    def __init__(self, devices: Collection[str], polls_ms: Mapping[str, int], profiles: Profiles) -> None:
        self.signals: list[SignalPlan] = []
        self.spots: list[Spot] = []
        self.shared: set[SignalId] = set()
        self._proofs: set[SignalId] = set()
        self._named: set[SignalId] = set()
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._devices = devices
        self._codings: dict[Coding, Coding] = {PLAIN: PLAIN}
        self._polls_ms = polls_ms
        self._profiles = profiles

    def add(
        self,
        spot: Spot,
        section: SignalSection,
        name: str,
        meaning: Meaning,
        owner: Owner,
        *,
        device: DeviceId | None = None,
    ) -> SignalId | None:
        """The id of the signal that `section` describes, or None when its address cannot be used.

        `device` is where the section stands inside a device; its address then names none.
        """
        resolved = self._profiles.resolved(spot, section, meaning, device)
        address = None if resolved is None else self._address(spot, resolved, device)
        if resolved is None or address is None:
            return None
        index = SignalId(len(self.signals))
        if resolved is not section:
            self._named.add(index)
        elif (meant := looks_like_label(address)) is not None:
            what = f"`at`: {address.number} looks like a label, and is read as PDU address {address.number}"
            mend = f"if {address.table.value}/{meant} is meant, write that: {ZERO_BASED}"
            self.warnings.append(spot.problem(what, mend, "at"))
        section = resolved
        kind = self._type(spot, section, meaning, address)
        if address.number + kind.registers > ADDRESSES:
            self.problems.append(
                spot.problem(
                    f"the {kind.value} at {address.number} ends beyond 65535", "check the address", "at"
                )
            )
        check = EncodingCheck(spot, section, name, meaning, kind)
        encoding = check.resolve()
        self.problems += check.problems
        self.warnings += check.warnings
        self.spots.append(spot)
        if section.shared:
            self.shared.add(index)
        if meaning is Meaning.PROOF:
            self._proofs.add(index)
        self.signals.append(
            SignalPlan(
                id=index,
                name=intern(name),
                machine=owner.machine,
                guard=owner.guard,
                device=DeviceId(intern(address.device or "")),
                table=address.table,
                number=address.number,
                bit=address.bit,
                type=kind,
                poll_ms=section.poll_ms or self._polls_ms.get(address.device or "", POLL_MIN_MS),
                coding=self._coding(section, encoding),
                grade=section.grade,
                module=section.module,
            )
        )
        return index

    def _coding(self, section: SignalSection, encoding: Encoding) -> Coding:
        """How the section's content becomes a value; equal ones are one object."""
        coding = Coding(
            word_order=section.word_order,
            byte_order=section.byte_order,
            invert=encoding.invert,
            debounce_on_ms=_first(section.debounce_on_ms, section.debounce_ms),
            debounce_off_ms=_first(section.debounce_off_ms, section.debounce_ms),
            scale=section.scale,
            offset=section.offset,
            unit=section.unit,
            map=encoding.map,
            rated=section.rated,
            limit=section.limit,
            sentinel=encoding.sentinel,
            mask=encoding.mask,
            true_when=encoding.true_when,
            false_when=encoding.false_when,
            counter_max=section.counter_max,
        )
        return self._codings.setdefault(coding, coding)

    def settle_rates(self, blocks: Iterable[ReadBlock]) -> None:
        """Give every signal the rate at which its block is read."""
        for block in blocks:
            for index in block.signals:
                if self.signals[index].poll_ms != block.poll_ms:
                    self.signals[index] = replace(self.signals[index], poll_ms=block.poll_ms)

    def _address(self, spot: Spot, section: SignalSection, device: DeviceId | None) -> Address | None:
        address = parse_address(section.at)
        if isinstance(address, Misaddress):
            self.problems.append(spot.problem(f"`at`: {address.what}", address.mend, "at"))
            return None
        if device is not None and address.device not in (None, device):
            self.problems.append(
                spot.problem(
                    f"`at` names another device than {device}", "inside a device write TABLE/NUMBER", "at"
                )
            )
            return None
        named = address.device or device
        if named is None:
            self.problems.append(
                spot.problem(f'`at`: "{section.at}" names no device', f"write DEVICE/{section.at}", "at")
            )
            return None
        if named not in self._devices:
            self.problems.append(
                spot.problem(
                    f"`at`: there is no device {named[:60]}", near_mend(named, self._devices, "devices"), "at"
                )
            )
            return None
        return Address(named, address.table, address.number, address.bit)

    def _type(self, spot: Spot, section: SignalSection, meaning: Meaning, address: Address) -> ValueType:
        if address.table.is_bits or address.bit is not None:
            if section.type not in (None, ValueType.BIT):
                self.problems.append(
                    spot.problem(
                        f"one bit cannot be {section.type}",
                        "remove `type`, or address the whole register",
                        "type",
                    )
                )
            return ValueType.BIT
        is_field = section.mask is not None or section.true_when or section.false_when
        if section.type is ValueType.BIT or (
            meaning is Meaning.BIT and section.type is None and not is_field
        ):
            table, number = address.table.value, address.number
            self.problems.append(
                spot.problem(
                    f"`at`: {table}/{number} is a whole register",
                    f"say which bit: {table}/{number}.0 to .15, or which codes: true_when",
                    "at",
                )
            )
            return ValueType.BIT
        return section.type or ValueType.UINT16

    def check_modules(self, modules: Mapping[str, Collection[str]]) -> None:
        """Find signals of modules that have no presence check; `modules` are those that have one, by device."""
        for signal, spot in zip(self.signals, self.spots, strict=True):
            if signal.module is not None and signal.module not in modules.get(signal.device, ()):
                what = f"{signal.device} has no presence check for a module {signal.module}"
                mend = near_mend(signal.module, modules.get(signal.device, ()), "presence")
                self.problems.append(spot.problem(what, mend, "module"))

    def check_overlaps(self) -> None:
        """Find every bit that is read twice without saying so on both sides; a proof may look at any."""
        items: defaultdict[tuple[DeviceId, Table, int], list[tuple[int, SignalPlan]]] = defaultdict(list)
        for signal in self.signals:
            if signal.id in self._proofs:
                continue
            for byte, mask in footprint(signal, 0):
                others = items[signal.device, signal.table, byte]
                clash = next(
                    (other for bits, other in others if bits & mask and not self._may(signal, other)), None
                )
                others.append((mask, signal))
                if clash is not None:
                    self._report_overlap(signal, clash)
                    break

    def check_one_based(self) -> None:
        """Doubt tables whose addresses run on from 1 and leave out 0: lists that count from 1 look so.

        What a profile names is at the address that it says.
        """
        numbers: defaultdict[tuple[DeviceId, Table], dict[int, SignalPlan]] = defaultdict(dict)
        for signal in self.signals:
            if signal.id not in self._named:
                numbers[signal.device, signal.table].setdefault(signal.number, signal)
        for (device, table), read in numbers.items():
            if 0 not in read and all(number in read for number in range(1, ONE_BASED_RUN + 1)):
                what = f"`at`: the addresses of {device}/{table.value} run on from 1, and 0 is not read: 1-based?"
                self.warnings.append(self.spots[read[1].id].problem(what, ZERO_BASED, "at"))

    def _may(self, signal: SignalPlan, other: SignalPlan) -> bool:
        in_one_guard = signal.guard is not None and (signal.machine, signal.guard) == (
            other.machine,
            other.guard,
        )
        return not in_one_guard and {signal.id, other.id} <= self.shared

    def _report_overlap(self, signal: SignalPlan, other: SignalPlan) -> None:
        spot, first = self.spots[signal.id], self.spots[other.id]
        line, _ = first.document.value_position((*first.path, "at"))
        where = f"{other.path} in line {line}"
        if signal.guard is not None and (signal.machine, signal.guard) == (other.machine, other.guard):
            mend = "two signals of one guard must be two contacts: correct one of the addresses"
        else:
            mend = "correct one of the addresses, or say shared: true on both"
        self.problems.append(spot.problem(f"{signal.name} reads the same bit as {where}", mend, "at"))


def near_mend(got: str, known: Collection[str], what: str) -> str:
    """How to mend a name that does not resolve."""
    near = difflib.get_close_matches(got, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    listed = ", ".join(list(known)[:8])
    return f"{what} here: {listed}" if listed else f"define it under `{what}`"


def _first(given: int | None, default: int) -> int:
    return default if given is None else given
