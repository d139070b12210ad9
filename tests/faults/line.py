"""One endpoint in virtual time: slaves that answer in order, and a wire that does to their replies what wires do.

A slave works on one request after the other and takes its content at some moment on the way, so a slave that is late is
late with everything after it, too. Over Modbus/TCP a reply belongs to the connection that asked; over RTU framing the
wire has one listener at a time, and whoever is connected hears what comes: a late reply outlives the connection that
asked for it, as behind a transparent serial server. Units die for seconds and come back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from edge_agent.adapters.fieldbus_connection import Connection
from simulators.draw import Draw
from simulators.faults import Fault, FaultKind, Frame, Framing, kinds_of, spoil
from tests.faults.truth import Place
from tests.simulation.virtual_loop import VirtualLoop, virtual_loop

TIMEOUT_MS: Final = 100
SERVICE_MS: Final = (1, 8)
REFUSED_SHARE: Final = 0.1
"""Of connections that are made anew after a loss."""

FOLLOW_S: Final = 0.001
"""What comes at a reply's heels comes within this: less than the silence that ends a frame."""

DEAF_S: Final = 1.0
"""How long a serial line swallows everything; a TCP connection does until it is given up."""

DEATH_NS: Final = 4_000_000_000
_DEAD_ONE_IN: Final = 23

OLD_VALUES: Final = frozenset({FaultKind.CACHED})
"""Faults that no link can see: see the package."""


class Kind(StrEnum):
    """What lies between the agent and the slaves."""

    MBAP = "mbap"
    RTU_OVER_TCP = "rtu-tcp"
    SERIAL = "serial"

    @property
    def framing(self) -> Framing:
        """How frames are cut."""
        return Framing.MBAP if self is Kind.MBAP else Framing.RTU


class Wire(asyncio.Transport):
    """The agent's end of a connection."""

    def __init__(self, line: FaultyLine, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.is_deaf_until_s = 0.0
        self._line = line
        self._is_open = True

    def is_closing(self) -> bool:
        return not self._is_open

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if self._is_open:
            self._line.hear(self, bytes(data))

    def abort(self) -> None:
        self.end(None)

    def end(self, error: Exception | None) -> None:
        """The connection is over."""
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, error)

    def bring(self, data: bytes) -> None:
        """Bytes for the agent."""
        if self._is_open:
            self.connection.data_received(data)


