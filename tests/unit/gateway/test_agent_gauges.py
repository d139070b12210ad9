"""What Prometheus gets of agents: their polling, by agent and by device."""

from __future__ import annotations

from edge_agent.wire.status import DeviceHealth, Health, decode_health
from gateway.app.signs import agent_gauges
from gateway.services.presence import Heard

HEALTH = Health(
    online=True,
    epoch="E",
    boot="b",
    polls=50,
    overruns=2,
    requests={"1": 0, "2": 40, "3": 12, "4": 0},
    devices={
        "plc1": DeviceHealth(up=True, age_ms=150, polls=40, errors=0, overruns=2),
        "plc2": DeviceHealth(up=False, age_ms=None, polls=10, errors=10),
    },
)


def test_polling_is_told_by_agent_function_and_device_with_ages_as_of_now() -> None:
    told = {
        (gauge.name, *gauge.labels.values()): gauge.value
        for gauge in agent_gauges({("plant", "gw-01"): Heard(HEALTH, said_ms=1000)}, now_ms=1850)
    }
    agent = ("plant", "gw-01")
    assert told == {
        ("agent_polls_total", *agent): 50,
        ("agent_overruns_total", *agent): 2,
        ("agent_requests_total", *agent, "1"): 0,
        ("agent_requests_total", *agent, "2"): 40,
        ("agent_requests_total", *agent, "3"): 12,
        ("agent_requests_total", *agent, "4"): 0,
        ("device_up", *agent, "plc1"): 1.0,
        ("device_age_seconds", *agent, "plc1"): 1.0,
        ("device_up", *agent, "plc2"): 0.0,
    }


def test_a_health_of_an_agent_before_this_version_has_no_requests() -> None:
    old = decode_health(
        b'{"online":true,"epoch":"E","boot":"b","polls":5,"overruns":0,'
        b'"devices":{"plc1":{"up":true,"age_ms":null,"polls":5,"errors":0}}}'
    )
    assert isinstance(old, Health)
    names = [gauge.name for gauge in agent_gauges({("plant", "old"): Heard(old, 0)}, 0)]
    assert names == ["agent_polls_total", "agent_overruns_total", "device_up"]
