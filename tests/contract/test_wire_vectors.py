"""The wire against vectors that no code of the project wrote, and against everything that is not a vector.

`golden/v1/*.json` were computed once, by hashlib and json alone: `payload` as it travels, its `hash`, its `kind`. They
are immutable: gateways must read what agents in the field send, for as long as those run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.wire.codec import DECODE_MAX_BYTES, DecodeError, Stamp, decode, seal
from edge_agent.wire.event import BODY_KINDS, Event, EventKind, Json, Observation, Unrecognised
from edge_agent.wire.status import Ack, Health, decode_ack, decode_health, encode_status

VECTORS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in sorted((Path(__file__).parent / "golden/v1").glob("*.json"))
}
PAYLOADS = [vector["payload"].encode() for vector in VECTORS.values()]

DIGEST = "f68c8f4fc3abb9e6"
"""First digits of SHA-256 over all vectors in order: a changed vector is a broken promise, a new one changes this."""


def read(name: str) -> Event:
    event = decode(VECTORS[name]["payload"].encode())
    assert isinstance(event, Event)
    return event


def test_there_is_a_vector_of_every_kind() -> None:
    assert {vector["kind"] for vector in VECTORS.values()} == {kind.value for kind in EventKind}


def test_the_vectors_are_the_released_ones() -> None:
    digest = hashlib.sha256()
    for name, vector in VECTORS.items():
        digest.update(name.encode() + vector["payload"].encode())
    assert digest.hexdigest()[: len(DIGEST)] == DIGEST


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_read_as_its_kind_and_written_back_byte_for_byte(name: str) -> None:
    event = read(name)
    assert not isinstance(event.body, Unrecognised)
    assert type(event.body) is BODY_KINDS[EventKind(VECTORS[name]["kind"])]
    stamp = Stamp(
        event.site,
        event.agent,
        event.epoch,
        event.seq,
        event.boot,
        event.mono_ms,
        event.at,
        event.clock,
        event.prev,
    )
    again = seal(stamp, event.body)
    assert (again.payload, again.hash) == (VECTORS[name]["payload"].encode(), VECTORS[name]["hash"])
    assert again == event


def test_any_changed_byte_breaks_the_hash() -> None:
    payload = PAYLOADS[0]
    for place in range(0, len(payload), 7):
        changed = payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]
        assert isinstance(decode(changed), DecodeError)


def resealed(name: str, **changes: Json) -> bytes:
    """A vector with other content and a hash that fits it; a change to `...` is not sent."""
    document = json.loads(VECTORS[name]["payload"]) | changes
    document.pop("hash")
    body = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    document["hash"] = hashlib.sha256(document["prev"].encode() + body).hexdigest()
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("guard_changed", {"kind": "guard_melted"}),
        ("guard_changed", {"state": "ajar"}),
        ("guard_changed", {"machine": 7}),
        ("guard_changed", {"v": 2}),
        ("violation_raised", {"priority": "P0"}),
        ("violation_raised", {"since": "yesterday"}),
        ("violation_cleared", {"duration_ms": "12"}),
        ("violation_cleared", {"duration_ms": True}),
        ("violation_cleared", {"duration_ms": 2**53}),
        ("state_report", {"guards": []}),
        ("checkpoint", {"upto": None}),
        ("observation", {"what": ""}),
        ("observation", {"größe": 1}),
    ],
)
def test_what_this_version_does_not_know_keeps_its_place(name: str, changes: dict[str, Json]) -> None:
    event = decode(resealed(name, **changes))
    assert isinstance(event, Event)
    assert isinstance(event.body, Unrecognised)
    assert event.seq == json.loads(VECTORS[name]["payload"])["seq"]


def test_fields_of_a_younger_agent_are_ignored() -> None:
    event = decode(resealed("guard_changed", colour="red"))
    assert isinstance(event, Event)
    assert event.body == read("guard_changed").body


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "Changyi"},
        {"agent": "gw/01"},
        {"epoch": "x"},
        {"seq": 0},
        {"seq": True},
        {"seq": 2**53},
        {"seq": "1"},
        {"at": "2026-02-30T00:00:00Z"},
        {"at": "2026-11-22 15:08:00"},
        {"clock": "maybe"},
        {"boot": ""},
        {"mono_ms": -1},
        {"v": True},
        {"v": None},
    ],
)
def test_without_a_readable_envelope_there_is_no_event(changes: dict[str, Json]) -> None:
    assert isinstance(decode(resealed("guard_changed", **changes)), DecodeError)


NASTY = [
    b"",
    b" ",
    b"null",
    b"[]",
    b"[" * 30_000,
    b'{"a":' * 20_000,
    b"[" * 20_000 + b"]" * 20_000,
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b'{"\\ud800":1}',
    b"NaN",
    b"[Infinity]",
    b"[-Infinity]",
    b"1" * 5000,
    b"-",
    b"1e999999",
    b'{"a":1,"a":1}',
    b"\xef\xbb\xbf{}",
    b'{"a":1}}',
    b"{'a':1}",
    b'{"a":"\x00"}',
    b"x" * (DECODE_MAX_BYTES + 1),
]


@pytest.mark.parametrize("payload", NASTY, ids=range(len(NASTY)))
def test_nasty_bytes_are_refused_without_an_exception(payload: bytes) -> None:
    assert isinstance(decode(payload), DecodeError)
    assert isinstance(decode_ack(payload), DecodeError)
    assert isinstance(decode_health(payload), DecodeError)


@given(st.binary(max_size=300))
def test_any_bytes_become_a_value(payload: bytes) -> None:
    assert isinstance(decode(payload), Event | DecodeError)
    assert isinstance(decode_ack(payload), Ack | DecodeError)
    assert isinstance(decode_health(payload), Health | DecodeError)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(VECTORS)), st.data())
def test_any_value_in_any_field_becomes_a_value(name: str, data: st.DataObject) -> None:
    """Well hashed or not: a mutated event is an event, known or not, or a reason."""
    document = json.loads(VECTORS[name]["payload"])
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(json_values)
    try:
        body = json.dumps(
            {k: v for k, v in document.items() if k != "hash"},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )
        document["hash"] = hashlib.sha256((str(document["prev"]) + body).encode()).hexdigest()
        payload = json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return  # a lone surrogate has no bytes to send
    assert isinstance(decode(payload), Event | DecodeError)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.text(st.characters(max_codepoint=127), min_size=1, max_size=10).map("x_{}".format),
        plain_values,
        max_size=5,
    )
)
@example({"x_": "\u2028\u2029\u007f\u0000\ufeff"})
def test_every_observation_survives_the_wire(detail: dict[str, Json]) -> None:
    event = read("observation")
    stamp = Stamp(event.site, event.agent, event.epoch, 1, "b", 0, event.at, event.clock, event.prev)
    sealed = seal(stamp, Observation("anything", detail))
    assert decode(sealed.payload) == sealed


@pytest.mark.parametrize("bad", [1.5, 2**53, -(2**53), {"größe": 1}, float("nan")])
def test_what_has_no_canonical_form_is_never_sealed(bad: Json) -> None:
    event = read("observation")
    stamp = Stamp(event.site, event.agent, event.epoch, 1, "b", 0, event.at, event.clock, event.prev)
    with pytest.raises(ValueError, match="event"):
        seal(stamp, Observation("anything", {"value": bad}))


def test_a_body_cannot_overwrite_its_envelope() -> None:
    event = read("observation")
    stamp = Stamp(event.site, event.agent, event.epoch, 1, "b", 0, event.at, event.clock, event.prev)
    with pytest.raises(ValueError, match="observation: hash, seq stands in the envelope already"):
        seal(stamp, Observation("epoch_fork", {"seq": 9, "hash": "f"}))


def test_a_last_will_holds_three_fields_and_is_read_as_health() -> None:
    will = Health(online=False, epoch="01JD3M8ZQ0", boot="b")
    assert json.loads(encode_status(will)) == {"online": False, "epoch": "01JD3M8ZQ0", "boot": "b"}
    assert decode_health(encode_status(will)) == will


@pytest.mark.parametrize(
    ("document", "held"),
    [
        ({"to": "E", "epoch": "E", "seq": 3, "hash": "h", "reset": False}, True),
        ({"to": "E", "epoch": None, "seq": None, "hash": None, "reset": True}, False),
    ],
)
def test_acks_name_a_position_or_nothing(document: dict[str, Json], held: bool) -> None:
    ack = decode_ack(json.dumps(document).encode())
    assert isinstance(ack, Ack)
    assert (ack.position is not None) is held
