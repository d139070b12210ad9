"""How far a long check has got, in the words of both `verify` commands. The caller gives clock and screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

TELL_EVERY_MS: Final = 200
"""Five times a second: a moving bar, and no cost."""

_LOOK_EVERY: Final = 512
"""Items between looks at the clock, some ten milliseconds."""

_BAR_CHARS: Final = 24


def paced(
    items: Iterable[T], total: int, now_ms: Callable[[], int], tell: Callable[[str], None]
) -> Iterator[T]:
    """The items, while `tell` gets a line now and then; `total` is how many are expected."""
    started_ms = told_ms = now_ms()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        if done % _LOOK_EVERY == 0 and now_ms() - told_ms >= TELL_EVERY_MS:
            told_ms = now_ms()
            tell(pace_line(done, total, told_ms - started_ms))
    tell(pace_line(done, max(done, 1), now_ms() - started_ms))


def pace_line(done: int, total: int, elapsed_ms: int) -> str:
    """`[######----]  41 %  410000 of 1000000  38000/s  0:15 left`; an underestimated total shows as 100 %."""
    share = min(1.0, done / max(total, 1))
    rate = done * 1000 // max(elapsed_ms, 1)
    left_s = max(total - done, 0) // max(rate, 1)
    bar = "#" * round(share * _BAR_CHARS)
    left = f"{left_s // 60}:{left_s % 60:02d} left"
    return f"[{bar:-<{_BAR_CHARS}}] {share:4.0%}  {done} of {total}  {rate}/s  {left}"
