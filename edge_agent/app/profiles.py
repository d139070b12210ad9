"""`profiles`: which devices are known by name, and what a profile says of its points. Opens no socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_agent.app.exits import Exit, refuse, say, say_json
from edge_agent.configfile import Problem
from edge_agent.settings.address import Misaddress
from edge_agent.settings.profile import Profile, load_profile, profile_path, shipped_profiles
from edge_agent.settings.profile_points import PLACEHOLDER, Family, Found, written
from edge_agent.settings.profile_schema import Texts
from edge_agent.settings.schema import Labels
from edge_agent.wire.event import Json


def list_profiles(*, as_json: bool) -> Exit:
    """Print the shipped profiles."""
    loaded = [load_profile(path) for path in shipped_profiles().values()]
    if problems := [problem for item in loaded if isinstance(item, list) for problem in item]:
        return refuse(*problems)
    files = [item.file for item in loaded if isinstance(item, Profile)]
    if as_json:
        listed: Json = [
            {
                "id": file.id,
                "labels": _texts(file.labels),
                "vendor": file.vendor,
                "products": list(file.products),
                "unverified": len(file.unverified),
            }
            for file in files
        ]
        say_json({"profiles": listed})
        return Exit.OK
    for file in files:
        say(f"{file.id:<20} {file.labels.zh} · {file.labels.en}: {', '.join(file.products)}")
    return Exit.OK


def show_profile(name: str, point: str | None, *, as_json: bool) -> Exit:
    """Print a shipped profile or one of the plant's own: all its points, or where one of them lies."""
    profile = _profile(name)
    if not isinstance(profile, Profile):
        return refuse(*profile)
    if point is not None:
        return _show_point(profile, point, as_json=as_json)
    if as_json:
        say_json(_as_json(profile))
    else:
        for line in _lines(profile):
            say(line)
    return Exit.OK


def _profile(name: str) -> Profile | list[str] | list[Problem]:
    path = profile_path(name, Path())
    return [f"{path.what} — {path.mend}"] if isinstance(path, Misaddress) else load_profile(path)


def _show_point(profile: Profile, name: str, *, as_json: bool) -> Exit:
    found = profile.names.find(name)
    if isinstance(found, Misaddress):
        return refuse(f"{profile.file.id}: {found.what} — {found.mend}")
    section = found.family.section
    before, after = found.family.affixes
    number = name[len(before) : len(name) - len(after)] if found.family.is_range else ""
    label = {
        language: text.replace(PLACEHOLDER, number) for language, text in _spoken(section.labels).items()
    }
    doubts = list(profile.unverified(found.family.key))
    if as_json:
        say_json(
            {
                "point": name,
                "at": found.place.at,
                "mask": found.place.mask,
                "labels": {**label},
                "meaning": None if section.meaning is None else _texts(section.meaning),
                "unverified": [_texts(doubt) for doubt in doubts],
            }
        )
        return Exit.OK
    say(f"{name}  {_where(found)}  {label['zh']} · {label['en']}")
    if section.meaning is not None:
        say(f"    {section.meaning.zh} · {section.meaning.en}")
    for doubt in doubts:
        say(f"    unverified: {doubt.zh} · {doubt.en}")
    return Exit.OK


def _lines(profile: Profile) -> Iterator[str]:
    file = profile.file
    yield f"{file.id}: {file.labels.zh} · {file.labels.en} ({file.vendor}: {', '.join(file.products)})"
    for source in file.source:
        yield f"  from {source}"
    for note in file.notes:
        yield f"  note {note.zh}"
        yield f"       {note.en}"
    for fact in file.unverified:
        yield f"  unverified ({', '.join(fact.points) or 'all points'}) {fact.zh}"
        yield f"       {fact.en}"
    for area in profile.avoid:
        yield f"  not read {area.table}/{area.first} to {area.last}: {area.section.why.zh} · {area.section.why.en}"
    for key in sorted(file.device.model_fields_set):
        value = file.device.model_dump(mode="json", include={key}, exclude_unset=True)[key]
        yield f"  default {key}: {value}"
    for family in profile.names.families:
        yield f"{_extent(family):<34} {_span(family)}"
        labels, meaning = family.section.labels, family.section.meaning
        told = "" if meaning is None else f": {meaning.zh} · {meaning.en}"
        yield f"    {labels.zh} · {labels.en}{told}"


def _as_json(profile: Profile) -> Json:
    file = profile.file
    return {
        "id": file.id,
        "labels": _texts(file.labels),
        "vendor": file.vendor,
        "products": list(file.products),
        "source": list(file.source),
        "notes": [_texts(note) for note in file.notes],
        "unverified": [{**_texts(fact), "points": list(fact.points)} for fact in file.unverified],
        "avoid": [
            {"at": f"{area.table}/{area.first}", "count": area.section.count, "why": _texts(area.section.why)}
            for area in profile.avoid
        ],
        "relocatable": file.relocatable,
        "device": file.device.model_dump(mode="json", exclude_unset=True),
        "points": [_family(profile, family) for family in profile.names.families],
    }


def _family(profile: Profile, family: Family) -> dict[str, Json]:
    section = family.section
    said: dict[str, Json] = section.model_dump(mode="json", exclude_unset=True)
    said |= {
        "name": family.key,
        "labels": _texts(section.labels),
        "unverified": any(profile.unverified(family.key)),
    }
    return said


def _extent(family: Family) -> str:
    """The names that a family has."""
    if not family.is_range:
        return family.key
    before, after = family.affixes
    numbering = family.section.numbering
    return ", ".join(
        f"{before}{written(span.first, numbering)}{after} … "
        f"{before}{written(span.first + span.count - 1, numbering)}{after}"
        for span in family.spans
    )


def _span(family: Family) -> str:
    """Where a family's points lie."""
    ends = [
        [place for number in (span.first, span.first + span.count - 1) if (place := family.place(number))]
        for span in family.spans
    ]
    return ", ".join(" … ".join(dict.fromkeys(_where(Found(family, end)) for end in pair)) for pair in ends)


def _where(found: Found) -> str:
    mask = found.place.mask
    return found.place.at + ("" if mask is None else f" mask {mask:#06x}")


def _spoken(texts: Texts | Labels) -> dict[str, str]:
    return {"zh": texts.zh, "en": texts.en}


def _texts(texts: Texts | Labels) -> dict[str, Json]:
    return {**_spoken(texts)}
