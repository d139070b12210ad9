"""Device profiles: found by name or path, read, and checked completely, with every problem at once.

Shipped profiles are files `NAME.yaml`; a plant's own is named by its path in the configuration. Both are read and checked
in the same way: keys and types by the schema; then every name, address and reference here, so that a profile that loads
has no point that cannot be found.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.configfile import Document, Problem, in_order, load, validate_partly
from edge_agent.domain.plan import Table
from edge_agent.domain.readplan import ADDRESSES
from edge_agent.settings.address import Address, Misaddress, parse_address
from edge_agent.settings.profile_points import NAME, PLACEHOLDER, Family, PointNames, Span
from edge_agent.settings.profile_schema import (
    AvoidSection,
    Numbering,
    PointSection,
    ProfileFile,
    UnverifiedSection,
)

SUFFIX: Final = ".yaml"


@dataclass(frozen=True, slots=True)
class Area:
    """Addresses `first` to `last` of `table` that must not be read."""

    table: Table
    first: int
    last: int
    section: AvoidSection

    def touches(self, table: Table, first: int, last: int) -> bool:
        """Whether any of these addresses lies in it."""
        return table == self.table and first <= self.last and self.first <= last


@dataclass(frozen=True, slots=True)
class Profile:
    """A good profile."""

    file: ProfileFile
    names: PointNames
    avoid: tuple[Area, ...]

    def unverified(self, key: str) -> Iterator[UnverifiedSection]:
        """What was not read in a manual about the point or range `key`."""
        return (fact for fact in self.file.unverified if not fact.points or key in fact.points)


def shipped_folder() -> Path:
    """`config/profiles` of a checkout, or its copy in an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "config" / "profiles"
    return checkout if checkout.is_dir() else package / "profiles"


def shipped_profiles() -> dict[str, Path]:
    """The shipped profiles' files by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*" + SUFFIX))}


def profile_path(text: str, folder: Path) -> Path | Misaddress:
    """The file that `text` means: a shipped profile's name, or a path relative to `folder`."""
    if text.endswith(SUFFIX) or "/" in text:
        path = folder / Path(text).expanduser()
        return path if path.is_file() else Misaddress(f"there is no file {path}", "check the path")
    shipped = shipped_profiles()
    if text in shipped:
        return shipped[text]
    near = difflib.get_close_matches(text, shipped, n=1)
    mend = f"did you mean {near[0]}" if near else f"profiles here: {', '.join(shipped)}"
    return Misaddress(
        f"there is no profile {text[:60]}", f"{mend}; one of your own is named by its path, PATH{SUFFIX}"
    )


def load_profile(path: Path) -> Profile | list[Problem]:
    """The profile in the file at `path`, or everything that is wrong with it. Never raises."""
    document = load(path, {})
    if isinstance(document, list):
        return document
    file, problems = validate_partly(ProfileFile, document)
    if file is None:
        return problems
    reading = _Reading(document)
    profile = reading.profile(file)
    problems = in_order([*problems, *reading.problems])
    return problems or profile


