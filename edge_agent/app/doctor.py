"""`doctor`: configuration, store, clock, devices and broker, each with what is wrong with it.

It reads every request of the plan once, over the same links as `run`. A device that takes a single connection may refuse
it while an agent is running: that is said as what it is, and harms nobody.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_agent.adapters.clock_system import SystemClock
from edge_agent.adapters.store_reading import StoreUnreadableError, open_snapshot
from edge_agent.adapters.uplink_paho import PahoUplink
from edge_agent.app.exits import Exit, refuse, say, say_json
from edge_agent.app.links import link_of, opened
from edge_agent.app.looking import meaning, settled
from edge_agent.app.running import ack_topic, broker_access
from edge_agent.domain.plan import ReadBlock
from edge_agent.domain.plausibility import doubt
from edge_agent.domain.units import NS_PER_MS
from edge_agent.ports import BlockFailed, BlockOk, LinkDown, LinkUp, Publication, UplinkReport
from edge_agent.settings import AgentSettings, load
from edge_agent.wire.event import Json

DOCTOR_BROKER_S: Final = 8.0
"""How long a broker may take to answer."""


def doctor(config: Path, *, as_json: bool) -> Exit:
    """Check configuration, store, clock, devices and broker, and say what is wrong with each."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    found = [*_local_findings(settings), *asyncio.run(_remote_findings(settings))]
    if as_json:
        findings: Json = [{"what": what, "ok": fault is None, "fault": fault} for what, fault in found]
        say_json({"ok": all(fault is None for _, fault in found), "findings": findings})
    else:
        for what, fault in found:
            say(f"{'ok ' if fault is None else 'BAD'} {what}" + (f": {fault}" if fault else ""))
    return Exit.OK if all(fault is None for _, fault in found) else Exit.FAILED


_Finding = tuple[str, str | None]


def _local_findings(settings: AgentSettings) -> Iterator[_Finding]:
    yield "configuration", None
    path = settings.store.path
    if not path.exists():
        yield f"store {path}", None if os.access(_existing(path), os.W_OK) else "cannot be made there"
    else:
        try:
            with open_snapshot(path) as store:
                store.end()
        except StoreUnreadableError as error:
            yield f"store {path}", str(error)
        else:
            yield f"store {path}", None
    is_synced = SystemClock().pair().synced
    yield "clock", None if is_synced else "not synchronised: events say so (install chrony)"


def _existing(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.exists())


async def _remote_findings(settings: AgentSettings) -> list[_Finding]:
    found: list[_Finding] = []
    clock = SystemClock()
    for device in settings.plan.devices.values():
        async with opened(link_of(settings, [device])) as link:
            for index in device.blocks:
                block = settings.plan.blocks[index]
                await asyncio.sleep(device.pause_ms / 1000)
                began = clock.mono()
                outcome = await settled(link, device.unit, block, device.timeout_ms)
                took_ms = (clock.mono() - began) / NS_PER_MS
                span = (
                    f"device {device.id} {block.table.value}/{block.start}..{block.start + block.count - 1}"
                )
                if isinstance(outcome, BlockFailed):
                    found.append((span, meaning(outcome.reason, link.trouble)))
                    continue
                found.append((f"{span} in {took_ms:.0f} ms", None))
                found += [(span, told) for told in _doubts(settings, block, outcome)]
    access = broker_access(settings)
    found.append((f"broker {access.host}:{access.port}", await _broker_fault(settings)))
    return found


def _doubts(settings: AgentSettings, block: ReadBlock, answer: BlockOk) -> Iterator[str]:
    """Numbers that cannot be meant so: swapped words, addresses counted from 1."""
    if block.table.is_bits:
        return
    words = [int.from_bytes(answer.data[place : place + 2], "big") for place in range(0, len(answer.data), 2)]
    for index in block.signals:
        signal = settings.plan.signals[index]
        if (told := doubt(signal, words, signal.number - block.start)) is not None:
            yield told


async def _broker_fault(settings: AgentSettings) -> str | None:
    """Connect as `doctor`, so that a running agent of the same name is not thrown off."""
    said: asyncio.Queue[UplinkReport] = asyncio.Queue()
    uplink = PahoUplink(broker_access(settings, role="doctor"), ack_topic(settings))
    uplink.open(Publication("guardwatch/v1/doctor", b"", retained=False), said.put_nowait)
    try:
        async with asyncio.timeout(DOCTOR_BROKER_S):
            while True:
                match await said.get():
                    case LinkUp():
                        return None
                    case LinkDown(reason):
                        return reason
                    case _:
                        continue
    except TimeoutError:
        return "no answer"
    finally:
        await uplink.close()
