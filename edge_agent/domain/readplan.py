"""Which requests read all signals: as few as the protocol allows, with what must be seen together in one answer.

Theory of operation. Signals of one table of one device become *atoms*: address spans that may not be torn apart. A value
of several registers is one span. Both channels of a guard are one span from the lower to the higher, whatever lies
between, because two bits from two requests differ by up to a poll and would look like a discrepancy. `locked` and
`bypass` join their guard's span where the whole still fits into one request. Sorted atoms are then swept from below: an
atom joins the current block if the gap to it is small and the block stays within the protocol's limit, else it opens a
block of its own.

    di:  0 1 . 3 . . . . … 200 201        gap 196 > 64:  [0..3] [200..201]
         └ch┘  └locked     └ch─┘

The result depends on nothing but the signals: the same configuration gives the same requests in the same order.

Source: Modbus Application Protocol 1.1b3, 6.1–6.4 (limits); the outside contract, section 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.domain.plan import ReadBlock, SignalPlan, Table
from edge_agent.domain.units import BlockId, DeviceId, SignalId

BITS_MAX: Final = 2000
"""Coils or discrete inputs in one request (Modbus Application Protocol 1.1b3, 6.1 and 6.2)."""

REGISTERS_MAX: Final = 125
"""Registers in one request (Modbus Application Protocol 1.1b3, 6.3 and 6.4)."""

GAP_BITS_MAX: Final = 64
"""Unused bits read along to save a request: eight bytes, less than the header of another one."""

GAP_REGISTERS_MAX: Final = 8
"""Unused registers read along to save a request: sixteen bytes, about the header of another one."""

ADDRESSES: Final = 65536
"""PDU addresses in a table: 0 to 65535."""

CHANNEL_NAMES: Final = ("ch_a", "ch_b")
"""What the two channels of a guard are called among its signals."""

_TOGETHER: Final = frozenset((*CHANNEL_NAMES, "locked", "bypass"))
_TABLE_ORDER: Final = {table: index for index, table in enumerate(Table)}


@dataclass(frozen=True, slots=True)
class _Atom:
    """Addresses `start` to `end` (exclusive) that one request must hold together, and whose they are."""

    start: int
    end: int
    signals: tuple[SignalId, ...]


def block_limit(table: Table) -> int:
    """How many items of `table` one request may ask for."""
    return BITS_MAX if table.is_bits else REGISTERS_MAX


def gap_limit(table: Table) -> int:
    """How many unused items of `table` are read along to save a request."""
    return GAP_BITS_MAX if table.is_bits else GAP_REGISTERS_MAX


def plan_reads(signals: Iterable[SignalPlan]) -> tuple[ReadBlock, ...]:
    """The blocks that read `signals`, ordered by device, table and address; `blocks[i].id == i`.

    Each signal lives in exactly one block. Both channels of a guard live in one block whenever they are in the same
    table of the same device and fit into one request.
    """
    tables: defaultdict[tuple[DeviceId, Table], list[SignalPlan]] = defaultdict(list)
    for signal in signals:
        tables[signal.device, signal.table].append(signal)
    blocks: list[ReadBlock] = []
    for device, table in sorted(tables, key=lambda key: (key[0], _TABLE_ORDER[key[1]])):
        for swept in _sweep(_atoms(tables[device, table], block_limit(table)), table):
            count = swept.end - swept.start
            blocks.append(ReadBlock(BlockId(len(blocks)), device, table, swept.start, count, swept.signals))
    return tuple(blocks)


def _atoms(signals: Sequence[SignalPlan], limit: int) -> list[_Atom]:
    """The signals of one table as atoms, lowest first."""
    guards: defaultdict[tuple[str | None, str], list[SignalPlan]] = defaultdict(list)
    atoms: list[_Atom] = []
    for signal in signals:
        if signal.guard is not None and signal.name in _TOGETHER:
            guards[signal.machine, signal.guard].append(signal)
        else:
            atoms.append(_span([signal]))
    for members in guards.values():
        atoms.extend(_guard_atoms(members, limit))
    return sorted(atoms, key=lambda atom: (atom.start, atom.end, atom.signals))


def _guard_atoms(members: Sequence[SignalPlan], limit: int) -> Iterator[_Atom]:
    """One atom of the whole guard if it fits, else its channels together if they fit, and the rest apart."""
    channels = [signal for signal in members if signal.name in CHANNEL_NAMES]
    for together in (list(members), channels):
        if together and (whole := _span(together)).end - whole.start <= limit:
            yield whole
            yield from (_span([signal]) for signal in members if signal not in together)
            return
    yield from (_span([signal]) for signal in members)


def _span(signals: Sequence[SignalPlan]) -> _Atom:
    start = min(signal.number for signal in signals)
    end = max(signal.end for signal in signals)
    return _Atom(start, end, tuple(signal.id for signal in signals))


def _sweep(atoms: Sequence[_Atom], table: Table) -> Iterator[_Atom]:
    """Atoms joined into blocks, from the lowest address up."""
    limit, gap = block_limit(table), gap_limit(table)
    block: _Atom | None = None
    for atom in atoms:
        if block is None:
            block = atom
        elif atom.start - block.end <= gap and max(block.end, atom.end) - block.start <= limit:
            block = _Atom(block.start, max(block.end, atom.end), block.signals + atom.signals)
        else:
            yield block
            block = atom
    if block is not None:
        yield block
