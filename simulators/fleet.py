"""A fleet for load tests: many Modbus endpoints with many units, whose guards open and close all the time.

Each unit holds `guards` doors with two channels, at discrete inputs 2n and 2n + 1, and a heartbeat in holding register
0. `changes_per_s` doors in the whole fleet change each second, drawn from the seed, both channels at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from simulators.draw import Draw
from simulators.endpoint import FREE_PORT, Site, endpoint
from simulators.register_bank import WORD_BITS, RegisterBank, Table

TICK_S: Final = 0.01
SERVERS_MAX: Final = 500  # of one process: a file descriptor each, and one more a client
UNITS_MAX: Final = 247  # of one endpoint: the unit ids of a serial line
GUARDS_MAX: Final = 1_000  # of one unit: what one read of 2000 bits can see
HEARTBEAT_MS: Final = 100
WORDS: Final = 16


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """How large the fleet is, and how busy. The `site` has the first port, the others follow; 0 takes free ones."""

    servers: int
    units: int
    guards: int
    changes_per_s: float
    site: Site = FREE_PORT
    seed: int = 0


class Fleet:
    """The fleet; `start`, `run` until cancelled, `stop`."""

    def __init__(self, plan: FleetPlan) -> None:
        assert 1 <= plan.servers <= SERVERS_MAX
        assert 1 <= plan.units <= UNITS_MAX
        assert 1 <= plan.guards <= GUARDS_MAX
        self.plan = plan
        self.changes = 0
        self.banks = [
            RegisterBank(range(1, plan.units + 1), bits=2 * plan.guards, words=WORDS)
            for _ in range(plan.servers)
        ]
        self.servers = [
            endpoint(bank, replace(plan.site, port=plan.site.port + number if plan.site.port else 0))
            for number, bank in enumerate(self.banks)
        ]
        self._open: set[tuple[int, int, int]] = set()
        self._draw = Draw(plan.seed).split("fleet")
        for bank in self.banks:
            for unit in bank.units:
                bank.set_bits(unit, Table.DI, 0, [True] * (2 * plan.guards))

    async def start(self) -> list[str]:
        """Serve everywhere; returns the places. Raises OSError when a port cannot be had."""
        for server in self.servers:
            await server.start()
        return [server.place for server in self.servers]

    async def run(self) -> None:
        """Change doors and beat hearts until cancelled."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        while True:
            elapsed_s = loop.time() - started_s
            while self.changes < elapsed_s * self.plan.changes_per_s:
                self.change_one()
            self._beat(int(elapsed_s * 1000) // HEARTBEAT_MS)
            await asyncio.sleep(TICK_S)

    def change_one(self) -> tuple[int, int, int]:
        """Open or close the next door drawn; returns (server, unit, guard)."""
        server = self._draw.between(0, self.plan.servers - 1)
        unit = self._draw.between(1, self.plan.units)
        guard = self._draw.between(0, self.plan.guards - 1)
        door = (server, unit, guard)
        closed = door in self._open
        (self._open.discard if closed else self._open.add)(door)
        self.banks[server].set_bits(unit, Table.DI, 2 * guard, [closed, closed])
        self.changes += 1
        return door

    async def stop(self) -> None:
        """Close every port."""
        for server in self.servers:
            await server.stop()

    def _beat(self, beats: int) -> None:
        for bank in self.banks:
            for unit in bank.units:
                bank.set_word(unit, Table.HR, 0, beats % (1 << WORD_BITS))