class FaultyLine:
    """The slaves behind one endpoint; a `Dial` of the agent's links. `share` of the replies are spoilt."""

    name = "the faulty line"
    closed_early = "closed before any answer"

    def __init__(self, kind: Kind, places: list[Place], draw: Draw, share: float) -> None:
        self.replies = 0
        self.struck: Counter[FaultKind] = Counter()
        self._kind = kind
        self._framing = kind.framing
        self._kinds = sorted(kinds_of(kind.framing) - OLD_VALUES)
        self._draw = draw
        self._share = share
        self._places = {
            (place.unit, place.block.table.function_code, place.block.start): place for place in places
        }
        self._loop: VirtualLoop = virtual_loop()
        self._free_ns: Counter[int] = Counter()
        self._wire: Wire | None = None
        self._stray: bytes | None = None

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        """A connection that is up, or refused."""
        if self._wire is not None and self._kind is not Kind.SERIAL and self._draw.chance(REFUSED_SHARE):
            raise ConnectionRefusedError("nobody listens")
        connection = make()
        self._wire = Wire(self, connection)
        connection.connection_made(self._wire)
        return connection

    def hear(self, wire: Wire, data: bytes) -> None:
        """A request has come. Raises AssertionError for one that is none of the four that read."""
        request = Frame.read(self._framing, data)
        assert len(request.pdu) == 5 and request.pdu[0] in {1, 2, 3, 4}, f"{data.hex()} was sent"  # noqa: PT018
        place = self._places[request.unit, request.pdu[0], int.from_bytes(request.pdu[1:3], "big")]
        self._let_stray_go(wire, request)
        now_ns = self._loop.now_ns
        if self._loop.time() < wire.is_deaf_until_s or is_dead(request.unit, now_ns):
            return
        kind = self._draw.choice(self._kinds) if self._draw.chance(self._share) else None
        started_ns = max(now_ns, self._free_ns[request.unit])
        done_ns = started_ns + 1_000_000 * self._service_ms(kind)
        self._free_ns[request.unit] = done_ns
        taken_ns = self._draw.between(started_ns, done_ns)
        content = place.content(taken_ns)[: _content_bytes(request.pdu)]
        pdu = bytes([request.pdu[0], len(content)]) + content
        frame = Frame(request.transaction, request.unit, pdu).sealed(self._framing)
        self.replies += 1
        if kind is not None:
            self.struck[kind] += 1
        self._at((done_ns - now_ns) / 1e9, self._emit, wire, kind, frame)

    def _service_ms(self, kind: FaultKind | None) -> int:
        match kind:
            case FaultKind.LATE:
                return self._draw.between(TIMEOUT_MS // 2, 4 * TIMEOUT_MS)
            case FaultKind.LATENCY:
                return self._draw.between(SERVICE_MS[1], TIMEOUT_MS - 1)
            case _:
                return self._draw.between(*SERVICE_MS)

    def _emit(self, wire: Wire, kind: FaultKind | None, frame: bytes) -> None:
        """The reply leaves its slave."""
        match kind:
            case None | FaultKind.LATE | FaultKind.LATENCY:
                self._bring(wire, frame)
            case FaultKind.DRIBBLE:
                gap_s = self._draw.between(1, 15) / 10_000
                for place in range(len(frame)):
                    self._at(place * gap_s, self._bring, wire, frame[place : place + 1])
            case FaultKind.DROP_REPLY:
                pass
            case FaultKind.SWALLOW:
                wire.is_deaf_until_s = self._loop.time() + DEAF_S if self._kind is Kind.SERIAL else 1e12
            case FaultKind.RESET | FaultKind.CLOSE | FaultKind.RESET_MID_FRAME:
                if kind is FaultKind.RESET_MID_FRAME:
                    self._bring(wire, frame[: len(frame) // 2])
                if self._kind is not Kind.SERIAL:
                    wire.end(None if kind is FaultKind.CLOSE else ConnectionResetError("reset"))
            case FaultKind.JUNK:
                self._emit_junk(wire, frame)
            case FaultKind.DUPLICATE | FaultKind.TWO_ANSWERS:
                self._emit_twice(wire, kind, frame)
            case _:
                self._bring(wire, spoil(Fault(kind), self._framing, frame, self._draw))

    def _emit_junk(self, wire: Wire, frame: bytes) -> None:
        """Noise instead of the reply, whole or in pieces; or after it, when the line should be still."""
        junk = spoil(Fault(FaultKind.JUNK), self._framing, frame, self._draw)
        if self._draw.chance(0.5):
            self._bring(wire, frame)
            self._at(self._draw.between(0, 60) / 1000, self._bring, wire, junk)
            return
        for piece in range(0, len(junk), 100):
            self._at(piece / 100 * FOLLOW_S, self._bring, wire, junk[piece : piece + 100])

    def _emit_twice(self, wire: Wire, kind: FaultKind, frame: bytes) -> None:
        """Two replies: in one piece, the second at the first's heels, or (a doubled one) later."""
        both = spoil(Fault(kind), self._framing, frame, self._draw)
        match self._draw.between(0, 2):
            case 0:
                self._bring(wire, both)
            case 1:
                self._bring(wire, both[: len(frame)])
                self._at(FOLLOW_S, self._bring, wire, both[len(frame) :])
            case _:
                self._bring(wire, both[: len(frame)])
                if self._kind is Kind.MBAP:
                    self._at(self._draw.between(0, 300) / 1000, self._bring, wire, both[len(frame) :])
                elif kind is FaultKind.DUPLICATE:
                    self._stray = frame

    def _let_stray_go(self, wire: Wire, request: Frame) -> None:
        """A doubled reply comes while another request waits: one that it cannot be taken for (see the package)."""
        if self._stray is None:
            return
        stray, self._stray = self._stray, None
        if (stray[0], stray[1]) != (request.unit, request.pdu[0]):
            self._at(FOLLOW_S, self._bring, wire, stray)

    def _bring(self, wire: Wire, data: bytes) -> None:
        listener = wire if self._kind is Kind.MBAP else self._wire
        if listener is not None and self._loop.time() >= listener.is_deaf_until_s:
            listener.bring(data)

    def _at(self, delay_s: float, action: Callable[..., None], *values: object) -> None:
        if delay_s > 0:
            self._loop.call_later(delay_s, action, *values)
        else:
            action(*values)


def _content_bytes(pdu: bytes) -> int:
    """How many data bytes a request asks for; a link may ask for a part of a block."""
    count = int.from_bytes(pdu[3:5], "big")
    return (count + 7) // 8 if pdu[0] in {1, 2} else 2 * count


def is_dead(unit: int, at_ns: int) -> bool:
    """Whether a unit has no power then: for whole spans of four seconds, twice the time in which values go stale."""
    return (at_ns // DEATH_NS * 31 + unit * 17) % _DEAD_ONE_IN == 0
