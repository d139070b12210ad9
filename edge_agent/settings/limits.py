"""Limits that only the finished plan shows: requests per second, and the size of what will be published.

No payload may exceed 48 KiB. State reports, health and lists of guards are split or cut; what grows with the configuration
without being split are the birth certificates, so exactly those are built and measured here, with identities of full
length.

Source: the outside contract, section 3.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from edge_agent.configfile import Document, Problem
from edge_agent.domain.birth import agent_model, machine_model
from edge_agent.domain.plan import CellPlan
from edge_agent.wire.codec import PAYLOAD_MAX_BYTES
from edge_agent.wire.status import encode_status

_EPOCH: Final = "0" * 26
"""As long as every epoch (a ULID)."""

_VERSION: Final = "0" * 32
"""Longer than any version of ours."""

_PUBLIC_KEY: Final = "0" * 44
"""As long as base64 of 32 bytes."""


def check_rates(document: Document, plan: CellPlan) -> Iterator[Problem]:
    """Devices that cannot be polled as often as their signals' poll_ms says, within their max_rps."""
    for device in plan.devices.values():
        rates = Counter(plan.blocks[block].poll_ms for block in device.blocks)
        rps = sum((Fraction(1000 * requests, poll_ms) for poll_ms, requests in rates.items()), Fraction())
        if rps > device.max_rps:
            asked = " and ".join(
                f"{count} request{'s' if count > 1 else ''} every {poll_ms} ms"
                for poll_ms, count in sorted(rates.items())
            )
            longer = "a longer poll_ms"
            if len(rates) == 1:
                longer = f"poll_ms: {math.ceil(next(iter(rates)) * rps / device.max_rps)}"
            what = f"{device.id} needs {asked}, more than max_rps of {device.max_rps}"
            mend = f"write {longer} or max_rps: {math.ceil(rps)}, or move signals closer together"
            yield document.problem(("devices", device.id), what, mend, at_key=True)


def check_payloads(document: Document, plan: CellPlan) -> Iterator[Problem]:
    """Birth certificates that would not fit into one payload."""
    size = len(encode_status(agent_model(plan, _EPOCH, _VERSION, _PUBLIC_KEY)))
    if size > PAYLOAD_MAX_BYTES:
        what = f"the agent's birth certificate would have {size} bytes, more than {PAYLOAD_MAX_BYTES}"
        yield document.problem(("machines",), what, "split the machines over several agents", at_key=True)
    for order, machine in enumerate(plan.machines.values()):
        size = len(encode_status(machine_model(machine, plan.signals, order, _EPOCH)))
        if size > PAYLOAD_MAX_BYTES:
            what = f"the birth certificate of {machine.id} would have {size} bytes, more than {PAYLOAD_MAX_BYTES}"
            mend = f"split its {len(machine.guards)} guards over several machines"
            yield document.problem(("machines", machine.id), what, mend, at_key=True)
