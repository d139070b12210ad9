"""Framings without I/O: what is a frame, when it is over, and what is none."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.adapters.fieldbus_framing import Fed, MbapFraming, RtuFraming, crc
from edge_agent.adapters.fieldbus_request import Request
from edge_agent.adapters.fieldbus_serial import FRAME_SILENCE_LEAST_S, frame_silence_s
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.units import BlockId, DeviceId
from edge_agent.ports import BlockFailed, BlockOk

BLOCK = ReadBlock(BlockId(0), DeviceId("plc"), Table.HOLDING_REGISTER, 0, 2, (), 200, 2000)
BODY = bytes.fromhex("0103041234abcd")
REFUSED = bytes.fromhex("018302")


def asked(framing: MbapFraming | RtuFraming) -> Request:
    request = Request.of(1, BLOCK, framing.encode(1, BLOCK))
    framing.begin(request)
    return request


def mbap(body: bytes, transaction: int = 1) -> bytes:
    return transaction.to_bytes(2, "big") + b"\0\0" + len(body).to_bytes(2, "big") + body


def rtu(body: bytes) -> bytes:
    return body + crc(body)


def test_the_checksum_is_the_one_of_the_standards_example() -> None:
    """Unit 2, function 7: 0x41 0x12 (Modbus over Serial Line 1.02, 6.2.2)."""
    assert crc(bytes([2, 7])) == bytes([0x41, 0x12])


@given(cuts=st.lists(st.integers(0, 60), max_size=8), strangers=st.lists(st.integers(2, 9), max_size=3))
def test_mbap_finds_its_answer_however_the_bytes_are_cut(cuts: list[int], strangers: list[int]) -> None:
    framing = MbapFraming()
    asked(framing)
    stream = b"".join(mbap(b"\x01\x03\x02\x00\x00", number) for number in strangers) + mbap(BODY)
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    fed = [framing.feed(stream[a:b]) for a, b in itertools.pairwise(places)]
    assert fed == [Fed.MORE] * (len(fed) - 1) + [BODY]
    assert not framing.is_mid_frame


@pytest.mark.parametrize(
    "junk", ["000100010006010304", "0001000000020103", "00010000012c0103", "485454502f312e31"]
)
def test_mbap_gives_up_where_no_frame_can_begin(junk: str) -> None:
    framing = MbapFraming()
    asked(framing)
    assert framing.feed(bytes.fromhex(junk)) is Fed.BROKEN


def test_half_an_mbap_frame_makes_the_connection_useless() -> None:
    framing = MbapFraming()
    asked(framing)
    assert framing.feed(mbap(BODY)[:8]) is Fed.MORE
    assert framing.give_up()


@pytest.mark.parametrize("body", [BODY, REFUSED])
def test_an_rtu_answer_is_over_at_its_last_byte_and_believed_after_silence(body: bytes) -> None:
    framing = RtuFraming()
    request = asked(framing)
    frame = rtu(body)
    fed = [framing.feed(frame[place : place + 1]) for place in range(len(frame))]
    assert fed == [Fed.MORE] * (len(frame) - 1) + [Fed.SILENCE]
    assert framing.finish() == body
    assert request.judge(body) == (BlockOk(body[3:]) if body is BODY else BlockFailed("exception:2"))


@pytest.mark.parametrize(
    "frame",
    [
        rtu(BODY) + b"\x55",
        rtu(BODY) + rtu(BODY),
        rtu(BODY)[:-1] + b"\x00",
        b"\x00" + rtu(BODY),
        rtu(BODY)[:3],
        bytes(300),
    ],
)
def test_bytes_beyond_an_rtu_frame_spoil_it_as_a_wrong_checksum_does(frame: bytes) -> None:
    framing = RtuFraming()
    asked(framing)
    framing.feed(frame)
    assert framing.finish() is Fed.BROKEN


@given(bit=st.integers(0, 8 * len(rtu(BODY)) - 1))
def test_every_flipped_bit_of_an_rtu_frame_is_found(bit: int) -> None:
    framing = RtuFraming()
    asked(framing)
    frame = bytearray(rtu(BODY))
    frame[bit // 8] ^= 1 << bit % 8
    framing.feed(bytes(frame))
    assert framing.finish() is Fed.BROKEN


@pytest.mark.parametrize(
    ("body", "reason"),
    [("0203041234abcd", "wrong_unit"), ("0104041234abcd", "wrong_function"), ("0103021234", "short")],
)
def test_an_rtu_frame_that_is_not_the_answer_is_over_when_it_cannot_be_it(body: str, reason: str) -> None:
    framing = RtuFraming()
    request = asked(framing)
    assert framing.feed(rtu(bytes.fromhex(body))) is Fed.SILENCE
    found = framing.finish()
    assert isinstance(found, bytes)
    assert request.judge(found) == BlockFailed(reason)


@given(noise=st.binary(max_size=600))
def test_noise_never_becomes_a_value(noise: bytes) -> None:
    for framing in (MbapFraming(), RtuFraming()):
        request = asked(framing)
        found = framing.feed(noise) if noise else Fed.MORE
        if found is Fed.SILENCE:
            found = framing.finish()
        assert not isinstance(found, bytes) or isinstance(request.judge(found), BlockFailed)


def test_the_silence_between_frames_follows_the_rate_up_to_19200_baud() -> None:
    assert frame_silence_s(9600) == pytest.approx(0.004, rel=0.01)
    assert frame_silence_s(19200) == pytest.approx(0.002, rel=0.01)
    assert frame_silence_s(38400) == frame_silence_s(115200) == FRAME_SILENCE_LEAST_S
