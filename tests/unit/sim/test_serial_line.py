"""RTU slaves on a pseudo-terminal and over TCP, seen by raw bytes and by clients that share no code with them."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FramerType

from simulators.register_bank import Refusal, RegisterBank, Table
from simulators.rtu import answer, crc, is_whole, reply_bytes, request_bytes, seal
from simulators.serial_line import Pace, RtuServer, RtuSlaves, SerialLine
from simulators.served import Served
from tests.serial_master import Master

REQUEST = bytes.fromhex("07 03 0002 0002")
REPLY = bytes.fromhex("07 03 04 1234 5678")


@pytest_asyncio.fixture
async def served() -> list[Served]:
    return []


@pytest_asyncio.fixture
async def slaves(served: list[Served]) -> RtuSlaves:
    bank = RegisterBank([1, 7])
    bank.set_words(7, Table.HR, 2, [0x1234, 0x5678])
    return RtuSlaves(bank, log=served.append)


@pytest_asyncio.fixture
async def master(slaves: RtuSlaves) -> AsyncIterator[Master]:
    async with SerialLine(slaves) as line:
        master = Master(line.place)
        yield master
        master.close()


@pytest.mark.parametrize(
    ("frame", "expected"), [("02 07", "41 12"), ("01 04 02 FF FF", "B8 80"), ("11 03 006B 0003", "76 87")]
)
def test_the_crc_is_the_standards(frame: str, expected: str) -> None:
    """The first is the serial line specification's own example (6.2.2), the others are textbook frames."""
    assert crc(bytes.fromhex(frame)) == bytes.fromhex(expected)


@pytest.mark.parametrize("place", range(len(REPLY) + 2))
def test_any_flipped_bit_breaks_a_frame(place: int) -> None:
    frame = bytearray(seal(REPLY))
    assert is_whole(bytes(frame))
    frame[place] ^= 0x10
    assert not is_whole(bytes(frame))


def test_frames_are_as_long_as_their_beginning_says() -> None:
    assert request_bytes(b"\x07") is None
    assert request_bytes(REQUEST) == len(seal(REQUEST))
    assert request_bytes(bytes.fromhex("07 10 0000 0002 04")) == 13
    assert reply_bytes(b"\x07\x03") is None
    assert reply_bytes(REPLY) == len(seal(REPLY))
    assert reply_bytes(b"\x07\x83\x02") == 5


@pytest.mark.parametrize(
    ("pdu", "code"),
    [
        ("03 0000 0000", 3),
        ("03 0000 007E", 3),
        ("01 0000 07D1", 3),
        ("03 00FF 0002", 2),
        ("02 07FF 0002", 2),
        ("06 0000 0001", 1),
        ("2B 0E 01 00", 1),
    ],
)
def test_what_cannot_be_read_gets_the_standards_exception(pdu: str, code: int) -> None:
    request = bytes.fromhex(pdu)
    assert answer(RegisterBank([1]), 1, request).pdu == bytes([request[0] | 0x80, code])


def test_bits_are_packed_from_the_address_asked_over_word_bounds() -> None:
    bank = RegisterBank([1])
    bank.set_bit(1, Table.DI, 17, True)
    bank.set_bit(1, Table.DI, 15, True)
    assert answer(bank, 1, bytes.fromhex("02 000F 000A")).pdu == bytes.fromhex("02 02 05 00")


async def test_a_pseudo_terminal_answers_every_byte_value_untouched(
    master: Master, slaves: RtuSlaves
) -> None:
    """A terminal that is not raw would swallow, echo or translate some of them."""
    for high in range(0, 256, 32):
        words = [(high + low) << 8 | (255 - high - low) for low in range(32)]
        slaves.bank.set_words(1, Table.IR, 0, words)
        master.send(seal(bytes.fromhex("01 04 0000 0020")))
        expected = seal(b"\x01\x04\x40" + b"".join(word.to_bytes(2, "big") for word in words))
        assert await master.hear(len(expected)) == expected


async def test_units_share_the_line_and_a_dead_one_is_silent(master: Master, slaves: RtuSlaves) -> None:
    slaves.bank.set_silent(1, silent=True)
    master.send(seal(bytes.fromhex("01 03 0000 0001")))
    master.send(seal(bytes.fromhex("63 03 0000 0001")))
    master.send(seal(REQUEST))
    assert await master.hear(9) == seal(REPLY)


