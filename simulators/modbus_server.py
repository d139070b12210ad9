"""A register bank over real Modbus/TCP, in the clear or over TLS, by pymodbus's simulator classes.

Every answer is taken from the bank at the moment it is sent, in one step of the event loop, so a change of the bank
is never seen by halves. pymodbus's server has habits that would look like faults of the product; how each is met:

- a `SimData` with a `count` costs its square at start: tables are given as value lists instead;
- an unknown unit answers exception 04, even when told to ignore it: the handler stays silent, as a gateway's dead
  unit does;
- a delay inside `action` lets a late reply carry a newer request's transaction id: nothing here waits; latency and
  all other faults of the wire belong to `simulators.fault_proxy`;
- bit reads hand `action` a count of words: refusals and the log use the request itself;
- of several requests in one segment only the last is answered: clients of this server keep one in flight.

Writes are refused with exception 01 and counted: nothing in this product ever writes to a controller, and a test
can say so.
"""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Final, Self, cast

from pymodbus.constants import ExcCodes
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.server.requesthandler import ServerRequestHandler
from pymodbus.simulator import DataType, SimData, SimDevice
from pymodbus.transport import CommParams, CommType

from simulators.register_bank import BIT_TABLES, READ_FUNCTIONS, WORD_BITS, RegisterBank, Table
from simulators.served import Served, ServedLog

REFUSED_FUNCTION: Final = ExcCodes.ILLEGAL_FUNCTION
RELISTEN_TRIES: Final = 50  # with RELISTEN_S: a port just closed is free again within a second
RELISTEN_S: Final = 0.02


class _Handler(ServerRequestHandler):
    """One client connection; asks the bank whether, and how, to answer."""

    server: _Endpoint

    async def handle_request(self) -> None:
        """Answer the request just decoded, unless its unit is silent or refuses."""
        request = self.last_pdu
        if request is None:
            return
        bank = self.server.bank
        table = READ_FUNCTIONS.get(request.function_code)
        if bank.is_silent(request.dev_id):
            self._note(request, None)
            return
        if table is not None:
            code = bank.refusal_of(request.dev_id, table, request.address, request.count)
            if code is not None:
                self._send_exception(request, code)
                return
        await super().handle_request()  # type: ignore[no-untyped-call]

    def server_send(self, pdu: ModbusPDU, addr: tuple[str, int] | None) -> None:
        """Send a reply, and note it."""
        if self.last_pdu is not None:
            self._note(self.last_pdu, pdu)
        super().server_send(pdu, addr)  # type: ignore[no-untyped-call]

    def _send_exception(self, request: ModbusPDU, code: int) -> None:
        reply = ExceptionResponse(request.function_code, exception_code=code, device_id=request.dev_id)
        reply.transaction_id = request.transaction_id
        self.server_send(reply, self.last_addr)

    def _note(self, request: ModbusPDU, reply: ModbusPDU | None) -> None:
        if self.server.log is None:
            return
        values: list[int] | None = None
        if reply is not None and not reply.isError():
            is_bits = READ_FUNCTIONS.get(request.function_code) in BIT_TABLES
            values = [int(bit) for bit in reply.bits[: request.count]] if is_bits else list(reply.registers)
        self.server.log(
            Served(
                mono_ms=asyncio.get_running_loop().time() * 1000,
                unit=request.dev_id,
                fc=request.function_code,
                address=request.address,
                count=request.count,
                values=values,
                exception=reply.exception_code if isinstance(reply, ExceptionResponse) else None,
            )
        )


class _Endpoint(ModbusTcpServer):
    """pymodbus's server with our handler on each connection."""

    def __init__(
        self,
        devices: list[SimDevice],
        *,
        address: tuple[str, int],
        bank: RegisterBank,
        log: ServedLog | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        if tls is not None:  # what pymodbus's own TLS server does, but framed as Modbus/TCP Security says
            self.tls_setup = CommParams(comm_type=CommType.TLS, comm_name="server_listener", sslctx=tls)
        super().__init__(devices, address=address)
        self.bank = bank
        self.log = log

    def callback_new_connection(self) -> ServerRequestHandler:
        """Make the handler of a connection just accepted."""
        return _Handler(self, self.trace_packet, self.trace_pdu, self.trace_connect)  # type: ignore[no-untyped-call]


class RegisterBankServer:
    """A bank on a TCP port. Use as an async context manager, or `start` and `stop`.

    After `start`, `address` is the (host, port) it listens on; port 0 takes a free one. With `tls` it speaks
    Modbus/TCP Security, whose frames are Modbus/TCP's.
    """

    def __init__(
        self,
        bank: RegisterBank,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        log: ServedLog | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.bank = bank
        self.address = (host, port)
        self.writes_refused = 0
        self._log = log
        self._tls = tls
        self._endpoint: _Endpoint | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; returns the address. Raises OSError when the port cannot be had."""
        assert self._endpoint is None, "already listening"
        devices = [self._device(unit) for unit in self.bank.units]
        endpoint = _Endpoint(devices, address=self.address, bank=self.bank, log=self._log, tls=self._tls)
        for _ in range(RELISTEN_TRIES if self.address[1] else 1):
            if await endpoint.listen():
                break
            await asyncio.sleep(RELISTEN_S)
        else:
            host, port = self.address
            raise OSError(f"cannot listen on {host}:{port}")
        listener = cast("asyncio.Server", endpoint.transport)  # uvloop has a class of its own
        self.address = listener.sockets[0].getsockname()[:2]
        self._endpoint = endpoint
        return self.address

    async def stop(self) -> None:
        """Close every connection and the port: from now on connections are refused. `start` listens there again."""
        if self._endpoint is not None:
            endpoint, self._endpoint = self._endpoint, None
            await endpoint.shutdown()  # type: ignore[no-untyped-call]

    @property
    def place(self) -> str:
        """The address as text."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def is_listening(self) -> bool:
        """Whether the port is open."""
        return self._endpoint is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _device(self, unit: int) -> SimDevice:
        async def fill(  # noqa: PLR0917 — pymodbus calls it so
            function_code: int,
            start: int,
            address: int,
            count: int,
            registers: list[int],
            writes: list[int] | list[bool] | None,
        ) -> ExcCodes | None:
            table = READ_FUNCTIONS.get(function_code)
            if writes is not None or table is None:
                self.writes_refused += 1
                return REFUSED_FUNCTION
            first = address // WORD_BITS if table in BIT_TABLES else address
            registers[first - start : first - start + count] = self.bank.word_span(unit, table, first, count)
            return None

        bits = [False] * self.bank.bits
        words = [0] * self.bank.words
        tables = {
            table: [
                SimData(0, values=bits, datatype=DataType.BITS)
                if table in BIT_TABLES
                else SimData(0, values=words, datatype=DataType.REGISTERS)
            ]
            for table in Table
        }
        return SimDevice(
            unit,
            simdata=(tables[Table.CO], tables[Table.DI], tables[Table.HR], tables[Table.IR]),
            action=fill,
        )
