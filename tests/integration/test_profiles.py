"""A real agent on one device of each shipped profile: each product's guard opens, and the gateway hears of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from edge_agent.wire.event import GuardChanged, GuardState
from simulators.modbus_server import RegisterBankServer
from simulators.profile_image import ProfileImage, profile_folder
from tests.integration.edge_rig import AgentProcess, TinyGateway, wait_for
from tests.profile_cases import CASES, Case, configuration
from tests.servers import Mosquitto

pytestmark = pytest.mark.integration

BEAT_S = 0.2


async def beating(images: dict[Case, ProfileImage]) -> None:
    """The programs of all devices run."""
    count = 0
    while True:
        count += 1
        for case, image in images.items():
            case.tick(image, count)
        await asyncio.sleep(BEAT_S)


async def test_a_guard_of_every_product_opens_and_its_change_arrives(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    images = {case: ProfileImage(profile_folder() / f"{case.profile}.yaml", base=case.base) for case in CASES}
    async with AsyncExitStack() as stack:
        devices = []
        for case, image in images.items():
            case.prepare(image)
            case.set_guard(image, closed=True)
            server = await stack.enter_async_context(RegisterBankServer(image.bank))
            devices.append((case, f"modbus+tcp://127.0.0.1:{server.address[1]}"))
        config = tmp_path / "agent.yaml"
        config.write_text(configuration(devices, mqtt=mosquitto.url), encoding="utf-8")
        gateway = stack.enter_context(TinyGateway(mosquitto.port))
        agent = AgentProcess(config)
        stack.callback(agent.kill)
        beat = asyncio.create_task(beating(images))
        stack.callback(beat.cancel)

        def states() -> dict[str, GuardState]:
            """Each machine's guard as last told."""
            return {body.machine: body.state for body in gateway.bodies(GuardChanged)}

        agent.start()
        machines = [case.machine for case in CASES]
        await wait_for(lambda: states() == dict.fromkeys(machines, GuardState.CLOSED), "all guards closed")
        for case, image in images.items():
            case.set_guard(image, closed=False)
        await wait_for(lambda: states() == dict.fromkeys(machines, GuardState.OPEN), "all guards open")
