"""Events taken in their canonical form, as they came: never anything that the long way would judge otherwise."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.wire import codec
from edge_agent.wire.canonical_form import INTEGER_MAX, NESTING_MAX, hash_received, parse_canonical
from edge_agent.wire.chain import canonical, link_hash
from edge_agent.wire.codec import DecodeError, decode, parse_object
from edge_agent.wire.event import Event, Json, Unrecognised
from edge_agent.wire.structure import MisfitError

GOLDEN = Path(__file__).parents[2] / "contract/golden/v1"
PAYLOADS = [json.loads(path.read_text("utf-8"))["payload"].encode() for path in sorted(GOLDEN.glob("*.json"))]

ODD = st.sampled_from(
    [b" ", b"\n", b'"hash":"x",', b"NaN", b"1.0", b"-0", b"\\/", b"\\ud800", b"\\u0041", b"{}"]
)
"""What another writer of JSON might write."""


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """A released event, perhaps spoilt in one place."""
    payload: bytes = draw(st.sampled_from(PAYLOADS))
    place = draw(st.integers(0, len(payload)))
    return payload[:place] + draw(st.binary(max_size=3) | ODD) + payload[place + draw(st.integers(0, 3)) :]


def judge_the_long_way(payload: bytes) -> Event | DecodeError:
    """What `decode` says without its short way: parse, write again, hash, look at all of the content."""
    document = parse_object(payload)
    if isinstance(document, DecodeError):
        return document
    try:
        stamp, kind, digest = codec.read_envelope(document)
    except MisfitError as misfit:
        return DecodeError(str(misfit))
    problem = codec._doubt_hash(document, stamp.prev, digest)
    if problem is not None:
        return problem
    body = codec._body(kind, document, is_canonical=False)
    return Event(**stamp._asdict(), kind=kind, hash=digest, body=body, payload=payload)


def seal_anything(document: dict[str, Json]) -> bytes:
    """An event whose hash is right, whatever it holds."""
    prev = document["prev"]
    assert isinstance(prev, str)
    return canonical(document | {"hash": link_hash(prev, document)})


def test_every_released_event_is_taken_as_it_came() -> None:
    for payload in PAYLOADS:
        document = parse_canonical(payload)
        assert document is not None
        assert document == parse_object(payload)
        stamp, _, digest = codec.read_envelope(document)
        assert hash_received(payload, stamp.prev, digest) == digest


@given(payloads())
def test_both_ways_judge_any_bytes_alike(payload: bytes) -> None:
    quick, long = decode(payload), judge_the_long_way(payload)
    if isinstance(quick, Event) or isinstance(long, Event):
        assert quick == long


@given(payloads())
def test_what_is_taken_as_it_came_would_be_written_so(payload: bytes) -> None:
    document = parse_canonical(payload)
    if document is not None:
        assert document == parse_object(payload)
        assert canonical(document) == payload


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(PAYLOADS), st.dictionaries(st.sampled_from(["zz", "reason", "since", "evidence"]), JSON)
)
def test_both_ways_judge_any_content_with_a_right_hash_alike(payload: bytes, odd: dict[str, Json]) -> None:
    document = json.loads(payload)
    del document["hash"]
    try:
        payload = seal_anything(document | odd)
    except UnicodeEncodeError:
        return  # a lone surrogate has no bytes
    assert decode(payload) == judge_the_long_way(payload)


@pytest.mark.parametrize("odd", [1.5, INTEGER_MAX + 1, -INTEGER_MAX - 1, {"ä": 1}, [[{"x": [0.0]}]]])
def test_what_must_not_travel_keeps_its_place_unrecognised(odd: Json) -> None:
    document = json.loads(PAYLOADS[0])
    del document["hash"]
    event = decode(seal_anything(document | {"zz": odd}))
    assert isinstance(event, Event)
    assert isinstance(event.body, Unrecognised)


def test_a_hash_over_bytes_that_are_not_canonical_is_none() -> None:
    document = json.loads(PAYLOADS[0])
    prev = document["prev"]
    del document["hash"]
    spaced = json.dumps(document, sort_keys=True, ensure_ascii=False)
    digest = hash_received(spaced.encode(), prev, "none")
    forged = spaced.replace('"kind"', f'"hash":"{digest}","kind"', 1).encode()
    assert hash_received(forged, prev, digest) == digest
    assert decode(forged) == DecodeError("the hash does not match the content")


@pytest.mark.parametrize("levels", [65, 300, 490, 600, 985, 1000, 8000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_deep_nesting_is_refused_and_never_raises(levels: int, opening: str, closing: str) -> None:
    document = json.loads(PAYLOADS[0])
    prev = document["prev"]
    del document["hash"]
    times = levels // len(closing) + 1
    inner = opening * times + "1" + closing * times
    unhashed = canonical(document)[:-1] + f',"zz":{inner}}}'.encode()
    digest = sha256(prev.encode() + unhashed).hexdigest()
    payload = unhashed.replace(b'"kind"', b'"hash":"%b","kind"' % digest.encode(), 1)
    assert parse_canonical(payload) is None
    assert decode(payload) == DecodeError("nested too deeply")


def test_what_is_nested_as_deep_as_may_be_is_read_from_any_stack() -> None:
    inner: Json = 1
    for _ in range(NESTING_MAX - 1):
        inner = [inner]
    document = json.loads(PAYLOADS[0])
    del document["hash"]
    payload = seal_anything(document | {"zz": inner})

    def decode_below(frames: int) -> Event | DecodeError:
        return decode_below(frames - 1) if frames else decode(payload)

    assert decode_below(500) == decode(payload)
    assert isinstance(decode(payload), Event)
    assert decode(seal_anything(document | {"zz": [inner]})) == DecodeError("nested too deeply")
