"""What the agent asks a Modbus device, and which answers it believes. Every byte that is sent is made from here.

There are four requests, function codes 1 to 4, and no others (Modbus application protocol V1.1b3, 6.1-6.4): a framing
takes a `ReadBlock`, never bytes, so that a write cannot be expressed in the code that sends.

The vendor's PDU classes encode the requests. The transactions around them are our own, because the vendor's client
accepts other function codes and shorter answers than asked for, waits out its timeout after a close, takes a late
answer on serial framing for the next one, and costs four times the processor time at 1000 devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome

EXCEPTION_FLAG: Final = 0x80
"""Set in the function code of a refusal (Modbus application protocol V1.1b3, 7)."""

_EXCEPTION_PDU_BYTES: Final = 2

_REQUESTS: Final[dict[Table, type[ModbusPDU]]] = {
    Table.COIL: ReadCoilsRequest,
    Table.DISCRETE_INPUT: ReadDiscreteInputsRequest,
    Table.HOLDING_REGISTER: ReadHoldingRegistersRequest,
    Table.INPUT_REGISTER: ReadInputRegistersRequest,
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, encoded once. `frame` is what its framing made of it, `head` how a good answer's body begins."""

    unit: int
    block: ReadBlock
    frame: bytes
    function: int
    head: bytes
    body_bytes: int

    @classmethod
    def of(cls, unit: int, block: ReadBlock, frame: bytes) -> Request:
        """The request that reads `block` of `unit`, framed as `frame`."""
        head = bytes([unit, block.table.function_code, block.length_bytes])
        return cls(unit, block, frame, block.table.function_code, head, len(head) + block.length_bytes)

    def judge(self, body: bytes) -> BlockOutcome:
        """The outcome that `body` (unit id and PDU of an answer) is."""
        if len(body) == self.body_bytes and body.startswith(self.head):
            return BlockOk(body[3:])
        return BlockFailed(_fault(self.unit, self.block, body))


def request_pdu(block: ReadBlock) -> bytes:
    """Function code and data of the request that reads `block`."""
    request = _REQUESTS[block.table](address=block.start, count=block.count)
    return bytes([block.table.function_code]) + request.encode()


def judge(unit: int, block: ReadBlock, body: bytes) -> BlockOutcome:
    """Whether `body` (unit id and PDU of an answer) is exactly what reading `block` of `unit` must give."""
    return Request.of(unit, block, b"").judge(body)


def _fault(unit: int, block: ReadBlock, body: bytes) -> str:
    """Why a body is not the answer, in the order in which it is looked at."""
    if body[0] != unit:
        return "wrong_unit"
    function, pdu = body[1], body[1:]
    expected = block.table.function_code
    if function == expected | EXCEPTION_FLAG and len(pdu) == _EXCEPTION_PDU_BYTES:
        return f"exception:{pdu[1]}"
    return "short" if function == expected else "wrong_function"
