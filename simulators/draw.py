"""Seeded draws without the standard library's global generator.

The physical cell must be pure and give the same trace for the same seed on every Python version and in every
process, so it cannot lean on `random` (whose algorithms above the bit source may change between versions).
SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014) is three
multiplications, has no bad seeds and is good enough to shake switches and people.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

_Item = TypeVar("_Item")

_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
_GOLDEN_GAMMA: Final = 0x9E37_79B9_7F4A_7C15  # SplitMix64's increment
_FNV_OFFSET: Final = 0xCBF2_9CE4_8422_2325  # FNV-1a, 64 bits: a hash that PYTHONHASHSEED does not change
_FNV_PRIME: Final = 0x0000_0100_0000_01B3


class Draw:
    """A stream of draws, wholly determined by its seed."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def split(self, name: str) -> Draw:
        """Another stream for `name`: what one part draws never shifts what another part gets."""
        mixed = _FNV_OFFSET
        for byte in name.encode():
            mixed = ((mixed ^ byte) * _FNV_PRIME) & _MASK
        return Draw(self._state ^ mixed)

    def bits(self) -> int:
        """The next 64 bits."""
        self._state = (self._state + _GOLDEN_GAMMA) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK
        return z ^ (z >> 31)

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both possible."""
        return low + self.bits() % (high - low + 1)

    def chance(self, share: float) -> bool:
        """True in `share` (0 to 1) of all draws."""
        return (self.bits() >> 11) < share * (1 << 53)

    def choice(self, items: Sequence[_Item]) -> _Item:
        """One of `items`, each as likely."""
        return items[self.bits() % len(items)]
