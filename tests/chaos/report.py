"""The table at the end: for each row of the fault matrix what was tried and what came of it, then the figures.

The upper bound is the rule of three: no failure in n trials means that, with 95 % confidence, the share of failures is
at most 3/n. A finding is charged to every fault that was at work when it happened (and for a while after), one whose
time nobody knows to all of the round.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from simulators.servers import find_mosquitto
from tests.bench.figures import percentile
from tests.chaos.accounting import Verdict
from tests.chaos.round import Result, Struck
from tests.crash_points import Tally

AFTERMATH_S: Final = 20.0
"""For so long after it has healed, a fault is held responsible."""

ROWS: Final[Mapping[int, str]] = {
    1: "SIGKILL at random moments",
    2: "SIGKILL at each system call of the stores",
    3: "power cut, what was not written is lost",
    5: "disk full",
    6: "file system read-only, or giving up",
    7: "store damaged, lost or rolled back",
    8: "link down (a day of it: make outage)",
    9: "half-open, one-way",
    10: "packet loss, slow link",
    11: "broker loops, wiped, garbage, take-over",
    12: "SIGSTOP",
    13: "wall clock steps",
    14: "another boot",
    15: "Modbus replies spoilt",
    16: "controller frozen, answering",
    17: "dead slave",
    18: "chatter, flood",
    19: "poison on MQTT",
    20: "siege of the HTTP server",
    21: "killed for want of memory",
    22: "hung agent under a watchdog",
    23: "InfluxDB down or hanging",
    24: "notifier refuses, hangs, loses answers",
    25: "the version before, and back",
    26: "restored or cloned image",
    27: "wrong configuration at a reload",
}
"""The rows of the fault matrix that are injected here."""

ELSEWHERE: Final[Mapping[int, str]] = {
    4: "fsync fails: tests/contract/test_crash_points.py (EIO at each call); fsync lies: no store can help it",
    28: "the browser: tests/browser/test_board.py (cut off, silent, reached again), tests/integration/test_liveness.py",
}
"""The rows that have tests of their own."""


@dataclass(slots=True)
class Row:
    """One line of the table."""

    trials: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    recovered: int = 0
    recoveries_s: list[float] = field(default_factory=list)

    @property
    def bound(self) -> float | None:
        """The upper bound on the share of failures, None without trials or with failures."""
        return min(1.0, 3 / self.trials) if self.trials and not self.verdicts else None


@dataclass(slots=True)
class Report:
    """A whole run, ready to be told. `not_run` says which faults could not be had, and why."""

    seed: int
    results: Sequence[Result]
    not_run: Mapping[str, str]
    took_s: float
    sweeps: Mapping[int, Sequence[Tally]] = field(default_factory=dict)
    """Of stores at their system calls, by row."""
    rows: dict[int, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for result in self.results:
            self._take(result)
        for number, tallies in self.sweeps.items():
            row = self.rows.setdefault(number, Row())
            row.trials += sum(tally.points for tally in tallies)
            row.verdicts += Counter({Verdict.LOST: sum(tally.lost for tally in tallies)})
            row.verdicts += Counter({Verdict.UNEXPECTED: sum(tally.corrupt for tally in tallies)})

    @property
    def is_good(self) -> bool:
        """Nothing lost, unexpected, duplicated or out of order, and every round brought to its end."""
        return not self._swept_problems() and not any(
            result.failure or result.books.findings for result in self.results
        )

    def _swept_problems(self) -> list[str]:
        return [
            problem for tallies in self.sweeps.values() for tally in tallies for problem in tally.problems
        ]

    def _swept(self, row: int) -> int:
        return sum(tally.points for tally in self.sweeps.get(row, ()))

    @property
    def kills(self) -> int:
        """Processes killed at random moments, over all rounds."""
        return self.rows.get(1, Row()).trials

    def _take(self, result: Result) -> None:
        held_up = result.books.recovered
        for struck in result.struck:
            row = self.rows.setdefault(struck.row, Row())
            row.trials += 1
            row.recovered += sum(_is_charged(struck, at_s) for at_s in held_up)
            if struck.recovered_s is not None:
                row.recoveries_s.append(struck.recovered_s - struck.healed_s)
        for finding in result.books.findings:
            for number in {struck.row for struck in result.struck if _is_charged(struck, finding.at_s)}:
                self.rows[number].verdicts[finding.verdict] += 1

    def lines(self) -> list[str]:
        """The table and the figures, for people."""
        return [*self._head(), *self._table(), *self._figures(), *self._findings(), *self._end()]

    def _head(self) -> list[str]:
        return ["", "  ".join(f"{name} {value}" for name, value in versions().items()), ""]

    def _table(self) -> list[str]:
        heads = f"{'row':<46}{'trials':>7}{'lost':>6}{'unexp.':>8}{'dupl.':>7}{'order':>7}{'recov.':>8}{'bound':>9}"
        lines = [heads + "   recovery p50/max s"]
        for number, text in ROWS.items():
            row = self.rows.get(number)
            if row is None:
                lines.append(f"{number:>2} {text:<43}   not run")
                continue
            counts = [row.verdicts[verdict] for verdict in Verdict]
            bound = "–" if row.bound is None else f"{row.bound:.2%}"
            times = row.recoveries_s
            recovery = f"{percentile(times, 50):6.1f} {max(times):6.1f}" if times else "     –"
            lines.append(
                f"{number:>2} {text:<43}{row.trials:>7}{counts[0]:>6}{counts[1]:>8}{counts[2]:>7}{counts[3]:>7}"
                f"{row.recovered:>8}{bound:>9}   {recovery}"
            )
        lines += [f"{number:>2} not here: {text}" for number, text in ELSEWHERE.items()]
        return lines

    def figures(self) -> dict[str, object]:
        """The figures, by name."""
        books = [result.books for result in self.results]
        delays_ms = [delay_s * 1000 for book in books for _, delay_s in book.delays]
        alerts_ms = [delay_s * 1000 for book in books for delay_s in book.alert_delays_s]
        unknown_ms = [silence_s * 1000 for book in books for silence_s in book.to_unknown_s]
        events = sum(book.events for book in books)
        parts = [(name, history) for book in books for name, history in book.parts.items()]
        names = sorted({name for name, _ in parts})
        return {
            "rounds": len(self.results),
            "kills at random moments": self.kills,
            "kills at system calls of the stores": self._swept(2),
            "power cuts at system calls of the stores": self._swept(3),
            "events journaled": events,
            "openings that had to be raised": sum(book.musts for book in books),
            "openings too short to be raised": sum(book.nevers for book in books),
            "openings left open by the oracle": sum(book.undecided for book in books),
            "violations raised": sum(book.raised for book in books),
            "longest closed while stale, ms": round(
                max((book.closed_while_stale_s for book in books), default=0) * 1000
            ),
            "edge to journal p50/p99/max, ms": _spread(delays_ms),
            "edge to alert p50/p99/max, ms": _spread(alerts_ms),
            "time to UNKNOWN p50/p99/max, ms": _spread(unknown_ms),
            "drain rate p50/p99/max, events/s": _spread(
                [rate for book in books for rate in book.drain_rates]
            ),
            "outbox bytes per event": round(sum(book.store_bytes for book in books) / max(events, 1)),
            "messages told again under their key": sum(book.told_again for book in books),
            "watchdog restarts": sum(history.watchdog_restarts for _, history in parts),
            "restarts after an end of its own": sum(len(history.ended) for _, history in parts),
            "killed for want of memory": sum(book.oom_kills for book in books),
            "quarantined payloads": sum(book.quarantined for book in books),
            **{f"max RSS of {name}, MB": _most(parts, name, "rss_kb_max") // 1024 for name in names},
            **{f"max descriptors of {name}": _most(parts, name, "fds_max") for name in names},
        }

    def _figures(self) -> list[str]:
        lines = ["", *(f"{name:<44} {value}" for name, value in self.figures().items())]
        lines.append(f"{'wrong values per million Modbus replies':<44} make faults")
        return lines

    def _findings(self) -> list[str]:
        lines = [""]
        for result in self.results:
            again = f"python -m tests.chaos --seed {result.seed} --round {result.number}"
            if result.failure:
                lines.append(
                    f"round {result.number} could not be brought to its end ({again}):\n{result.failure}"
                )
            lines += [
                f"round {result.number}: {finding.verdict}: {finding.text} ({again})"
                for finding in result.books.findings
            ]
            if result.books.stale_at_s is not None:
                lines.append(
                    f"round {result.number}: shown as closed {result.books.closed_while_stale_s:.1f} s too long "
                    f"at {result.books.stale_at_s:.1f} s ({again})"
                )
        lines += self._swept_problems()
        lines += [f"not run: {name}: {reason}" for name, reason in self.not_run.items()]
        return lines

    def _end(self) -> list[str]:
        counts = Counter(finding.verdict for result in self.results for finding in result.books.findings)
        total = ", ".join(f"{verdict} {counts[verdict]}" for verdict in Verdict)
        kills = f"{self.kills} kills at random moments, {self._swept(2)} at system calls"
        return ["", f"{kills}; {len(self.results)} rounds in {self.took_s:.0f} s, seed {self.seed}: {total}"]

    def document(self) -> dict[str, object]:
        """The same for machines."""
        return {
            "seed": self.seed,
            "versions": versions(),
            "took_s": round(self.took_s, 1),
            "good": self.is_good,
            "rows": {
                str(number): {
                    "trials": row.trials,
                    **{verdict.value: row.verdicts[verdict] for verdict in Verdict},
                    "recovered": row.recovered,
                    "upper_bound": row.bound,
                    "recovery_max_s": round(max(row.recoveries_s), 1) if row.recoveries_s else None,
                }
                for number, row in sorted(self.rows.items())
            },
            "figures": self.figures(),
            "not_run": dict(self.not_run),
            "rounds": [
                {
                    "round": result.number,
                    "took_s": round(result.took_s, 1),
                    "failure": result.failure,
                    "schedule": result.schedule,
                    "findings": [
                        [item.verdict.value, item.at_s, item.text] for item in result.books.findings
                    ],
                }
                for result in self.results
            ],
        }


def _is_charged(struck: Struck, at_s: float | None) -> bool:
    return at_s is None or struck.from_s <= at_s <= struck.healed_s + AFTERMATH_S


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{percentile(values, 50):.0f} / {percentile(values, 99):.0f} / {max(values):.0f}"


def _most(parts: Sequence[tuple[str, object]], name: str, figure: str) -> int:
    return max((int(getattr(history, figure)) for whose, history in parts if whose == name), default=0)


def versions() -> dict[str, str]:
    """What was run."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    mosquitto = find_mosquitto()
    return {
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "mosquitto": "none" if mosquitto is None else str(mosquitto.path),
        "kernel": platform.release(),
        "cores": str(os.cpu_count()),
    }
