"""Is an agent alive? Judged by beats whose counters rise, never by a retained flag.

Theory of operation. A retained health may be days old and a last will may be lost, or be an older run's; so neither
can make an agent present. An agent is *online* once a beat's counter of polls, or of its own looks at its loops (an agent may
poll once a minute), has risen above an earlier beat's of the same run: that proves that it is polling now. It is *offline* when no beat has risen for 6 s, or at once by the last
will of the run that is being heard: such news can only make things worse, which is safe. After 30 s its monitoring is
lost. A beat counts from when it was said (`domain.transit`), so one that was held up proves no more than it should.

    silent ──a beat rises──▶ online ──6 s without a rise, or its will──▶ offline ──30 s since the rise──▶ lost
       └──────────── 30 s since it became known ──▶ lost                    └──a beat rises──▶ online

All times are milliseconds of the gateway's monotonic clock.

Source: the outside contract, section 3; domain rule R29 (monitoring_lost).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edge_agent.wire.status import HEALTH_PERIOD_MS, Health
from gateway.domain.poll_load import PollLoad, note_beat
from gateway.domain.transit import Transit, note_transit

OFFLINE_MS = 3 * HEALTH_PERIOD_MS
"""Three missed beats: what an agent said is not shown as a state any more."""

PROMPT_MS = OFFLINE_MS - HEALTH_PERIOD_MS
"""A beat older than this makes nobody present: it could not last until the next, and presence would flap."""

UNJUDGED_MS = 3000
"""When nobody has looked at the beats for so long (this process stood still, or a commit hangs), nothing that agents said is
shown as how it is: half of what a silent agent is believed."""

LOST_MS = 30_000
"""So long without a rising beat is a monitoring_lost finding: longer than an agent's restart takes."""

CLOCK_OFFSET_MAX_MS = 1000
"""An agent's clock further off than this is a finding (R29: |clock offset| > 1 s)."""

STORE_FILLING_PCT = 80
"""An outbox fuller than this is a finding: at 95 % it sends no reports, at 100 % it loses them."""

STORE_RELIEVED_PCT = 70
"""… until it is below this, so that one that hovers does not chatter."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What the beats of one agent prove.

    `alive_ms`: when the last that rose was said, or the agent became known: it never runs back, whatever clock a beat
    names. `said_ms`: when the newest was said.
    """

    alive_ms: int
    online: bool = False
    health: Health | None = None
    said_ms: int | None = None
    load: PollLoad = field(default_factory=PollLoad)
    transit: Transit | None = None

    @property
    def epoch(self) -> str | None:
        """The run that is being heard."""
        return None if self.health is None else self.health.epoch


def hear(known: Presence, health: Health, now_ms: int, *, retained: bool) -> Presence:
    """The presence after one beat or last will.

    A retained payload only becomes the measure for the next one, and so does the first of a new run, whose beats prove
    nothing of it yet. A will counts against the run that it names.
    """
    if not health.online:
        return replace(known, online=False) if health.epoch == known.epoch else known
    before = known.health
    is_same_run = before is not None and before.epoch == health.epoch
    transit, said_ms = known.transit, now_ms
    if health.mono_ms is not None:
        transit = note_transit(known.transit, health.boot, health.mono_ms, now_ms)
        said_ms -= transit.late_ms
    online = known.online and is_same_run
    heard = replace(known, health=health, said_ms=said_ms, online=online, transit=transit)
    if not retained:
        heard = replace(heard, load=note_beat(known.load, health, said_ms))
    is_risen = before is not None and (health.polls > before.polls or health.beats > before.beats)
    if not (is_same_run and is_risen and not retained):
        return heard
    online = heard.online or now_ms - said_ms <= PROMPT_MS
    return watch(replace(heard, online=online, alive_ms=max(known.alive_ms, said_ms)), now_ms)


def watch(known: Presence, now_ms: int) -> Presence:
    """The presence when no beat came until now."""
    return replace(known, online=False) if known.online and now_ms - known.alive_ms >= OFFLINE_MS else known


def is_lost(known: Presence, now_ms: int) -> bool:
    """Whether it has been silent long enough for a finding."""
    return not known.online and now_ms - known.alive_ms >= LOST_MS


def is_clock_off(health: Health) -> bool:
    """Whether its clock is further off than a label may be."""
    return health.clock_offset_ms is not None and abs(health.clock_offset_ms) > CLOCK_OFFSET_MAX_MS


def is_store_filling(health: Health, *, was_filling: bool) -> bool:
    """Whether its store is filling up with what it could not deliver."""
    return health.outbox_pct >= (STORE_RELIEVED_PCT if was_filling else STORE_FILLING_PCT)
