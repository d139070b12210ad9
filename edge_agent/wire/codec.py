"""Bytes to events and back: total in both directions.

Decoding runs in three stages, and each failure says which it was:

    bytes ──size, UTF-8, JSON──▶ object ──envelope, hash──▶ Event ──kind, content──▶ body
              DecodeError                  DecodeError             Unrecognised (keeps its place)

What an agent sends is the canonical form of its event (`canonical_form`): then the bytes themselves are what its hash
is of, and hold nothing that does not travel. Everything else goes the long way, which says what is wrong.

Any bytes give an `Event` or a `DecodeError`, never another exception: the size is capped before parsing, duplicate
keys and NaN are refused, and so is deep nesting (on which `json` itself raises RecursionError).
Bodies are decoded by their annotations (`structure`). Unknown fields are ignored (younger agents may send more),
missing ones are not.

Source: the outside contract, sections 3 and 6.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, cast

from edge_agent.wire.canonical_form import (
    INTEGER_MAX,
    NESTING_MAX,
    hash_received,
    is_nested_within,
    parse_canonical,
)
from edge_agent.wire.chain import canonical, link_hash
from edge_agent.wire.event import (
    BODY_KINDS,
    KIND_OF,
    WIRE_VERSION,
    Body,
    ClockState,
    Event,
    Json,
    Observation,
    Unrecognised,
)
from edge_agent.wire.structure import MisfitError, field_names, plain, structure
from edge_agent.wire.topics import ID_PATTERN

PAYLOAD_MAX_BYTES = 48 * 1024
"""No payload above this leaves an agent (the outside contract, section 3); creation asserts it."""

DECODE_MAX_BYTES = 64 * 1024
"""A receiver looks at no payload above this: room for younger versions, a bound for everybody else."""

_UNSEALED = "?" * 64
"""Stands where the hash will, so that an event is written only once: with it, and hashed without."""

_HASH = re.compile(r"[0-9a-f]{64}")
_EPOCH = re.compile(r"[0-9A-Za-z]{10,40}")
_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_ENVELOPE = ("v", "site", "agent", "epoch", "seq", "boot", "mono_ms", "at", "clock", "kind", "prev", "hash")
_OPTIONAL = ("wall",)
"""Envelope fields of younger agents."""

_REQUIRED = frozenset(_ENVELOPE)
_ENVELOPE_KEYS = _REQUIRED | frozenset(_OPTIONAL)


@dataclass(frozen=True, slots=True)
class DecodeError:
    """Why bytes are no event: a sentence for the quarantine page."""

    reason: str


class Stamp(NamedTuple):
    """What the store adds when it mints an event: identity, place, time. `at`, `wall`: RFC 3339 UTC with microseconds."""

    site: str
    agent: str
    epoch: str
    seq: int
    boot: str
    mono_ms: int
    at: str
    clock: ClockState
    prev: str
    wall: str | None = None


def seal(stamp: Stamp, body: Body) -> Event:
    """The event that `body` becomes at this place in the chain, with its hash and its canonical bytes.

    Raises `ValueError` when it would exceed `PAYLOAD_MAX_BYTES`, say a field of the envelope twice, or hold what
    canonical JSON cannot (a float, an integer beyond 2^53−1, a non-ASCII key): a programming error, since sizes are
    bounded by the configuration check.
    """
    kind = KIND_OF[type(body)]
    content = body_document(body)
    if clash := content.keys() & _ENVELOPE_KEYS:
        raise ValueError(f"{kind.value}: {', '.join(sorted(clash))} stands in the envelope already")
    document: dict[str, Json] = {
        "v": WIRE_VERSION,
        "site": stamp.site,
        "agent": stamp.agent,
        "epoch": stamp.epoch,
        "seq": stamp.seq,
        "boot": stamp.boot,
        "mono_ms": stamp.mono_ms,
        "at": stamp.at,
        "clock": stamp.clock.value,
        "kind": kind.value,
        "prev": stamp.prev,
        **content,
    }
    if stamp.wall is not None:
        document["wall"] = stamp.wall
    demand_canonical(document, "event")
    document["hash"] = _UNSEALED
    before, _, after = canonical(document).partition(_UNSEALED_MEMBER)
    digest = sha256(b"".join((stamp.prev.encode("ascii"), before, after))).hexdigest()
    payload = b"".join((before, _hash_member(digest), after))
    if len(payload) > PAYLOAD_MAX_BYTES:
        raise ValueError(f"an event of {len(payload)} bytes exceeds {PAYLOAD_MAX_BYTES}: {kind.value}")
    return Event(
        stamp.site,
        stamp.agent,
        stamp.epoch,
        stamp.seq,
        stamp.boot,
        stamp.mono_ms,
        stamp.at,
        stamp.clock,
        kind.value,
        stamp.prev,
        digest,
        body,
        payload,
        stamp.wall,
    )


def _hash_member(digest: str) -> bytes:
    """The hash as a member of a canonical event: `kind` sorts after it and is always there, so a comma follows."""
    return b'"hash":"%b",' % digest.encode("ascii")


_UNSEALED_MEMBER = _hash_member(_UNSEALED)


def body_document(body: Body) -> dict[str, Json]:
    """The fields of a body as they stand in the event object; an observation's detail stands beside its `what`."""
    if isinstance(body, Observation):
        return {**{key: plain(value) for key, value in body.detail.items()}, "what": body.what}
    kind: type = type(body)
    return {name: plain(getattr(body, name)) for name in field_names(kind)}


