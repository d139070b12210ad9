"""Health: no page is larger than a page may be, whatever the counters say; no beat waits behind another on its way."""

from __future__ import annotations

import json

from edge_agent.ports import Publication
from edge_agent.runtime.desk import Desk, paginate
from edge_agent.wire.status import HEALTH_PAGE_MAX_BYTES, DeviceHealth, Health, HealthPage, encode_status
from tests.unit.edge.rig import cell

GREATEST = 2**53 - 1
"""The largest integer on the wire."""


def test_pages_hold_every_device_once_and_keep_their_size_with_the_largest_counters() -> None:
    worst = DeviceHealth(up=False, age_ms=GREATEST, polls=GREATEST, errors=GREATEST, overruns=GREATEST)
    devices = {f"device-{number:040}": worst for number in range(1000)}
    requests = {str(function): GREATEST for function in range(1, 5)}
    health = Health(online=True, epoch="E" * 26, boot="b" * 36, devices=devices, requests=requests)
    head, pages = paginate(health)
    assert head.requests == requests
    all_pages: list[Health | HealthPage] = [head, *pages]
    assert max(len(encode_status(page)) for page in all_pages) <= HEALTH_PAGE_MAX_BYTES
    told = [name for page in all_pages for name in page.devices]
    assert sorted(told) == sorted(devices)
    assert len(told) == len(devices)


def beats(taken: list[Publication]) -> list[int]:
    return [json.loads(item.payload)["beats"] for item in taken if item.topic.endswith("/health")]


def test_a_beat_waits_until_the_last_one_is_answered_and_only_the_newest_goes() -> None:
    """On a slow line they would gather: each that comes vouches for what was so long before, as of now."""
    desk = Desk(cell(), version="1", public_key="")
    health = [Health(online=True, epoch="E", boot="b", beats=number) for number in range(5)]
    desk.greet("E", health[0], "", 0, are_current=True)
    first = desk.take(100, 1000)
    assert beats(first) == [0]
    for beat in health[1:4]:
        desk.put_health(beat)
        assert desk.take(100, 1000) == []
    desk.answered(first[0], is_refused=False)
    assert beats(desk.take(100, 1000)) == [3]
    desk.greet("E", health[4], "", 0, are_current=True)
    assert beats(desk.take(100, 1000)) == [4], "a new connection waits for no answer of the old one"
