"""Where a signal lives: `DEVICE/TABLE/NUMBER[.BIT]`, a 0-based PDU address and never a 4xxxx label.

Source: the outside contract, section 2; Modbus Application Protocol 1.1b3, section 4.4 (addresses 0 to 65535).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edge_agent.domain.plan import Table
from edge_agent.domain.readplan import ADDRESSES

_FORM: Final = re.compile(
    r"(?:(?P<device>[^/]+)/)?(?P<table>[^/]+)/(?P<number>[0-9]{1,9})(?:\.(?P<bit>[0-9]{1,2}))?"
)
_LABEL: Final = re.compile(r"(?:[^/]+/)?(?:[^/]+/)?[0134][0-9]{4,5}")
_TABLES: Final = frozenset(table.value for table in Table)
_LABEL_BASES: Final = {Table.INPUT_REGISTER: 30000, Table.HOLDING_REGISTER: 40000}
"""What labels of registers start from. Bits are not suspected: controllers do have discrete inputs above 10000."""

_LABEL_COUNT: Final = 9999
"""A five-digit label names the items 1 to 9999 of its table."""

ZERO_BASED: Final = (
    "addresses are 0-based PDU addresses; for 40001 write hr/0, for 30001 ir/0, for 10001 di/0, for 1 co/0"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address; `device` is None where it stood inside a device, `bit` where the whole item is meant."""

    device: str | None
    table: Table
    number: int
    bit: int | None


@dataclass(frozen=True, slots=True)
class Misaddress:
    """Why a text is no address, and how to mend it."""

    what: str
    mend: str


def parse_address(text: str) -> Address | Misaddress:
    """The address that `text` names. Never raises."""
    form = _FORM.fullmatch(text)
    if form is None or (_LABEL.fullmatch(text) and form["table"] not in _TABLES):
        mend = (
            ZERO_BASED
            if _LABEL.fullmatch(text)
            else "write DEVICE/TABLE/NUMBER or DEVICE/TABLE/NUMBER.BIT, such as plc1/di/4"
        )
        return Misaddress(f'"{text[:60]}" is no address', mend)
    try:
        table = Table(form["table"])
    except ValueError:
        return Misaddress(f'"{form["table"][:20]}" is no table', "write co, di, hr or ir: " + ZERO_BASED)
    number, bit = int(form["number"]), int(form["bit"]) if form["bit"] else None
    if number >= ADDRESSES:
        return Misaddress(f"{number} is beyond the last address 65535", ZERO_BASED)
    if bit is not None and table.is_bits:
        return Misaddress(
            f"{table.value}/{number} is one bit already", f"write {table.value}/{number} without .{bit}"
        )
    if bit is not None and bit > 15:
        return Misaddress(f"a register has no bit {bit}", "write a bit from .0 (least significant) to .15")
    return Address(form["device"], table, number, bit)


def looks_like_label(address: Address) -> int | None:
    """The PDU address probably meant, where the number looks like a 4xxxx label of its own table, else None."""
    base = _LABEL_BASES.get(address.table)
    if base is not None and base < address.number <= base + _LABEL_COUNT:
        return address.number - base - 1
    return None