def decode(payload: bytes) -> Event | DecodeError:
    """The event in `payload`, its hash verified, or why there is none. Never raises."""
    received = parse_canonical(payload) if len(payload) <= DECODE_MAX_BYTES else None
    document = parse_object(payload) if received is None else received
    if isinstance(document, DecodeError):
        return document
    try:
        stamp, kind, digest = read_envelope(document)
    except MisfitError as misfit:
        return DecodeError(f"no readable envelope: {misfit}")
    is_canonical = received is not None and hash_received(payload, stamp.prev, digest) == digest
    if not is_canonical:
        problem = _doubt_hash(document, stamp.prev, digest)
        if problem is not None:
            return problem
    return Event(
        stamp.site,
        stamp.agent,
        stamp.epoch,
        stamp.seq,
        stamp.boot,
        stamp.mono_ms,
        stamp.at,
        stamp.clock,
        kind,
        stamp.prev,
        digest,
        _body(kind, document, is_canonical=is_canonical),
        payload,
        stamp.wall,
    )


def _doubt_hash(document: Mapping[str, Json], prev: str, digest: str) -> DecodeError | None:
    """What is wrong with the hash of an object that came in whatever form; None where nothing is."""
    try:
        unhashed = {key: value for key, value in document.items() if key != "hash"}
        if link_hash(prev, unhashed) != digest:
            return DecodeError("the hash does not match the content")
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        return DecodeError(f"no canonical form: {error}")
    return None


def parse_object(payload: bytes, nesting_max: int = NESTING_MAX) -> dict[str, Json] | DecodeError:
    """A JSON object from untrusted bytes: size-capped, no NaN, no duplicate keys, no deep nesting. Never raises."""
    if len(payload) > DECODE_MAX_BYTES:
        return DecodeError(f"more bytes than the limit of {DECODE_MAX_BYTES}")
    try:
        document = _DECODER.decode(payload.decode("utf-8"))
    except UnicodeDecodeError as error:
        return DecodeError(f"not UTF-8: {error.reason} at byte {error.start}")
    except RecursionError:
        return DecodeError("nested too deeply")
    except ValueError as error:
        return DecodeError(f"not JSON: {error}")
    if not isinstance(document, dict):
        return DecodeError("not a JSON object")
    if not is_nested_within(document, nesting_max):
        return DecodeError("nested too deeply")
    return document


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return document


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
"""Made once: `json.loads` makes a new one for each call with hooks."""


def read_envelope(document: Mapping[str, Json]) -> tuple[Stamp, str, str]:
    """The stamp, kind and stated hash of an event object. Raises `MisfitError`; proves no hash."""
    if not document.keys() >= _REQUIRED:
        raise MisfitError(f"missing {', '.join(key for key in _ENVELOPE if key not in document)}")
    if not isinstance(document["v"], int) or isinstance(document["v"], bool):
        raise MisfitError("v is no integer")
    stamp = Stamp(
        _matching(document, "site", ID_PATTERN),
        _matching(document, "agent", ID_PATTERN),
        _matching(document, "epoch", _EPOCH),
        _integer(document, "seq", 1),
        _text(document, "boot"),
        _integer(document, "mono_ms", 0),
        _instant(document["at"], "at"),
        ClockState.SYNCED if document["clock"] == "synced" else _unsynced(document["clock"]),
        _matching(document, "prev", _HASH),
        _instant(document["wall"], "wall") if "wall" in document else None,
    )
    return stamp, _text(document, "kind"), _matching(document, "hash", _HASH)


