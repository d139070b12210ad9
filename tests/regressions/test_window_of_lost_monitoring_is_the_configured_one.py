"""`window_s` of monitoring_lost was read, checked and compiled, and the rule went on with its own minute."""

from __future__ import annotations

from pathlib import Path

from edge_agent.domain.units import NS_PER_MS, BlockId, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.engine import EdgeEngine
from edge_agent.settings import AgentSettings, load
from edge_agent.wire.event import ViolationRaised

CONFIG = """
site: site
agent: gw
labels: {zh: 网关, en: Gateway}
mqtt: {url: "mqtt://127.0.0.1:1883"}
store: {path: store.db, size_max_mb: 64}
devices:
  plc1:
    url: modbus+tcp://192.0.2.10:502
    unit: 1
    poll_ms: 200
    stale_ms: 2000
    rules: {monitoring_lost: {on_delay_ms: 5000, window_s: WINDOW}}
machines:
  mixer:
    labels: {zh: 混砂机, en: Mixer}
    kind: mixer
    signals: {running: {at: plc1/di/4}}
    guards:
      door:
        labels: {zh: 门, en: Door}
        kind: interlocked_door
        channels: [{at: plc1/di/0}]
"""


def raised_within(folder: Path, window_s: int) -> list[str]:
    """Twice unseen for four seconds, half a minute apart; what is raised then."""
    path = folder / "agent.yaml"
    path.write_text(CONFIG.replace("WINDOW", str(window_s)), encoding="utf-8")
    settings = load(path, {})
    assert isinstance(settings, AgentSettings), settings
    start = WallPair(MonoNs(0), UtcNs(0), synced=True)
    engine = EdgeEngine(settings.plan, epoch="E", boot="b", now=MonoNs(0), wall=start, memory={})
    (block,) = settings.plan.blocks
    for ms in (0, *range(6_000, 30_001, 200), *range(36_000, 40_000, 200)):
        now = MonoNs(ms * NS_PER_MS)
        engine.receive_block(BlockId(0), bytes(block.length_bytes), now, now)
    drafts = [draft.body for effect in engine.take_effects() for draft in getattr(effect, "drafts", ())]
    return [body.rule for body in drafts if isinstance(body, ViolationRaised)]


def test_losses_further_apart_than_the_window_do_not_add_up(tmp_path: Path) -> None:
    assert raised_within(tmp_path, 20) == []


def test_losses_within_it_do(tmp_path: Path) -> None:
    assert raised_within(tmp_path, 60) == ["monitoring_lost"]
