"""A seal checked by its bytes and an event decoded: two ways that must accept the same payloads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.wire import sealed
from edge_agent.wire.chain import canonical, link_hash
from edge_agent.wire.codec import DecodeError, decode
from edge_agent.wire.event import Event, Position
from edge_agent.wire.sealed import Sealed, bears_seal, unseal

GOLDEN = Path(__file__).parents[2] / "contract/golden/v1"
PAYLOADS = [json.loads(path.read_text("utf-8"))["payload"].encode() for path in sorted(GOLDEN.glob("*.json"))]


def agree(payload: bytes) -> None:
    found, event = unseal(payload), decode(payload)
    assert isinstance(found, Sealed) == isinstance(event, Event)
    if isinstance(found, Sealed) and isinstance(event, Event):
        assert (found.position, found.kind, found.stamp.prev) == (event.position, event.kind, event.prev)


def test_every_released_vector_takes_the_short_way() -> None:
    for payload in PAYLOADS:
        agree(payload)
        assert sealed._unseal_canonical(payload) is not None


@given(st.sampled_from(PAYLOADS), st.data())
def test_spoilt_payloads_are_judged_alike_both_ways(payload: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(payload) - 1))
    removed = data.draw(st.integers(0, 3))
    put = data.draw(
        st.binary(max_size=3) | st.sampled_from([b" ", b'"hash":"x",', b"NaN", b"1.0", b"\\ud800"])
    )
    agree(payload[:place] + put + payload[place + removed :])


def test_what_hashes_but_is_not_written_canonically_says_so() -> None:
    spaced = json.dumps(json.loads(PAYLOADS[0]), ensure_ascii=False).encode()
    doubled = PAYLOADS[0].replace(b'{"after"', b'{"after":null,"after"', 1)
    found = unseal(spaced)
    assert isinstance(found, Sealed)
    assert not found.is_canonical
    assert isinstance(unseal(doubled), DecodeError)


def test_the_hash_of_the_event_before_inside_an_event_is_not_taken_for_its_own() -> None:
    document = json.loads(PAYLOADS[0])
    del document["hash"]
    document["after"] = {"epoch": "01JD0000000000000000000000", "hash": document["prev"], "seq": 1}
    payload = canonical(document | {"hash": link_hash(document["prev"], document)})
    assert sealed._unseal_canonical(payload) is not None
    agree(payload)


@given(st.sampled_from(PAYLOADS), st.data())
def test_only_the_very_bytes_that_were_sealed_bear_their_seal(payload: bytes, data: st.DataObject) -> None:
    found = unseal(payload)
    assert isinstance(found, Sealed)
    assert bears_seal(payload, found.position)
    place = data.draw(st.integers(0, len(payload) - 1))
    put = data.draw(st.binary(max_size=3))
    spoilt = payload[:place] + put + payload[place + data.draw(st.integers(0, 3)) :]
    assert bears_seal(spoilt, found.position) == (spoilt == payload)


def test_a_seal_is_borne_under_its_own_key_and_hash_alone() -> None:
    for payload in PAYLOADS:
        found = unseal(payload)
        assert isinstance(found, Sealed)
        epoch, seq, digest = found.stamp.epoch, found.stamp.seq, found.hash
        assert not bears_seal(payload, Position(epoch, seq + 1, digest))
        assert not bears_seal(payload, Position("01JD0000000000000000000009", seq, digest))
        assert not bears_seal(payload, Position(epoch, seq, "0" * 64))
    assert not bears_seal(b"[" * 100_000, Position(epoch, seq, digest))


def test_whatever_a_damaged_page_holds_is_no_seal_and_no_accident() -> None:
    """One bit of a row's header makes bytes of its hash; the store is read on the way to the gateway, and must go on."""
    payload = PAYLOADS[0]
    found = unseal(payload)
    assert isinstance(found, Sealed)
    epoch, seq, digest = found.stamp.epoch, found.stamp.seq, found.hash
    assert not bears_seal(payload, Position(epoch, seq, cast("str", digest.encode())))
    half = b'{"epoch":"%b","hash":"%b","prev":"\\ud800","seq":%d}' % (epoch.encode(), digest.encode(), seq)
    assert not bears_seal(half, found.position)
