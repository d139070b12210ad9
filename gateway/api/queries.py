"""What list routes share: comma lists, times, cursors, limits, each fault told with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import Query as Parameter

from edge_agent.wire.event import Json
from gateway.api.problems import Problem
from gateway.domain.instants import parse_utc_ms
from gateway.domain.listing import LIMIT_DEFAULT, LIMIT_MAX, Place, decode_cursor, encode_cursor

Limit = Annotated[int, Parameter(ge=1, le=LIMIT_MAX, description="items of a page")]
Cursor = Annotated[str | None, Parameter(max_length=80, description="`next` of the page before")]
CommaList = Annotated[
    str | None, Parameter(max_length=2000, description="several values with commas between")
]
Time = Annotated[str | None, Parameter(max_length=40, description="RFC 3339, with a zone")]

__all__ = ["LIMIT_DEFAULT", "CommaList", "Cursor", "Limit", "Time"]


def read_filters(
    given: Mapping[str, str | None], allowed: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """The filters that were given, as lists; values of the enumerations in `allowed` are checked.

    Raises `Problem` 422 that names every fault.
    """
    found: dict[str, list[str]] = {}
    faults: list[Json] = []
    for name, text in given.items():
        if text is None:
            continue
        values = [value.strip() for value in text.split(",") if value.strip()]
        known = allowed.get(name)
        strange = [value for value in values if known is not None and value not in known]
        if strange and known is not None:
            faults.append(
                {"where": f"query.{name}", "what": f"{', '.join(strange)}: none of {', '.join(known)}"}
            )
        found[name] = values
    if faults:
        raise _misfit(faults)
    return found


def read_time(name: str, text: str | None) -> int | None:
    """A time as gateway UTC milliseconds. Raises `Problem` 422."""
    if text is None:
        return None
    try:
        # a plus sign that was not escaped arrives as a blank
        return parse_utc_ms(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
    except (ValueError, OverflowError) as error:
        raise _misfit([{"where": f"query.{name}", "what": f"no time: {error}"}]) from None


def read_cursor(text: str | None) -> Place | None:
    """Where the page begins. Raises `Problem` 422."""
    if text is None:
        return None
    try:
        return decode_cursor(text)
    except ValueError as error:
        raise _misfit([{"where": "query.cursor", "what": str(error)}]) from None


def page_document(items: Sequence[Json], following: Place | None) -> dict[str, Json]:
    """A list's answer."""
    return {"items": list(items), "next": None if following is None else encode_cursor(following)}


def _misfit(faults: list[Json]) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The request does not fit.", more={"errors": faults})
