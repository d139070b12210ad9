"""Profiles in a configuration: suggestions become the device's defaults, DEVICE/POINT becomes an address.

What the plant writes always goes before what the profile says, key by key. A point that nobody has read in a manual is
used like any other, and `check` warns of it; an address that the profile says must not be read is refused.

Source: the outside contract, section 2 (addresses).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge_agent.configfile import Document, Problem
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.readplan import ADDRESSES
from edge_agent.domain.units import DeviceId
from edge_agent.settings.address import Address, Misaddress, parse_address
from edge_agent.settings.encoding import REFUSED
from edge_agent.settings.profile import Profile, load_profile, profile_path
from edge_agent.settings.profile_points import Found
from edge_agent.settings.schema import AgentFile, DeviceSection
from edge_agent.settings.signals import Meaning, SignalSection
from edge_agent.settings.spot import Spot
from edge_agent.wire.event import Json

_OF_A_POINT: Final = frozenset(SignalSection.model_fields) - {"at", "shared"}
"""What a point of a profile says about the signals that name it."""


class Profiles:
    """The profiles that a configuration names, by device, and the problems and warnings of using them."""

    def __init__(self, document: Document, devices: Mapping[str, DeviceSection]) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._document = document
        self._devices = devices
        self._read: dict[Path, Profile | None] = {}
        self._profiles = {
            name: self._load(name, device.profile)
            for name, device in devices.items()
            if device.profile is not None
        }
        for name, device in devices.items():
            profile = self._profiles.get(name)
            if "profile_base" in device.model_fields_set and (
                device.profile is None or (profile is not None and not profile.file.relocatable)
            ):
                what = f"{name} has no profile that could be moved"
                path = ("devices", name, "profile_base")
                self.problems.append(document.problem(path, what, "remove profile_base", at_key=True))

    def applied_to(self, file: AgentFile) -> AgentFile:
        """`file` with the profiles' suggestions where its devices say nothing themselves."""
        if not any(self._profiles.values()):
            return file
        devices = {name: self._with_defaults(name, device) for name, device in file.devices.items()}
        return file.model_copy(update={"devices": devices})

    def content(self) -> dict[str, Json]:
        """All that the used profiles say, by device: a changed profile is a changed configuration."""
        return {
            name: profile.file.model_dump(mode="json") for name, profile in self._profiles.items() if profile
        }

    def avoided(self) -> dict[str, tuple[tuple[Table, int, int], ...]]:
        """By device, the spans (table, first, last) that its profile says must not be read."""
        return {
            name: tuple((area.table, area.first, area.last) for area in profile.avoid)
            for name, profile in self._profiles.items()
            if profile
        }

    def trespasses(self, blocks: Iterable[ReadBlock]) -> Iterator[Problem]:
        """Requests that would read along what a profile says must not be read."""
        for block in blocks:
            profile = self._profiles.get(block.device)
            last = block.start + block.count - 1
            for area in profile.avoid if profile else ():
                if area.touches(block.table, block.start, last):
                    key = "gap_bits" if block.table.is_bits else "gap_registers"
                    what = f"a request for {block.table.value}/{block.start} to {last} would read along {area.section.why.en}"
                    path = ("devices", block.device)
                    yield self._document.problem(
                        path, what, f"keep a guard's signals together, or write {key}: 0", at_key=True
                    )

    def resolved(
        self, spot: Spot, section: SignalSection, meaning: Meaning, device: DeviceId | None
    ) -> SignalSection | None:
        """`section` with an address that needs no profile, or None when its point cannot be found.

        `meaning` is the kind of value that is wanted; `device` is where the section stands inside a device.
        """
        owner, slash, name = section.at.rpartition("/")
        is_point = name[:1].isalpha() and "/" not in owner and bool(slash or device)
        if not is_point:
            return section if self._may_read(spot, section.at, device) else None
        named = owner or device or ""
        profile = self._profiles.get(named)
        if profile is not None:
            found = self._found(spot, named, name, profile)
            return None if found is None else _merged(section, found, meaning, f"{named}/{found.place.at}")
        if named in self._devices and named not in self._profiles:
            what = f"`at`: {named} has no profile, and so no point {name[:40]}"
            mend = f"write {named}/TABLE/NUMBER, or give the device a profile"
            self.problems.append(spot.problem(what, mend, "at"))
        elif self._document.value(("devices", named)) is None:
            near = difflib.get_close_matches(named, self._devices, n=1)
            mend = (
                f"did you mean {near[0]}?" if near else f"devices here: {', '.join(list(self._devices)[:8])}"
            )
            self.problems.append(spot.problem(f"`at`: there is no device {named[:60]}", mend, "at"))
        return None

    def _load(self, name: str, text: str) -> Profile | None:
        at = ("devices", name, "profile")
        path = profile_path(text, self._document.directory)
        if isinstance(path, Misaddress):
            self.problems.append(self._document.problem(at, f"`profile`: {path.what}", path.mend))
            return None
        if path not in self._read:
            profile = load_profile(path)
            if isinstance(profile, list):
                self.problems += profile
            self._read[path] = None if isinstance(profile, list) else profile
        return self._read[path]

    def _with_defaults(self, name: str, device: DeviceSection) -> DeviceSection:
        profile = self._profiles.get(name)
        if profile is None:
            return device
        suggested = profile.file.device
        given = suggested.model_fields_set - device.model_fields_set
        return device.model_copy(update={key: getattr(suggested, key) for key in given})

    def _may_read(self, spot: Spot, text: str, device: DeviceId | None) -> bool:
        profile = self._profiles.get(text.partition("/")[0]) or self._profiles.get(device or "")
        if profile is None or not profile.avoid:
            return True
        address = parse_address(text)
        for area in profile.avoid:
            if isinstance(address, Address) and area.touches(address.table, address.number, address.number):
                what = f"`at`: {text} must not be read: {area.section.why.en}"
                self.problems.append(spot.problem(what, "address something else", "at"))
                return False
        return True

    def _found(self, spot: Spot, device: str, name: str, profile: Profile) -> Found | None:
        found = profile.names.find(name)
        if isinstance(found, Misaddress):
            what = f"`at`: in {profile.file.id}, {found.what}"
            self.problems.append(spot.problem(what, found.mend, "at"))
            return None
        base = self._devices[device].profile_base if profile.file.relocatable else 0
        number = found.place.number + base
        if number >= ADDRESSES:
            what = f"`at`: {name} lies at {number}, beyond 65535"
            self.problems.append(spot.problem(what, "correct profile_base", "at"))
            return None
        for fact in profile.unverified(found.family.key):
            what = f"`at`: {name} of {profile.file.id} is unverified: {fact.en}"
            self.warnings.append(spot.problem(what, "compare it with the device, by `probe`", "at"))
        return Found(found.family, replace(found.place, number=number))


def _merged(section: SignalSection, found: Found, meaning: Meaning, at: str) -> SignalSection:
    """The plant's section over the point's; what says nothing about this kind of value is left out."""
    point = found.family.section
    given = (point.model_fields_set & _OF_A_POINT) - section.model_fields_set - set(REFUSED[meaning][0])
    update: dict[str, object] = {key: getattr(point, key) for key in given}
    if found.place.mask is not None and "mask" in given:
        update["mask"] = found.place.mask
    return section.model_copy(update={**update, "at": at})
