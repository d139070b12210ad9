"""Frames that no server should send, fed to the framings piece by piece or at once."""

from edge_agent.adapters.fieldbus_framing import Fed, MbapFraming
from edge_agent.adapters.fieldbus_request import Request
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.units import BlockId, DeviceId

BLOCK = ReadBlock(BlockId(0), DeviceId("plc"), Table.HOLDING_REGISTER, 0, 1, (), 200, 2000)
FIRST = bytes.fromhex("0001 0000 0005 01 03 02 0001")
SECOND = bytes.fromhex("0001 0000 0005 01 03 02 0002")


def test_of_two_answers_under_one_transaction_the_first_counts_in_one_piece_as_in_two() -> None:
    """Two devices with one unit id behind a gateway: what is believed must not hang on how TCP cuts the stream."""
    for pieces in ([FIRST + SECOND], [FIRST, SECOND]):
        framing = MbapFraming()
        framing.begin(Request.of(1, BLOCK, framing.encode(1, BLOCK)))
        assert framing.feed(pieces[0]) == FIRST[6:]


def test_an_answer_in_pieces_is_whole_with_the_last_one() -> None:
    framing = MbapFraming()
    framing.begin(Request.of(1, BLOCK, framing.encode(1, BLOCK)))
    assert [framing.feed(FIRST[n : n + 1]) for n in range(len(FIRST) - 1)] == [Fed.MORE] * 10
    assert framing.feed(FIRST[-1:]) == FIRST[6:]
