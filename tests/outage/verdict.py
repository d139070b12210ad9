"""What came of an outage, and whether it is as promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.accounting import Finding, Verdict
from tests.outage.books import Drain

DRAIN_AIM_S: Final = 120.0
SHOWN_MAX: Final = 10

OWN_FINDING: Final = "monitoring_lost"
"""What the gateway must find out by itself while the link is cut: that it hears nothing. Anything else is false."""

LOST_MS: Final = 120_000
"""A shorter cut may end before that is raised."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Books, board, the gateway's own findings, and figures."""

    findings: Sequence[Finding]
    wrong_board: Sequence[str]
    own_findings: frozenset[str]
    drain: Drain
    figures: Mapping[str, object]
    cut_ms: int
    """How long the link was cut."""

    @property
    def problems(self) -> list[str]:
        """Everything that is not as promised."""
        problems = [f"{finding.verdict}: {finding.text}" for finding in self.findings]
        problems += self.wrong_board
        problems += [f"the gateway found {rule}, falsely" for rule in self.own_findings - {OWN_FINDING}]
        if self.cut_ms > LOST_MS and OWN_FINDING not in self.own_findings:
            problems.append("the gateway did not find out that it hears nothing")
        if max(self.drain.drained_s, self.drain.live_late_s) > DRAIN_AIM_S:
            problems.append(f"it took longer than {DRAIN_AIM_S:.0f} s")
        return problems

    def lines(self) -> Iterator[str]:
        """For people."""
        counts = Counter(finding.verdict for finding in self.findings)
        drain = self.drain
        yield f"{drain.waiting} events waited: " + ", ".join(f"{name} {counts[name]}" for name in Verdict)
        yield f"drained {drain.drained_s:.1f} s after the link came back, {drain.rate:.0f} a second"
        yield f"{drain.live} events found out meanwhile, the latest journaled {drain.live_late_s:.1f} s after it happened"
        yield from (f"{name}: {value}" for name, value in self.figures.items())
        problems = self.problems
        yield from problems[:SHOWN_MAX]
        if len(problems) > SHOWN_MAX:
            yield f"… and {len(problems) - SHOWN_MAX} more"
        yield "as promised" if not problems else "NOT as promised"
