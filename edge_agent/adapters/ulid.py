"""ULIDs, the names of epochs: 48 bits of milliseconds, 80 of randomness, in Crockford's base 32 (the ULID spec).

The time part is for people who read logs; nothing here ever orders epochs by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge_agent.domain.units import NS_PER_MS, UtcNs

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH: Final = 26
_RANDOM_BYTES: Final = 10
_TIME_BITS: Final = 48


def mint_ulid(utc: UtcNs, draw: Callable[[int], bytes]) -> str:
    """A new ULID; `draw(n)` gives n random bytes (`os.urandom`)."""
    milliseconds = (utc // NS_PER_MS) % (1 << _TIME_BITS)
    value = milliseconds << 8 * _RANDOM_BYTES | int.from_bytes(draw(_RANDOM_BYTES), "big")
    return "".join(_ALPHABET[value >> 5 * place & 0x1F] for place in reversed(range(_LENGTH)))