async def test_a_request_with_a_wrong_crc_is_ignored_up_to_the_next_pause(
    master: Master, slaves: RtuSlaves
) -> None:
    master.send(REQUEST + b"\x00\x00")
    await asyncio.sleep(0.2)
    master.send(seal(REQUEST))
    assert await master.hear(9) == seal(REPLY)
    assert slaves.frames_refused == 1


async def test_writes_are_refused_and_counted(master: Master, slaves: RtuSlaves) -> None:
    master.send(seal(bytes.fromhex("07 10 0002 0001 02 0000")))
    assert await master.hear(5) == seal(b"\x07\x90\x01")
    master.send(seal(bytes.fromhex("07 06 0002 0000")))
    assert await master.hear(5) == seal(b"\x07\x86\x01")
    assert slaves.writes_refused == 2
    assert slaves.bank.word_span(7, Table.HR, 2, 1) == [0x1234]


async def test_every_answer_is_logged_as_it_was_sent(
    master: Master, slaves: RtuSlaves, served: list[Served]
) -> None:
    slaves.bank.refuse(Refusal(1, 6))
    master.send(seal(REQUEST))
    await master.hear(9)
    master.send(seal(bytes.fromhex("01 01 0000 0003")))
    await master.hear(5)
    assert [(s.unit, s.fc, s.address, s.count, s.values, s.exception) for s in served] == [
        (7, 3, 2, 2, [0x1234, 0x5678], None),
        (1, 1, 0, 3, None, 6),
    ]


def test_a_line_takes_eleven_bits_a_character_and_the_slaves_own_time() -> None:
    assert Pace(baud=11_000, turnaround_ms=5).delay_s(100) == pytest.approx(0.105)


async def test_a_slow_line_answers_no_sooner_than_its_speed_allows(slaves: RtuSlaves) -> None:
    slaves.pace = Pace(baud=11_000, turnaround_ms=50)
    async with SerialLine(slaves) as line:
        master = Master(line.place)
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        master.send(seal(REQUEST))
        await master.hear(9)
        assert loop.time() - start_s >= 0.050 + 17 * 11 / 11_000
        master.close()


async def test_a_pulled_adapter_is_an_end_and_comes_back_under_its_name(
    slaves: RtuSlaves, tmp_path: Path
) -> None:
    path = tmp_path / "ttyS7"
    line = SerialLine(slaves, path)
    for _ in range(2):
        assert await line.start() == path
        master = Master(str(path))
        master.send(seal(REQUEST))
        assert await master.hear(9) == seal(REPLY)
        await line.stop()
        assert await master.hear(1) == b""
        assert not path.is_symlink()
        master.close()


async def test_a_path_that_is_taken_is_an_error(slaves: RtuSlaves, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("keep me")
    with pytest.raises(OSError, match=r"cannot make the serial port .*notes\.txt: File exists"):
        await SerialLine(slaves, path).start()
    assert path.read_text() == "keep me"


async def test_pymodbus_reads_rtu_over_tcp(slaves: RtuSlaves) -> None:
    async with RtuServer(slaves) as server:
        host, port = server.address
        client = AsyncModbusTcpClient(host, port=port, framer=FramerType.RTU, timeout=3, retries=0)
        assert await client.connect()
        assert (await client.read_holding_registers(2, count=2, device_id=7)).registers == [0x1234, 0x5678]
        assert (await client.read_coils(0, count=3, device_id=1)).bits[:3] == [False, False, False]
        client.close()


async def test_a_stopped_server_drops_its_connections_and_comes_back_on_its_port(slaves: RtuSlaves) -> None:
    async with RtuServer(slaves) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(seal(REQUEST))
        assert await reader.readexactly(9) == seal(REPLY)
        await server.stop()
        assert await reader.read() == b""
        writer.close()
        address = server.address
        assert await server.start() == address


@pytest.mark.integration
async def test_mbpoll_reads_the_pseudo_terminal(slaves: RtuSlaves) -> None:
    """libmodbus opens it as the serial port it takes it for."""
    binary = shutil.which("mbpoll")
    assert binary is not None, "mbpoll is missing: run `make servers`"
    async with SerialLine(slaves) as line:
        args = f"-0 -1 -q -m rtu -b 19200 -P even -a 7 -t 4 -r 2 -c 2 {line.place}".split()
        process = await asyncio.create_subprocess_exec(binary, *args, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
    assert [line.split()[1] for line in output.decode().splitlines() if line.startswith("[")] == [
        "4660",
        "22136",
    ]
