"""How often somebody may guess: a growing pause after failed sign-ins.

Per key (account and address) the first failures cost nothing, so that a typing mistake does not lock anybody out; from
then on each failure doubles the pause, up to a bound, so that guessing goes nowhere and no account can be locked for
good by a stranger. Success forgets the failures. The number of keys is bounded: the one heard of longest ago goes.
"""

from __future__ import annotations

from dataclasses import dataclass

FREE_FAILURES = 4
"""So many mistakes in a row are a person's."""
PAUSE_MIN_MS = 1_000
"""The first pause; it doubles from there."""
PAUSE_MAX_MS = 300_000
"""5 min: 288 guesses a day and account, and a locked-out person waits no longer than that."""
KEYS_MAX = 10_000
"""Bound of the memory that strangers can make us use (about 2 MB)."""


@dataclass(frozen=True, slots=True)
class _Failures:
    count: int
    until_ms: int


class Throttle:
    """Failures by key. `now_ms` is monotonic."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failures] = {}

    def may_try(self, key: str, now_ms: int) -> bool:
        """Whether no pause is running for `key`."""
        known = self._failures.get(key)
        return known is None or now_ms >= known.until_ms

    def note_failure(self, key: str, now_ms: int) -> None:
        """One more failure: the next pause begins."""
        known = self._failures.pop(key, _Failures(0, 0))
        count = known.count + 1
        beyond = count - FREE_FAILURES
        pause_ms = 0 if beyond <= 0 else min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** min(beyond - 1, 20))
        self._failures[key] = _Failures(count, now_ms + pause_ms)
        if len(self._failures) > KEYS_MAX:
            del self._failures[next(iter(self._failures))]

    def note_success(self, key: str) -> None:
        """Forget the failures of `key`."""
        self._failures.pop(key, None)
