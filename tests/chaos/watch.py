"""What a shift manager would see: the board, asked over and over, with the time of each answer.

An answer is dated by when it was asked for, so that whatever it claims is at least as old as that. From the agent's
polls, as the gateway knows them, comes whether everything in between works: they rise with each health message only.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from tests.chaos.oracle import Sample
from tests.chaos.plant import GUARD, MACHINE, Plant
from tests.chaos.process import Span

EVERY_S: Final = 0.4
SHOWN_MAX_S: Final = 6.0 + 1.0
"""After the agent's last heartbeat (6 s) and a second, nothing may be shown as closed any more."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look: when it was asked, what the board said of the door (None: no answer), the agent's polls."""

    at_s: float
    state: str | None
    polls: float | None


class Watch:
    """Looks until stopped, in a thread of its own."""

    def __init__(self, plant: Plant) -> None:
        self.looks: list[Look] = []
        self._plant = plant
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what was seen is kept beside the logs."""
        self._is_over.set()
        self._thread.join()
        lines = [json.dumps(asdict(look)) for look in self.looks]
        (self._plant.folder / "looks.jsonl").write_text("\n".join([*lines, ""]))

    def _look(self) -> None:
        while not self._is_over.wait(EVERY_S):
            at_s = time.monotonic()
            state = self._state()
            self.looks.append(Look(at_s, state, self._plant.polls()))

    def _state(self) -> str | None:
        try:
            sites = self._plant.get("/api/v1/board")["sites"]
        except (OSError, ValueError):
            return None
        assert isinstance(sites, list)
        for guard in (g for s in sites for a in s["areas"] for m in a["machines"] for g in m["guards"]):
            if (guard["machine"], guard["guard"]) == (MACHINE, GUARD):
                return str(guard["state"])
        return None


def closed_while_stale_s(
    looks: Sequence[Look], samples: Sequence[Sample], dark: Sequence[Span]
) -> tuple[float, float | None]:
    """For how long, at most, the board said "closed" although the newest answer that said so was too old; and when."""
    worst, worst_at_s = 0.0, None
    closed = [sample.at_s for sample in samples if not sample.is_open]
    heard = [at_s for at_s in closed if not any(span.from_s <= at_s <= span.until_s for span in dark)]
    place = 0
    for look in looks:
        while place < len(heard) and heard[place] <= look.at_s:
            place += 1
        if look.state == "closed" and place:
            beyond_s = look.at_s - heard[place - 1] - SHOWN_MAX_S
            if beyond_s > worst:
                worst, worst_at_s = beyond_s, look.at_s
    return worst, worst_at_s


def time_to_unknown_s(looks: Sequence[Look], samples: Sequence[Sample], dark: Sequence[Span]) -> list[float]:
    """Of each silence that was long enough: from the last answer that came through until the board said "unknown"."""
    heard = [
        sample.at_s
        for sample in samples
        if not any(span.from_s <= sample.at_s <= span.until_s for span in dark)
    ]
    times = []
    for last_s, next_s in itertools.pairwise(heard):
        if next_s - last_s <= SHOWN_MAX_S:
            continue
        meanwhile = [look for look in looks if last_s < look.at_s < next_s]
        unknown = next((look.at_s for look in meanwhile if look.state == "unknown"), None)
        if unknown is not None and all(look.state is not None for look in meanwhile if look.at_s <= unknown):
            times.append(unknown - last_s)
    return times


def recovered_at_s(looks: Sequence[Look], healed_s: float) -> float | None:
    """When the agent's polls were seen to rise again after `healed_s`; None if never."""
    last: float | None = None
    for look in looks:
        if look.at_s < healed_s or look.polls is None:
            continue
        if last is not None and look.polls != last:
            return look.at_s
        last = look.polls
    return None
