"""From the first contact of an opening door to whoever must know: MQTT, live board, webhook, InfluxDB.

A door is opened on a running mixer `OPENINGS` times at random phases of the poll; every observer stamps arrival with
CLOCK_MONOTONIC, which all processes of a machine share (an event's `mono_ms` is CLOCK_BOOTTIME: the same on a machine
that never slept). The gate beside each figure is what the product promises, with the demo's poll and T_allow.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.bench.figures import percentile
from tests.servers import Influx, InfluxBucket
from tests.whole_plant import WholePlant, wait_for

OPENINGS = 100
POLL_MS = 100
T_ALLOW_MS = 1000
OPEN_S = 1.6
CLOSED_S = 2.5
SEED = 7


class Arrivals:
    """When agent and observers saw the guard open, the violation and the point; CLOCK_MONOTONIC seconds."""

    def __init__(self) -> None:
        self.observed: list[float] = []
        self.mqtt: list[float] = []
        self.board: list[float] = []
        self.influxdb: list[float] = []


def run() -> None:
    """Run the plant, open the door, print the table."""
    with tempfile.TemporaryDirectory(prefix="guardwatch-bench-") as name:
        folder = Path(name)
        with Influx(folder / "influx") as influx:
            bucket = influx.create_bucket()
            with WholePlant(folder / "plant", bucket) as plant:
                _measure(plant, bucket)


def _measure(plant: WholePlant, bucket: InfluxBucket) -> None:
    arrivals = Arrivals()
    watcher = _watch_mqtt(plant.broker.port, arrivals)
    wait_for("the agent is online", lambda: "online" in _agent_state(plant), timeout_s=60)
    threading.Thread(target=_watch_board, args=(plant, arrivals), daemon=True).start()
    threading.Thread(target=_watch_influxdb, args=(bucket, arrivals), daemon=True).start()
    rng = random.Random(SEED)
    opened: list[float] = []
    pause = threading.Event()
    pause.wait(15.0)  # run-up of the mixer and the first reports
    for _ in range(OPENINGS):
        opened.append(plant.act("open"))
        pause.wait(OPEN_S)
        plant.act("close")
        pause.wait(CLOSED_S + rng.uniform(0, POLL_MS / 1000))
    pause.wait(3.0)
    watcher.loop_stop()
    told = [item.at_s for item in plant.mailbox.told if item.body["event"] == "raised"]
    finding_ms = T_ALLOW_MS + 2 * POLL_MS + 150
    switched = plant.contact_openings()
    opened = [min(at for at in switched if at >= start) for start in opened]
    _row("guard change seen by the agent", opened, arrivals.observed, POLL_MS + 50)
    _row("guard change on MQTT", opened, arrivals.mqtt, POLL_MS + 50)
    _row("P1 on the live board", opened, arrivals.board, finding_ms)
    _row("P1 at the webhook", opened, told, finding_ms + 1000)
    _row("P1 in InfluxDB (asked every 50 ms)", opened, arrivals.influxdb, finding_ms + 2000)


def _row(what: str, opened: list[float], seen: list[float], gate_ms: int) -> None:
    """Pair each opening with the first arrival after it and before the next opening."""
    delays: list[float] = []
    for index, start in enumerate(opened):
        end = opened[index + 1] if index + 1 < len(opened) else float("inf")
        first = min((at for at in seen if start <= at < end), default=None)
        if first is not None:
            delays.append((first - start) * 1000)
    if not delays:
        print(f"{what:<36} nothing arrived")
        return
    p50, p99, most = percentile(delays, 50), percentile(delays, 99), max(delays)
    verdict = "within" if p99 <= gate_ms else "BEYOND"
    print(
        f"{what:<36} n {len(delays):>3}/{len(opened)}  p50 {p50:7.0f} ms  p99 {p99:7.0f} ms  max {most:7.0f} ms"
        f"  {verdict} {gate_ms} ms",
        flush=True,
    )


def _agent_state(plant: WholePlant) -> str:
    items = plant.get("/api/v1/agents")["items"]
    assert isinstance(items, list)
    return " ".join("online" for item in items if item["online"])


def _watch_mqtt(port: int, arrivals: Arrivals) -> Client:
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

    def arrived(_client: Client, _data: object, message: MQTTMessage) -> None:
        at = time.monotonic()
        event = json.loads(message.payload)
        if event["kind"] == "guard_changed" and event["state"] == "open":
            arrivals.observed.append(event["mono_ms"] / 1000)
            arrivals.mqtt.append(at)

    client.on_message = arrived
    client.connect("127.0.0.1", port)
    client.subscribe("guardwatch/v1/+/+/events", qos=1)
    client.loop_start()
    return client


def _watch_board(plant: WholePlant, arrivals: Arrivals) -> None:
    for name, data in plant.events():
        if name == "violation" and data["rule"] == "guard_open_motion" and data["state"] == "active":
            arrivals.board.append(time.monotonic())


def _watch_influxdb(bucket: InfluxBucket, arrivals: Arrivals) -> None:
    """Ask every 50 ms how many raises there are; a rise is an arrival."""
    flux = (
        f'from(bucket: "{bucket.bucket}") |> range(start: -1h) |> filter(fn: (r) => r._measurement == "violation" '
        'and r._field == "active" and r.rule == "guard_open_motion") |> filter(fn: (r) => r._value == 1) '
        "|> group() |> count()"
    )
    _count_rises(lambda: _count(bucket, flux), arrivals.influxdb)


def _count(bucket: InfluxBucket, flux: str) -> int:
    rows = bucket.query_lines(flux)
    return int(str(rows[0]["_value"])) if rows else 0


def _count_rises(count: Callable[[], int], seen: list[float]) -> None:
    known = 0
    pause = threading.Event()
    while not pause.wait(0.05):
        try:
            now = count()
        except OSError:
            return  # the plant of this benchmark has ended
        seen.extend([time.monotonic()] * (now - known))
        known = now
