"""A write to a controller cannot be expressed: one module makes requests, of four kinds; two places send, only those."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.adapters.fieldbus_framing import MbapFraming, RtuFraming
from edge_agent.adapters.fieldbus_request import request_pdu
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.units import BlockId, DeviceId

ROOT = Path(__file__).parents[2]
EDGE = sorted((ROOT / "edge_agent").rglob("*.py"))
FIELDBUS = sorted((ROOT / "edge_agent/adapters").glob("fieldbus_*.py"))


def imported(path: Path) -> Iterator[str]:
    """Full names of what a module imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module, names):
                yield from (f"{module}.{name.name}" for name in names)


def calls_of(path: Path, name: str) -> list[str]:
    """Calls of a method or function of this name, as written."""
    found = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    return [
        ast.unparse(node) for node in found if isinstance(node.func, ast.Attribute) and node.func.attr == name
    ]


def test_the_vendor_gives_four_requests_and_a_checksum() -> None:
    taken = {name for path in EDGE for name in imported(path) if name.startswith("pymodbus")}
    assert taken == {
        "pymodbus.framer.rtu.FramerRTU",
        "pymodbus.pdu.ModbusPDU",
        "pymodbus.pdu.bit_message.ReadCoilsRequest",
        "pymodbus.pdu.bit_message.ReadDiscreteInputsRequest",
        "pymodbus.pdu.register_message.ReadHoldingRegistersRequest",
        "pymodbus.pdu.register_message.ReadInputRegistersRequest",
    }


def test_only_framed_requests_are_sent() -> None:
    sent = [
        call
        for path in FIELDBUS
        for name in ("write", "writelines", "send", "sendall")
        for call in calls_of(path, name)
    ]
    assert sorted(sent) == [
        "os.write(self._descriptor, data)",  # the serial transport's own, of what it is given by
        "self._transport.write(self._framing.begin(request))",
    ]


def test_the_serial_library_only_opens() -> None:
    taken = {path.name for path in EDGE if any(name.split(".")[0] == "serial" for name in imported(path))}
    assert taken == {"fieldbus_serial.py"}


@pytest.mark.parametrize("table", Table)
def test_every_request_is_a_read(table: Table) -> None:
    """Function codes 1 to 4, an address and a count: nothing that could be data."""
    code = {Table.COIL: 1, Table.DISCRETE_INPUT: 2, Table.HOLDING_REGISTER: 3, Table.INPUT_REGISTER: 4}[table]
    block = ReadBlock(BlockId(0), DeviceId("plc"), table, 0x1234, 7, (), 200, 2000)
    pdu = bytes([code, 0x12, 0x34, 0, 7])
    assert request_pdu(block) == pdu
    assert MbapFraming().encode(9, block) == bytes([0, 0, 0, 6, 9]) + pdu
    assert RtuFraming().encode(9, block)[:-2] == bytes([9]) + pdu
