"""Which requests read all signals: as few as the protocol allows, with what must be seen together in one answer.

Theory of operation. Signals of one table of one device become *atoms*: address spans that may not be torn apart. A value
of several registers is one span. Both channels of a guard are one span from the lower to the higher, whatever lies
between, because two bits from two requests differ by up to a poll and would look like a discrepancy. `locked` and
`bypass` join their guard's span where the whole still fits into one request. An atom is read at the fastest rate of its
members. Sorted atoms of one rate are then swept from below: an atom joins the current block if the gap to it is small
and the block stays within the limit of protocol and device, else it opens a block of its own.

    di:  0 1 . 3 . . . . … 200 201        gap 196 > 64:  [0..3] [200..201]
         └ch┘  └locked     └ch─┘

The result depends on nothing but the signals: the same configuration gives the same requests in the same order.

Source: Modbus Application Protocol 1.1b3, 6.1–6.4 (limits); the outside contract, section 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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

STALE_POLLS: Final = 3
"""Staleness in polls: two lost replies are jitter, the third is a loss."""

COMPANY: Final = frozenset((*CHANNEL_NAMES, "locked", "bypass"))
"""What is read with its guard's channels where one request holds it all."""

_TABLE_ORDER: Final = {table: index for index, table in enumerate(Table)}


def block_limit(table: Table) -> int:
    """How many items of `table` one request may ask for by the protocol."""
    return BITS_MAX if table.is_bits else REGISTERS_MAX


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What one device bears and wants: its rate, its staleness, how much it gives in one answer.

    `gap_bits` and `gap_registers` are how many unused items are read along to save a request. `avoid` are spans (table,
    first, last) of which no address may be read, neither along nor otherwise.
    """

    poll_ms: int
    stale_ms: int
    max_bits: int = BITS_MAX
    max_registers: int = REGISTERS_MAX
    gap_bits: int = GAP_BITS_MAX
    gap_registers: int = GAP_REGISTERS_MAX
    avoid: tuple[tuple[Table, int, int], ...] = ()

    def block(self, table: Table) -> int:
        """How many items of `table` one request may ask for."""
        return self.max_bits if table.is_bits else self.max_registers

    def gap(self, table: Table) -> int:
        """How many unused items of `table` are read along to save a request."""
        return self.gap_bits if table.is_bits else self.gap_registers

    def holds(self, table: Table, start: int, end: int) -> bool:
        """Whether one request may ask for the addresses from `start` to before `end`."""
        return end - start <= self.block(table) and not any(
            table is avoided and start <= last and first < end for avoided, first, last in self.avoid
        )

    def stale_of(self, poll_ms: int) -> int:
        """Staleness of what is read every `poll_ms`: the device's, or that of a slower rate."""
        return self.stale_ms if poll_ms <= self.poll_ms else max(self.stale_ms, STALE_POLLS * poll_ms)


@dataclass(frozen=True, slots=True)
class Atom:
    """Addresses `start` to `end` (exclusive) that one request must hold together, whose they are, and their rate."""

    start: int
    end: int
    signals: tuple[SignalId, ...]
    poll_ms: int


def plan_reads(signals: Iterable[SignalPlan], limits: Mapping[DeviceId, ReadLimits]) -> tuple[ReadBlock, ...]:
    """The blocks that read `signals`, ordered by device, table, rate and address; `blocks[i].id == i`.

    `limits` has an entry for every device of the signals. Each signal lives in exactly one block, which is read at
    least as often as the signal asks for. Both channels of a guard live in one block whenever they are in the same
    table of the same device and fit into one request.
    """
    tables: defaultdict[tuple[DeviceId, Table], list[SignalPlan]] = defaultdict(list)
    for signal in signals:
        tables[signal.device, signal.table].append(signal)
    blocks: list[ReadBlock] = []
    for device, table in sorted(tables, key=lambda key: (key[0], _TABLE_ORDER[key[1]])):
        own = limits[device]
        for poll_ms, atoms in _by_rate(atoms_of(tables[device, table], partial(own.holds, table))):
            for swept in _sweep(atoms, partial(own.holds, table), own.gap(table)):
                blocks.append(
                    ReadBlock(
                        BlockId(len(blocks)),
                        device,
                        table,
                        swept.start,
                        swept.end - swept.start,
                        swept.signals,
                        poll_ms,
                        own.stale_of(poll_ms),
                    )
                )
    return tuple(blocks)


def atoms_of(
    signals: Iterable[SignalPlan], fits: Callable[[int, int], bool], company: frozenset[str] = COMPANY
) -> list[Atom]:
    """The signals of one table as atoms, lowest first; `company` stays with its guard where the whole `fits` a request.

    `fits` is asked with the first address of a span and the one after its last.
    """
    guards: defaultdict[tuple[str | None, str], list[SignalPlan]] = defaultdict(list)
    atoms: list[Atom] = []
    for signal in signals:
        if signal.guard is not None and signal.name in company:
            guards[signal.machine, signal.guard].append(signal)
        else:
            atoms.append(_span([signal]))
    for members in guards.values():
        atoms.extend(_guard_atoms(members, fits))
    return sorted(atoms, key=lambda atom: (atom.start, atom.end, atom.signals))


def _guard_atoms(members: Sequence[SignalPlan], fits: Callable[[int, int], bool]) -> Iterator[Atom]:
    """One atom of the whole guard if it fits, else its channels together if they fit, and the rest apart."""
    channels = [signal for signal in members if signal.name in CHANNEL_NAMES]
    for together in (list(members), channels):
        if together and fits((whole := _span(together)).start, whole.end):
            yield whole
            yield from (_span([signal]) for signal in members if signal not in together)
            return
    yield from (_span([signal]) for signal in members)


def _span(signals: Sequence[SignalPlan]) -> Atom:
    start = min(signal.number for signal in signals)
    end = max(signal.end for signal in signals)
    poll_ms = min(signal.poll_ms for signal in signals)
    return Atom(start, end, tuple(signal.id for signal in signals), poll_ms)


def _by_rate(atoms: Iterable[Atom]) -> list[tuple[int, list[Atom]]]:
    """The atoms of each rate, in their order, fastest first."""
    rates: defaultdict[int, list[Atom]] = defaultdict(list)
    for atom in atoms:
        rates[atom.poll_ms].append(atom)
    return sorted(rates.items())


def _sweep(atoms: Sequence[Atom], fits: Callable[[int, int], bool], gap: int) -> Iterator[Atom]:
    """Atoms of one rate joined into blocks that fit a request, from the lowest address up."""
    block: Atom | None = None
    for atom in atoms:
        if block is None:
            block = atom
        elif atom.start - block.end <= gap and fits(block.start, max(block.end, atom.end)):
            block = Atom(block.start, max(block.end, atom.end), block.signals + atom.signals, block.poll_ms)
        else:
            yield block
            block = atom
    if block is not None:
        yield block
