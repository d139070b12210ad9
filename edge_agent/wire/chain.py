"""The evidence chain: canonical form, links, checkpoints.

Each event's `hash` is the SHA-256 of the ASCII `prev` followed by the canonical JSON of the event without `hash`;
`prev` is the hash of the event before it in the store, across epochs; a new store starts from a seed made of its
identity. Events hold no floats, no integer beyond ±(2^53−1), only ASCII keys and no lone surrogates, and within those
bounds RFC 8785's form is what `json.dumps` writes with sorted keys and no blanks. Whoever holds a payload can
therefore check a link with the standard library alone.

Source: the outside contract, section 6; RFC 8785 (JSON canonicalisation).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from edge_agent.wire.event import Json


def canonical(document: Mapping[str, Json]) -> bytes:
    """RFC 8785 form, in UTF-8, of a document within the bounds named above.

    Raises `UnicodeEncodeError` for a lone surrogate (callers build documents from checked text).
    """
    return _ENCODER.encode(document).encode("utf-8")


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
"""Made once: `json.dumps` makes a new one each time, which takes as long as a small event."""


def link_hash(prev: str, unhashed: Mapping[str, Json]) -> str:
    """Lower-case hex SHA-256 over ASCII `prev` and the canonical form of an event without its `hash`."""
    return hashlib.sha256(prev.encode("ascii") + canonical(unhashed)).hexdigest()


def seed_hash(site: str, agent: str, epoch: str) -> str:
    """`prev` of the first event of a new store: SHA-256 hex of UTF-8 `site/agent/epoch`."""
    return hashlib.sha256(f"{site}/{agent}/{epoch}".encode()).hexdigest()


def checkpoint_message(site: str, agent: str, epoch: str, upto: int, upto_hash: str) -> bytes:
    """The ASCII bytes that an agent's Ed25519 key signs for a checkpoint."""
    return f"guardwatch-checkpoint-v1\n{site}/{agent}/{epoch}\n{upto}\n{upto_hash}".encode("ascii")
