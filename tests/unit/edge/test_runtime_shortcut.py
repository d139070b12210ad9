"""The short way of replies that are judged on the spot: it changes what a poll costs, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome
from edge_agent.runtime.polling import Reply
from edge_agent.wire.event import Checkpoint, ViolationRaised
from tests.unit.edge.test_runtime_pump import Bench

TIMEOUT = BlockFailed("timeout")


@dataclass(frozen=True)
class Poll:
    """All blocks but the silent ones are read, `took_ms` each; the pump has its turn after each of `steps_after`."""

    closed: int = 1
    running: int = 0
    silent: frozenset[int] = frozenset()
    took_ms: int = 5
    steps_after: frozenset[int] = frozenset({2})
    rest_ms: int = 200


POLLS = st.lists(
    st.builds(
        Poll,
        closed=st.sampled_from([1, 1, 1, 0]),
        running=st.sampled_from([0, 0, 1]),
        silent=st.frozensets(st.integers(0, 2), max_size=1) | st.just(frozenset()),
        took_ms=st.integers(1, 400),
        steps_after=st.frozensets(st.integers(0, 2)),
        rest_ms=st.sampled_from([0, 50, 200, 1000, 2500]),
    ),
    max_size=40,
)


async def give(bench: Bench, block: int, outcome: BlockOutcome, took_ms: int, *, may_shortcut: bool) -> bool:
    """One reply to the pump, as the polling loop hands it over; whether it took the short way."""
    asked = bench.clock.mono()
    bench.clock.now_ms += took_ms
    now = bench.clock.mono()
    plan = bench.cell.blocks[block]
    if may_shortcut and isinstance(outcome, BlockOk) and bench.pump.take(plan.id, outcome.data, asked, now):
        return True
    await bench.pump.accept(Reply(plan.id, outcome, asked, now))
    return False


async def play(polls: list[Poll], *, may_shortcut: bool) -> Bench:
    bench = Bench()
    for poll in polls:
        bench.plant.closed, bench.plant.running = poll.closed, poll.running
        for block, plan in enumerate(bench.cell.blocks):
            outcome = TIMEOUT if block in poll.silent else BlockOk(bench.plant.block(plan))
            await give(bench, block, outcome, poll.took_ms, may_shortcut=may_shortcut)
            if block in poll.steps_after:
                await bench.step()
        bench.clock.now_ms += poll.rest_ms
    await bench.step()
    return bench


def story(bench: Bench) -> list[str]:
    """Events with their times, then states as shown; without the run's name and what is signed over it."""
    events = [
        (event.seq, event.at, event.mono_ms, event.body)
        for item in bench.committed
        for event in item.events
        if not isinstance(event.body, Checkpoint)
    ]
    return [repr(item).replace(bench.store.epoch, "EPOCH") for item in (*events, *bench.views)]


@settings(deadline=None)
@given(POLLS)
def test_the_short_way_finds_the_same_at_the_same_times_in_the_same_order(polls: list[Poll]) -> None:
    short = asyncio.run(play(polls, may_shortcut=True))
    long = asyncio.run(play(polls, may_shortcut=False))
    assert story(short) == story(long)
    for device in short.cell.devices:
        views = [bench.pump.engine.device_view(device, bench.clock.mono()) for bench in (short, long)]
        assert views[0] == views[1]


async def settled() -> Bench:
    """A cell that was polled and has nothing to say."""
    bench = Bench()
    await bench.poll()
    await bench.poll()
    return bench


async def unchanged(bench: Bench, block: int = 0) -> bool:
    outcome = BlockOk(bench.plant.block(bench.cell.blocks[block]))
    return await give(bench, block, outcome, 5, may_shortcut=True)


async def test_an_equal_reply_takes_the_short_way() -> None:
    assert await unchanged(await settled())


async def test_behind_a_reply_that_waits_all_others_wait_too() -> None:
    bench = await settled()
    await give(bench, 0, TIMEOUT, 5, may_shortcut=True)
    assert not await unchanged(bench, 1)
    await bench.step()
    assert await unchanged(bench, 1)


async def test_a_reply_does_not_overtake_a_block_that_goes_stale() -> None:
    bench = await settled()
    bench.clock.now_ms += bench.cell.blocks[1].stale_ms
    assert not await unchanged(bench)


async def test_blocks_that_were_answered_meanwhile_hold_up_no_reply_and_set_off_no_alarm() -> None:
    bench = await settled()
    queued = bench.pump.engine.next_deadline()
    assert queued is not None
    while bench.clock.mono() <= queued:
        for block in range(len(bench.cell.blocks)):
            assert await unchanged(bench, block)
        bench.clock.now_ms += 100
    deadline = bench.pump.engine.next_deadline()
    assert deadline is not None
    assert deadline > bench.clock.mono()


async def test_a_reply_that_a_running_rule_waits_for_is_judged() -> None:
    """The door stands open on a running machine: each further sample is evidence, however equal."""
    bench = await settled()
    bench.plant.closed, bench.plant.running = 0, 1
    for _ in range(2):
        await bench.poll()
    for _ in range(8):
        for block in range(len(bench.cell.blocks)):
            assert await unchanged(bench, block)
        bench.clock.now_ms += 200
    await bench.step()
    assert [body for body in bench.bodies() if isinstance(body, ViolationRaised)]


async def test_the_short_way_wakes_nobody_and_keeps_the_alarm_that_is_set() -> None:
    bench = await settled()
    steps: list[int] = []
    running = asyncio.create_task(bench.pump.run(bench.sender, bench.reports, lambda: steps.append(1)))
    await asyncio.sleep(0)
    before = len(steps)
    for _ in range(100):
        assert await unchanged(bench)
        bench.clock.now_ms += 1
        await asyncio.sleep(0)
    assert len(steps) == before
    bench.plant.closed = 0
    assert await unchanged(bench)
    for _ in range(3):
        await asyncio.sleep(0)
    assert bench.committed[-1].events, "a change is committed within the next turns of the loop"
    running.cancel()