class _Reading:
    """One profile's cross-checks."""

    def __init__(self, document: Document) -> None:
        self.problems: list[Problem] = []
        self._document = document

    def profile(self, file: ProfileFile) -> Profile:
        if file.id != Path(self._document.file).stem:
            self._add(
                ("id",), f"the profile is called {file.id}, its file is not", f"name it {file.id}{SUFFIX}"
            )
        families = tuple(
            family for key, section in file.points.items() if (family := self._family(key, section))
        )
        names = PointNames(families)
        self._check_ambiguity(families)
        avoid = tuple(self._areas(file))
        for family in families:
            self._check_avoided(family, avoid)
        self._check_facts(file)
        if file.device.heartbeat is not None:
            self._check_named(("device", "heartbeat", "at"), file.device.heartbeat.at, names)
        for name, proof in file.device.presence.items():
            self._check_named(("device", "presence", name, "at"), proof.at, names)
        return Profile(file, names, avoid)

    def _family(self, key: str, section: PointSection) -> Family | None:
        path = ("points", key)
        if not NAME.fullmatch(key.replace(PLACEHOLDER, "0")) or key.count(PLACEHOLDER) > 1:
            mend = "use letters, digits and _, beginning with a letter; {n} once in a range"
            self._add(path, f'"{key[:40]}" is no name of a point', mend, at_key=True)
            return None
        if (PLACEHOLDER in key) != (section.count is not None):
            what = (
                f"{key} has a count, and no {{n}} for the number" if section.count else f"{key} has no count"
            )
            self._add(path, what, "a range has both {n} in its name and count", at_key=True)
            return None
        spans = [self._span((*path, "at"), section.at, section.first, section.count or 1)]
        spans += [
            self._span((*path, "more", index, "at"), part.at, part.first, part.count)
            for index, part in enumerate(section.more)
        ]
        family = Family(key, section, tuple(span for span in spans if span is not None))
        if len(family.spans) != len(spans) or not self._is_countable(path, family):
            return None
        return family

    def _span(self, path: tuple[str | int, ...], text: str, first: int, count: int) -> Span | None:
        address = parse_address(text)
        if isinstance(address, Misaddress):
            self._add(path, f"`at`: {address.what}", address.mend)
            return None
        if address.device is not None:
            self._add(
                path, f'`at`: "{text[:40]}" names a device', "a profile's address is TABLE/NUMBER[.BIT]"
            )
            return None
        return Span(first, count, address)

    def _is_countable(self, path: tuple[str, ...], family: Family) -> bool:
        numbering = family.section.numbering
        for span in family.spans:
            is_register = not span.at.table.is_bits and span.at.bit is None
            if (numbering is Numbering.BYTES) > is_register or (
                numbering is Numbering.BYTE_BIT
            ) & is_register:
                wanted = "whole registers" if numbering is Numbering.BYTES else "bits"
                self._add((*path, "numbering"), f"{numbering.value} counts {wanted}", "correct it, or `at`")
                return False
            last = family.place(span.first + span.count - 1)
            if last is not None and last.number >= ADDRESSES:
                self._add(path, f"{family.key} ends at {last.number}, beyond 65535", "correct count or at")
                return False
        return True

    def _check_ambiguity(self, families: Iterable[Family]) -> None:
        ranges = PointNames(tuple(family for family in families if family.is_range))
        for family in families:
            if not family.is_range and not isinstance(ranges.find(family.key), Misaddress):
                self._add(
                    ("points", family.key),
                    f"{family.key} is a point of a range too",
                    "rename one of them",
                    at_key=True,
                )

    def _areas(self, file: ProfileFile) -> Iterator[Area]:
        for index, section in enumerate(file.avoid):
            address = parse_address(section.at)
            if isinstance(address, Address) and address.device is None and address.bit is None:
                yield Area(address.table, address.number, address.number + section.count - 1, section)
            else:
                self._add(("avoid", index, "at"), "`at` is no address", "write TABLE/NUMBER")

    def _check_avoided(self, family: Family, avoid: tuple[Area, ...]) -> None:
        for span in family.spans:
            last = family.place(span.first + span.count - 1)
            ends = (span.at.number, last.number) if last is not None else (span.at.number, span.at.number)
            for area in avoid:
                if area.touches(span.at.table, min(ends), max(ends)):
                    what = f"{family.key} lies in what must not be read: {area.section.why.en}"
                    self._add(("points", family.key, "at"), what, "remove it, or correct the addresses")

    def _check_facts(self, file: ProfileFile) -> None:
        for index, fact in enumerate(file.unverified):
            for number, key in enumerate(fact.points):
                if key not in file.points:
                    near = difflib.get_close_matches(key, file.points, n=1)
                    mend = f"did you mean {near[0]}?" if near else "name a key of `points`"
                    what = f"there is no point {key[:40]}"
                    self._add(("unverified", index, "points", number), what, mend)

    def _check_named(self, path: tuple[str, ...], text: str, names: PointNames) -> None:
        if isinstance(parse_address(text), Address):
            return
        found = names.find(text)
        if isinstance(found, Misaddress):
            self._add(path, found.what, found.mend)

    def _add(self, path: tuple[str | int, ...], what: str, mend: str, *, at_key: bool = False) -> None:
        self.problems.append(self._document.problem(path, what, mend, at_key=at_key))
