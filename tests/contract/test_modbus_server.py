"""The stand-in Modbus server, seen by clients that share no code with it (pymodbus's client, libmodbus's mbpoll)."""

import asyncio
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException

from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import Refusal, RegisterBank, Table
from simulators.served import Served


@pytest_asyncio.fixture
async def bank() -> RegisterBank:
    return RegisterBank([1, 7])


@pytest_asyncio.fixture
async def served() -> list[Served]:
    return []


@pytest_asyncio.fixture
async def server(bank: RegisterBank, served: list[Served]) -> AsyncIterator[RegisterBankServer]:
    async with RegisterBankServer(bank, log=served.append) as server:
        yield server


@pytest_asyncio.fixture
async def client(server: RegisterBankServer) -> AsyncIterator[AsyncModbusTcpClient]:
    host, port = server.address
    client = AsyncModbusTcpClient(host, port=port, timeout=0.3, retries=0, reconnect_delay=0)
    assert await client.connect()
    yield client
    client.close()


async def test_bits_and_words_of_all_four_tables_are_served_at_their_addresses(
    bank: RegisterBank, client: AsyncModbusTcpClient
) -> None:
    bank.set_bit(1, Table.CO, 3, True)
    bank.set_bit(1, Table.DI, 17, True)
    bank.set_word(1, Table.HR, 0, 0xBEEF)
    bank.set_word(1, Table.IR, 255, 42)
    assert (await client.read_coils(0, count=8, device_id=1)).bits[:8] == [n == 3 for n in range(8)]
    assert (await client.read_discrete_inputs(15, count=4, device_id=1)).bits[:4] == [
        False,
        False,
        True,
        False,
    ]
    assert (await client.read_holding_registers(0, count=1, device_id=1)).registers == [0xBEEF]
    assert (await client.read_input_registers(254, count=2, device_id=1)).registers == [0, 42]


async def test_the_largest_legal_reads_are_served(bank: RegisterBank, client: AsyncModbusTcpClient) -> None:
    bank.set_bit(1, Table.DI, 1999, True)
    bank.set_words(1, Table.HR, 0, range(125))
    assert (await client.read_discrete_inputs(0, count=2000, device_id=1)).bits[1999]
    assert (await client.read_holding_registers(0, count=125, device_id=1)).registers == list(range(125))


async def test_units_have_images_of_their_own(bank: RegisterBank, client: AsyncModbusTcpClient) -> None:
    bank.set_bit(7, Table.DI, 0, True)
    assert not (await client.read_discrete_inputs(0, count=1, device_id=1)).bits[0]
    assert (await client.read_discrete_inputs(0, count=1, device_id=7)).bits[0]


async def test_a_change_shows_in_the_next_answer_and_can_be_taken_back(
    bank: RegisterBank, client: AsyncModbusTcpClient
) -> None:
    for value in (True, False, True):
        bank.set_bit(1, Table.DI, 5, value)
        assert (await client.read_discrete_inputs(5, count=1, device_id=1)).bits[0] is value


@pytest.mark.parametrize("unit", [7, 99], ids=["unplugged", "never there"])
async def test_a_silent_unit_answers_nothing_while_its_neighbour_goes_on(
    bank: RegisterBank, client: AsyncModbusTcpClient, served: list[Served], unit: int
) -> None:
    bank.set_silent(7, silent=True)
    with pytest.raises(ModbusIOException):
        await client.read_discrete_inputs(0, count=1, device_id=unit)
    assert not (await client.read_discrete_inputs(0, count=1, device_id=1)).isError()
    assert served[0].values is None
    assert served[0].exception is None


async def test_refused_addresses_get_their_exception_and_the_rest_is_served(
    bank: RegisterBank, client: AsyncModbusTcpClient
) -> None:
    bank.refuse(Refusal(unit=1, exception_code=2, table=Table.HR, first=10, count=5))
    assert (await client.read_holding_registers(8, count=4, device_id=1)).exception_code == 2
    assert (await client.read_holding_registers(14, count=1, device_id=1)).exception_code == 2
    assert not (await client.read_holding_registers(0, count=10, device_id=1)).isError()
    assert not (await client.read_holding_registers(15, count=4, device_id=1)).isError()
    assert not (await client.read_discrete_inputs(10, count=4, device_id=1)).isError()
    bank.accept_all(1)
    assert not (await client.read_holding_registers(8, count=4, device_id=1)).isError()


