"""A hall of a thousand inputs that can all flip at once, and the agent that reads it: the flood of row 18.

The controller is served from a thread of this process, on the plant floor; five hundred doors of two channels each stand
in its discrete inputs. No motion is wired, so a flip is five hundred events, and nothing to tell anybody.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Final

from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import RegisterBank, Table
from tests.chaos.place import Place

MACHINES, DOORS = 10, 50
INPUTS: Final = 2 * MACHINES * DOORS
POLL_MS: Final = 250


class Hall:
    """The controller. `start` it; `flip` turns every input."""

    def __init__(self, place: Place, port: int) -> None:
        self._place = place
        self._port = port
        self._bank = RegisterBank([1])
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._is_closed = True
        self._set(is_closed=True)

    def start(self) -> None:
        """Serve, from now to the end of the process."""
        threading.Thread(target=self._serve, daemon=True).start()
        assert self._is_up.wait(30), "the hall's controller does not come up"

    def flip(self) -> None:
        """Every door opens, or every door closes."""
        self._is_closed = not self._is_closed
        self._loop.call_soon_threadsafe(lambda: self._set(is_closed=self._is_closed))

    def _set(self, *, is_closed: bool) -> None:
        self._bank.set_bits(1, Table.DI, 0, [is_closed] * INPUTS)

    def _serve(self) -> None:
        self._place.enter()
        self._loop.run_until_complete(RegisterBankServer(self._bank, port=self._port).start())
        self._is_up.set()
        self._loop.run_forever()


def write_config(path: Path, *, broker: str, port: int) -> Path:
    """The configuration of the hall's agent."""
    lines = [
        "site: changyi",
        "agent: gw-02",
        "labels: {zh: 二号网关, en: Second gateway}",
        f"mqtt: {{url: 'mqtt://{broker}'}}",
        "store: {path: var/gw-02.db, size_max_mb: 64}",
        f"devices: {{plc: {{url: 'modbus+tcp://127.0.0.1:{port}', unit: 1, poll_ms: {POLL_MS}}}}}",
        "machines:",
    ]
    for machine in range(MACHINES):
        lines.append(f"  hall-{machine}:")
        lines.append(f"    labels: {{zh: 大厅{machine}, en: Hall {machine}}}")
        lines.append("    guards:")
        for door in range(DOORS):
            first = 2 * (machine * DOORS + door)
            lines.append(
                f"      door-{door}: {{labels: {{zh: 门{door}, en: Door {door}}}, kind: interlocked_door,"
                f" channels: [{{at: plc/di/{first}}}, {{at: plc/di/{first + 1}}}]}}"
            )
    path.write_text("\n".join([*lines, ""]))
    return path
