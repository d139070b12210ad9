"""What is judged once a second while a run goes on: what is shown, and what grows."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edge_agent.domain.delivery import EVENTS_AHEAD_MAX
from edge_agent.domain.plan import GuardPlan
from edge_agent.runtime.pump import INBOX_MAX
from edge_agent.wire.event import GuardState
from edge_agent.wire.status import STATE_EXPIRY_S, decode_guard_status
from edge_agent.wire.topics import Channel, topic
from gateway.domain.board import View, guard_document
from simulators.truth import Fact
from tests.simulation.findings import Check
from tests.simulation.network import QUEUE_MAX
from tests.simulation.virtual_loop import NS_PER_S
from tests.simulation.ward import MS, Ward

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor

LOOK_NS: Final = 300 * MS
"""What may pass between a deadline and the state that follows from it: one commit of a slow disk."""

BOARD_NS: Final = 15 * NS_PER_S
"""A board may lag by a heartbeat's 5 s or the 6 s of missed beats, and the way there."""

RETAINED_NS: Final = BOARD_NS + STATE_EXPIRY_S * NS_PER_S
"""A retained state may outlive its agent by its expiry."""

CLOSED: Final = frozenset({GuardState.CLOSED.value, GuardState.CLOSED_LOCKED.value})

_decode = lru_cache(maxsize=4096)(decode_guard_status)
"""The same retained bytes are looked at every second."""


def look(auditor: Auditor) -> None:
    """Judge the present moment."""
    for ward in auditor.wards:
        _look_at_agent(auditor, ward)
        if not ward.is_clone:
            _look_at_board(auditor, ward)
            _look_at_retained(auditor, ward)
    for connection in auditor.broker.connections:
        if connection.waiting > QUEUE_MAX:
            auditor.find(Check.QUEUES_WITHIN_LIMITS, f"{connection.waiting} wait for {connection.client}")


def _look_at_agent(auditor: Auditor, ward: Ward) -> None:
    agent = ward.node.agent
    if agent is None or not ward.node.is_running or not hasattr(agent, "_pump"):
        return
    for machine in ward.plan.machines.values():
        for guard in machine.guards:
            view = agent._pump.engine.guard_view(machine.id, guard.id)
            if view.state is not GuardState.UNKNOWN:
                _judge_known_state(auditor, ward, guard, view.state)
    ahead, inbox = agent._courier.sender._count_ahead(), len(agent._pump._inbox)
    if ahead > EVENTS_AHEAD_MAX or inbox > INBOX_MAX:
        auditor.find(Check.QUEUES_WITHIN_LIMITS, f"{ahead} events ahead, {inbox} replies in the inbox")


def _judge_known_state(auditor: Auditor, ward: Ward, guard: GuardPlan, state: GuardState) -> None:
    """A state that is not unknown must be backed by reads that are young enough."""
    device = ward.plan.devices[ward.plan.signals[guard.channels[0]].device]
    frozen_ms = device.heartbeat.stale_ms if device.heartbeat else device.stale_ms
    slack_ns = LOOK_NS + auditor.tolerance_ns
    silent_ns, stopped_ns = ward.silent_ns(device.id), ward.stopped_ns(device.id)
    is_late = (
        silent_ns > device.stale_ms * MS + slack_ns
        or stopped_ns > (frozen_ms + device.stale_ms + 2 * device.poll_ms) * MS + slack_ns
    )
    if is_late:
        what = f"{guard.path} is {state} {silent_ns / NS_PER_S:.1f} s after its last good read"
        auditor.find(Check.UNKNOWN_WITHIN_BOUND, f"{what}, {stopped_ns / NS_PER_S:.1f} s after a live one")
        if state.value in CLOSED:
            auditor.find(Check.NEVER_CLOSED_ON_STALE_DATA, f"the agent says: {what}")


def _look_at_board(auditor: Auditor, ward: Ward) -> None:
    parts = auditor.gateway.parts
    if parts is None or not auditor.gateway.is_running:
        return
    view = View(parts.plant.state, {}, parts.clock.utc_ms(), parts.presence.blind_since_ms())
    bound_ns = BOARD_NS + auditor.tolerance_ns
    same = [other for other in auditor.wards if other.plan.agent == ward.plan.agent]
    for machine in ward.plan.machines.values():
        for guard in machine.guards:
            device = ward.plan.signals[guard.channels[0]].device
            unseen_ns = min(other.stopped_ns(device) for other in same)
            open_ns = _open_ns(auditor, machine.id, guard.id)
            if max(unseen_ns, open_ns) <= bound_ns:
                continue
            shown = guard_document(view, (ward.plan.site, machine.id, guard.id))
            if shown is not None and shown["state"] in CLOSED:
                auditor.find(
                    Check.NEVER_CLOSED_ON_STALE_DATA,
                    f"the board shows {guard.path} {shown['state']}: last seen {unseen_ns / NS_PER_S:.1f} s"
                    f" ago, really open for {open_ns / NS_PER_S:.1f} s",
                )


def _look_at_retained(auditor: Auditor, ward: Ward) -> None:
    """What third parties read off the broker."""
    for machine in ward.plan.machines.values():
        for guard in machine.guards:
            open_ns = _open_ns(auditor, machine.id, guard.id)
            if open_ns <= RETAINED_NS + auditor.tolerance_ns:
                continue
            name = topic(ward.plan.site, ward.plan.agent, Channel.STATE, machine.id, guard.id)
            status = _decode(auditor.broker.retained(name) or b"")
            state = getattr(status, "state", None)
            if state in CLOSED:
                auditor.find(
                    Check.NEVER_CLOSED_ON_STALE_DATA,
                    f"{name} says {state}: really open for {open_ns / NS_PER_S:.1f} s",
                )


def _open_ns(auditor: Auditor, machine: str, guard: str) -> int:
    """For how long the guard's channels have really said that it is not closed."""
    span = auditor.cell.log._open[Fact(machine, guard, "indicated_closed")]
    return 0 if span.value else auditor.now_ns - span.from_ms * MS
