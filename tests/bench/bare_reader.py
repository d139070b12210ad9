"""`python -m tests.bench.bare_reader BITS POLL_MS PORT …`: what reading costs when nothing is done with it.

One pymodbus client a device, one task a device on uvloop, one read of all its discrete inputs a poll, on a fixed grid.
It judges nothing, stores nothing, sends nothing. A bit that differs from the poll before is written to stdout as one
JSON line `{"at_ns", "device", "point", "closed"}` when the loop has seen it. Every second the line `{"at_ns", "polls", "late"}`
counts the polls that are done and those that ended after the next was due.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence

import uvloop
from pymodbus.client import AsyncModbusTcpClient

PULSE_S = 1.0


class BareReader:
    """Counts of all devices."""

    def __init__(self) -> None:
        self.polls = 0
        self.late = 0

    async def read(self, device: int, port: int, bits: int, poll_s: float) -> None:
        """Poll one device for ever."""
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()
        last: Sequence[bool] = []
        due_s = time.monotonic()
        while True:
            answer = await client.read_discrete_inputs(0, count=bits, device_id=1)
            seen_ns = time.monotonic_ns()
            found = answer.bits[:bits]
            if last and found != last:
                for point in range(bits):
                    if found[point] != last[point]:
                        _say({"at_ns": seen_ns, "device": device, "point": point, "closed": found[point]})
            last = found
            self.polls += 1
            due_s += poll_s
            wait_s = due_s - time.monotonic()
            if wait_s < 0:
                self.late += 1
                due_s -= wait_s
            await asyncio.sleep(max(wait_s, 0))

    async def pulse(self) -> None:
        """Tell the counts, for ever."""
        while True:
            _say({"at_ns": time.monotonic_ns(), "polls": self.polls, "late": self.late})
            await asyncio.sleep(PULSE_S)


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def _main() -> None:
    bits, poll_ms, *ports = (int(word) for word in sys.argv[1:])
    reader = BareReader()
    async with asyncio.TaskGroup() as group:
        group.create_task(reader.pulse())
        for device, port in enumerate(ports):
            group.create_task(reader.read(device, port, bits, poll_ms / 1000))


if __name__ == "__main__":
    uvloop.run(_main())
