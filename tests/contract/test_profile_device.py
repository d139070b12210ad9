"""One device by its profile: what its points say arrives at a client, and what it cannot say is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pymodbus.client import AsyncModbusTcpClient

from simulators.endpoint import FREE_PORT
from simulators.profile_device import BEAT_S, ProfileDevice, find_profile
from simulators.profile_image import ProfileError, ProfileImage
from tests.integration.edge_rig import wait_for


def device(profile: str, *, beat: str | None = None, base: int = 0) -> ProfileDevice:
    return ProfileDevice(ProfileImage(find_profile(profile), base=base), FREE_PORT, beat=beat)


async def client_of(made: ProfileDevice) -> AsyncModbusTcpClient:
    await made.server.start()
    host, _, port = made.server.place.rpartition(":")
    client = AsyncModbusTcpClient(host, port=int(port), retries=0, reconnect_delay=0)
    assert await client.connect()
    return client


async def test_points_set_by_name_are_where_the_maker_says() -> None:
    made = device("delta-dvp")
    made.set_all(["X10=true", "D101=77"])
    client = await client_of(made)
    assert (await client.read_discrete_inputs(0x0408, count=1)).bits[0]
    assert (await client.read_holding_registers(0x1000 + 101, count=1)).registers == [77]
    assert made.answer({"set": {"X10": False}}) == {"set": 1}
    assert not (await client.read_discrete_inputs(0x0408, count=1)).bits[0]
    client.close()
    await made.server.stop()


async def test_words_of_a_map_and_fields_of_a_register_can_be_set() -> None:
    made = device("pilz-pnozmulti2")
    made.set_all(["r4_led0=on", "r4_led1=flashing", "r4_led3=on"])
    client = await client_of(made)
    assert (await client.read_input_registers(1118, count=1)).registers == [0xF03F]
    client.close()
    await made.server.stop()


async def test_a_counter_counts_while_the_device_runs() -> None:
    made = device("plc-block", beat="heartbeat", base=40)
    client = await client_of(made)
    life = asyncio.create_task(made.run())
    read = [0]

    async def look() -> None:
        while True:
            read[0] = (await client.read_holding_registers(40, count=1)).registers[0]
            await asyncio.sleep(BEAT_S / 5)

    looking = asyncio.create_task(look())
    await wait_for(lambda: read[0] >= 2, "two beats")
    looking.cancel()
    life.cancel()
    client.close()
    await made.server.stop()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("X8=true", "the profile has no point X8"),
        ("X7", "X7 sets nothing"),
        ("D0=70000", "D0 cannot hold 70000"),
        ("D0=auto", "the point never says auto"),
    ],
)
def test_what_a_point_cannot_say_is_refused(setting: str, said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        device("delta-dvp").set_all([setting])


def test_a_control_request_that_sets_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to do"):
        device("delta-dvp").answer({"get": "X0"})


def test_a_profile_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="profiles here: banner-isd, "):
        find_profile("pilz")
    with pytest.raises(ProfileError, match="no profile"):
        find_profile(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(
    "points", ["", "points: {a: 1}", "points: {a: {at: hx/0}}", "points: {a: {count: 2}}"]
)
def test_a_profile_that_says_nothing_usable_is_refused(tmp_path: Path, points: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"id: own\n{points}\n", encoding="utf-8")
    with pytest.raises(ProfileError, match="this is no good profile"):
        ProfileImage(path)
