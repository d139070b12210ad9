"""What judging a large plant costs: memory of plan and engine, time to build it, and time when every guard flips at once.

The plan crosses from a loading process, as in the running agent, so that what loading takes is not counted.
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path

from edge_agent.adapters.process_linux import rss_mb
from edge_agent.app.loading import Loading
from edge_agent.domain.plan import CellPlan
from edge_agent.domain.units import NS_PER_MS, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.engine import EdgeEngine
from tests.bench.configuration import plant

POLL_MS = 200
POLLS_TO_RAISE = 10
CLOSED, OPEN = 0x77, 0x44
"""Two guards in a byte: both channels, lock, bypass; open is locked still, so that only the channels flip."""


def run() -> None:
    """Build, poll, open every guard on running machines until each is a violation; print each stage."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "agent.yaml"
        config.write_text(plant(), encoding="utf-8")
        _say("interpreter and imports", 0.0)
        start = time.perf_counter()
        settings = Loading(config).wait().settings
    assert settings is not None
    _say("plan", time.perf_counter() - start)
    feed = _Feed(settings.plan)
    _say(f"engine of {len(settings.plan.signals)} signals", feed.built_s)
    _say("first poll", feed.poll(CLOSED))
    _say("every guard opens in one poll", feed.poll(OPEN))
    _say("every guard raised", sum(feed.poll(OPEN) for _ in range(POLLS_TO_RAISE)))
    _say("every guard closes in one poll", feed.poll(CLOSED))


class _Feed:
    """An engine, and a clock that moves a poll at a time."""

    def __init__(self, plan: CellPlan) -> None:
        self._plan = plan
        self._now = MonoNs(NS_PER_MS)
        start = time.perf_counter()
        wall = WallPair(self._now, UtcNs(0), synced=False)
        self._engine = EdgeEngine(
            plan, epoch="01JD0000000000000000000000", boot="bench", now=self._now, wall=wall, memory={}
        )
        self.built_s = time.perf_counter() - start
        gc.freeze()

    def poll(self, byte: int) -> float:
        """Every block answers, its guards all alike and its machine running; the seconds that judging took."""
        self._now = MonoNs(self._now + POLL_MS * NS_PER_MS)
        start = time.perf_counter()
        for block in self._plan.blocks:
            data = bytes([1 if block.count == 1 else byte]) * block.length_bytes
            self._engine.receive_block(block.id, data, self._now, self._now)
        self._engine.take_effects()
        return time.perf_counter() - start


def _say(stage: str, seconds: float) -> None:
    print(f"{stage:<32} {rss_mb():>5} MB resident {seconds:8.2f} s", flush=True)
