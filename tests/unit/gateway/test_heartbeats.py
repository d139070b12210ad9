"""Every channel proves itself on quiet days, once a slot, over restarts; one that does not get through is an alarm."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from gateway.domain.journal import FindingRaised, GatewayRule
from gateway.domain.notify import Heartbeat
from gateway.ports import Retryable
from gateway.services.heartbeats import HOUR_MS, Heartbeats
from tests.simulation.virtual_loop import run_virtual
from tests.unit.gateway.alerting_rig import EVERYTHING_TO_LI, LI, START_MS, VOICE
from tests.unit.gateway.test_dispatch import Alerting, Receiver, alerting, answers

DAY_S = 86_400
PLAN = replace(EVERYTHING_TO_LI, heartbeats=(Heartbeat("hook", LI.id, 24),))


async def beat(here: Alerting, seconds: float) -> None:
    """The service runs for so long."""
    service = Heartbeats(here.journal, here.clock, PLAN, VOICE, here.dispatch.wake)
    running = asyncio.create_task(service.run())
    await asyncio.sleep(seconds)
    running.cancel()


def test_a_channel_gets_one_test_message_a_day_however_often_the_gateway_is_started(tmp_path: Path) -> None:
    hook = Receiver()

    async def main() -> None:
        async with alerting(tmp_path, PLAN, hook=hook) as here:
            to_noon_s = DAY_S / 2 - START_MS % (24 * HOUR_MS) / 1000
            await asyncio.sleep(to_noon_s % DAY_S)
            for _ in range(6):
                await beat(here, DAY_S / 2)

    run_virtual(main)
    assert len(hook.got) == 4
    assert len(set(hook.keys())) == 4
    assert {(alert.event.value, alert.to.id, alert.alarm) for alert in hook.alerts} == {("test", LI.id, None)}


def test_a_channel_that_does_not_get_through_is_an_alarm_on_a_quiet_day(tmp_path: Path) -> None:
    hook = Receiver(answer=answers(Retryable("refused")))

    async def main() -> list[GatewayRule]:
        async with alerting(tmp_path, PLAN, hook=hook) as here:
            await beat(here, 120)
            entries = here.journal.entries_after(0, 100)
            return [entry.body.rule for entry in entries if isinstance(entry.body, FindingRaised)]

    assert run_virtual(main) == [GatewayRule.ALERT_FAILING]