def _unsynced(value: Json) -> ClockState:
    if value != ClockState.UNSYNCED.value:
        raise MisfitError("clock is neither synced nor unsynced")
    return ClockState.UNSYNCED


def _text(document: Mapping[str, Json], key: str, length_max: int = 128) -> str:
    value = document[key]
    if not isinstance(value, str) or not 0 < len(value) <= length_max:
        raise MisfitError(f"{key} is no text of 1 to {length_max} characters")
    return value


def _matching(document: Mapping[str, Json], key: str, pattern: re.Pattern[str]) -> str:
    value = document[key]
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    _text(document, key)
    raise MisfitError(f"{key} has not the form {pattern.pattern}")


def _instant(value: Json, where: str) -> str:
    """RFC 3339 in UTC, and a date that the calendar has: whoever reads it later may rely on that."""
    if not isinstance(value, str) or not _AT.fullmatch(value):
        raise MisfitError(f"{where} has not the form {_AT.pattern}")
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise MisfitError(f"{where}: {error}") from None
    return value


def _integer(document: Mapping[str, Json], key: str, least: int) -> int:
    value = document[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= INTEGER_MAX:
        raise MisfitError(f"{key} is no integer from {least} to 2^53-1")
    return value


def _body(kind: str, document: Mapping[str, Json], *, is_canonical: bool) -> Body | Unrecognised:
    if document["v"] != WIRE_VERSION:
        return Unrecognised(f"version {document['v']} is not known here")
    body_type = _BODY_TYPES.get(kind)
    if body_type is None:
        return Unrecognised(f"kind {kind[:48]!r} is not known here")
    try:
        if not is_canonical:
            demand_canonical(_content(document), kind)
        if body_type is Observation:
            detail = {key: value for key, value in _content(document).items() if key != "what"}
            return Observation(what=_text(document, "what"), detail=detail)
        _demand_instants(document, kind)
        return cast(
            "Body", structure(body_type, document, kind)
        )  # no field of a body is called as one of the envelope
    except KeyError as missing:
        return Unrecognised(f"{kind}: missing {missing}")
    except ValueError as misfit:
        return Unrecognised(str(misfit))


_BODY_TYPES: Mapping[str, type[Body]] = {kind.value: body for kind, body in BODY_KINDS.items()}


def _content(document: Mapping[str, Json]) -> dict[str, Json]:
    """What stands in an event object beside its envelope."""
    return {key: value for key, value in document.items() if key not in _ENVELOPE_KEYS}


_INSTANT_KEYS = ("since", "until")
"""Fields that hold a time wherever they stand in a body (null where there is none), free-form evidence excepted."""


def _demand_instants(value: Mapping[str, Json], where: str) -> None:
    """Refuse a time in a body that is none, so that no reader of the journal ever stumbles over it."""
    for key in _INSTANT_KEYS:
        if value.get(key) is not None:
            _instant(value[key], f"{where}.{key}")
    for key, item in value.items():
        kind = type(item)
        if (kind is dict or kind is list) and key != "evidence" and key not in _INSTANT_KEYS:
            _demand_instants_within(item, f"{where}.{key}")


def _demand_instants_within(value: Json, where: str) -> None:
    if isinstance(value, dict):
        _demand_instants(value, where)
    elif isinstance(value, list):
        for item in value:
            _demand_instants_within(item, where)


def demand_canonical(value: object, where: str) -> None:
    """Raises `MisfitError` for what has no canonical form that every reader shares: floats, huge integers, non-ASCII keys."""
    if _is_canonical(value):
        return  # without a word about where
    match value:
        case None | bool() | str():
            return
        case int():
            if abs(value) > INTEGER_MAX:
                raise MisfitError(f"{where}: an integer beyond 2^53-1 travels as a decimal string")
        case list():
            for item in value:
                demand_canonical(item, where)
        case dict():
            for key, item in value.items():
                if not key.isascii():
                    raise MisfitError(f"{where}: a key is not ASCII")
                demand_canonical(item, f"{where}.{key}")
        case _:
            raise MisfitError(f"{where}: {type(value).__name__} does not travel in an event")


def _is_canonical(value: object) -> bool:
    """Whether `demand_canonical` would let it pass, as nearly every event does."""
    if value is None or isinstance(value, str | bool):
        return True
    if isinstance(value, int):
        return -INTEGER_MAX <= value <= INTEGER_MAX
    if isinstance(value, list):
        return all(map(_is_canonical, value))
    if isinstance(value, dict):
        return all(map(str.isascii, value)) and all(map(_is_canonical, value.values()))
    return False