async def test_reading_past_a_table_gets_exception_2(client: AsyncModbusTcpClient) -> None:
    assert (await client.read_holding_registers(250, count=10, device_id=1)).exception_code == 2


async def test_writes_are_refused_and_counted(
    bank: RegisterBank, server: RegisterBankServer, client: AsyncModbusTcpClient
) -> None:
    assert (await client.write_coil(0, True, device_id=1)).isError()
    assert (await client.write_register(0, 5, device_id=1)).isError()
    assert server.writes_refused == 2
    assert (await client.read_holding_registers(0, count=1, device_id=1)).registers == [0]


async def test_every_answer_is_logged_as_it_was_sent(
    bank: RegisterBank, client: AsyncModbusTcpClient, served: list[Served]
) -> None:
    bank.set_bit(1, Table.DI, 9, True)
    bank.set_word(7, Table.HR, 2, 500)
    before_ms = asyncio.get_running_loop().time() * 1000
    await client.read_discrete_inputs(8, count=3, device_id=1)
    await client.read_holding_registers(2, count=1, device_id=7)
    await client.read_holding_registers(300, count=1, device_id=7)
    after_ms = asyncio.get_running_loop().time() * 1000
    assert [(s.unit, s.fc, s.address, s.count, s.values, s.exception) for s in served] == [
        (1, 2, 8, 3, [0, 1, 0], None),
        (7, 3, 2, 1, [500], None),
        (7, 3, 300, 1, None, 2),
    ]
    assert all(before_ms <= s.mono_ms <= after_ms for s in served)


async def test_a_stopped_server_refuses_connections_and_comes_back_on_its_port(
    bank: RegisterBank, server: RegisterBankServer, client: AsyncModbusTcpClient
) -> None:
    address = server.address
    await server.stop()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(*address)
    assert await server.start() == address
    again = AsyncModbusTcpClient(address[0], port=address[1], timeout=0.3, retries=0, reconnect_delay=0)
    assert await again.connect()
    assert not (await again.read_discrete_inputs(0, count=1, device_id=1)).isError()
    again.close()


async def test_a_taken_port_is_an_error(server: RegisterBankServer) -> None:
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:"):
        await RegisterBankServer(RegisterBank([1]), port=server.address[1]).start()


async def test_a_whole_line_of_units_starts_and_answers() -> None:
    """247 unit ids are all that a serial line, and so a gateway, can have."""
    bank = RegisterBank(range(1, 248), bits=64, words=16)
    bank.set_word(247, Table.IR, 0, 247)
    async with RegisterBankServer(bank) as server:
        client = AsyncModbusTcpClient(server.address[0], port=server.address[1], timeout=1, retries=0)
        assert await client.connect()
        assert (await client.read_input_registers(0, count=1, device_id=247)).registers == [247]
        client.close()


@pytest.mark.integration
async def test_mbpoll_reads_what_the_bank_holds(bank: RegisterBank, server: RegisterBankServer) -> None:
    """libmodbus has its own framing: both ends of pymodbus sharing one bug would show here."""
    binary = shutil.which("mbpoll")
    assert binary is not None, "mbpoll is missing: run `make servers`"
    bank.set_bits(7, Table.DI, 4, [True, False, True])
    bank.set_words(7, Table.HR, 100, [1, 65535, 300])

    async def mbpoll(table: int, first: int, count: int) -> list[int]:
        """Read with 0-based addresses (-0), once (-1), and return the values printed as `[ADDRESS]: VALUE`."""
        host, port = server.address
        args = f"-0 -1 -q -m tcp -p {port} -a 7 -t {table} -r {first} -c {count} {host}".split()
        process = await asyncio.create_subprocess_exec(binary, *args, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        lines = [line for line in output.decode().splitlines() if line.startswith("[")]
        return [int(line.split(":")[1].split()[0]) for line in lines]

    assert await mbpoll(1, 3, 5) == [0, 1, 0, 1, 0]
    assert await mbpoll(4, 100, 3) == [1, 65535, 300]
