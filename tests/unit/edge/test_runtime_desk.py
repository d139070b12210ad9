"""Health in pages: whatever the counters say, no page is larger than a page may be, and no device is left out."""

from __future__ import annotations

from edge_agent.runtime.desk import paginate
from edge_agent.wire.status import HEALTH_PAGE_MAX_BYTES, DeviceHealth, Health, HealthPage, encode_status

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
