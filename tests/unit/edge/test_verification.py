"""Tampering with a chain, deed by deed: the first bad entry is named, and what was done to it."""

from __future__ import annotations

import json

import pytest

from edge_agent.adapters.minting import Head, Minter, Run
from edge_agent.adapters.signing import SigningKey, is_signed
from edge_agent.domain.units import NS_PER_S, MonoNs, UtcNs
from edge_agent.domain.verification import Entry, Verdict, verify_chain
from edge_agent.domain.wall import WallPair
from edge_agent.wire.chain import canonical, link_hash, seed_hash
from edge_agent.wire.event import (
    AgentStarted,
    Basis,
    Body,
    Event,
    Observation,
    Position,
    Priority,
    StateReport,
    ViolationRaised,
)

KEY = SigningKey.generate()
RUN = Run("site", "gw", "boot-1", "1.0", "c" * 64)
PAIR = WallPair(MonoNs(0), UtcNs(1_790_000_000 * NS_PER_S), synced=True)
EPOCHS = ("01AAAAAAAA", "01BBBBBBBB")


def chain(facts: int = 4, *, key: SigningKey = KEY) -> list[bytes]:
    """Two epochs of `facts` observations, each ended by a checkpoint."""
    minter = Minter(RUN, key.sign)
    events: list[Event] = []
    head = Head(0, EPOCHS[0], 0, seed_hash("site", "gw", EPOCHS[0]), UtcNs(0))
    for epoch in EPOCHS:
        after = Position(head.epoch, head.seq, head.hash) if events else None
        head = Head(head.n, epoch, 0, head.hash, head.at)
        bodies: list[Body] = [AgentStarted(after, "1.0", "c" * 64, clean_stop=True)]
        bodies += [Observation("fact", {"n": n, "text": "门"}) for n in range(facts)]
        for body in bodies:
            head = minter.mint(head, body, MonoNs(0), PAIR, events)
        head = minter.mint(head, minter.checkpoint(head), MonoNs(0), PAIR, events)
    return [event.payload for event in events]


def verdict(payloads: list[bytes], *, key: SigningKey | None = KEY) -> Verdict:
    def check(message: bytes, signature: str) -> bool:
        return key is not None and is_signed(key.public_key, message, signature)

    entries = [Entry(f"line {number}", payload) for number, payload in enumerate(payloads, 1)]
    return verify_chain(entries, check if key else None)


def flaw(payloads: list[bytes]) -> tuple[str, str] | None:
    found = verdict(payloads).flaw
    return None if found is None else (found.where, found.deed)


def test_a_whole_chain_is_counted() -> None:
    found = verdict(chain())
    assert found.flaw is None
    assert (found.entries, found.epochs, found.checkpoints, found.signatures, found.unsealed) == (
        12,
        2,
        2,
        2,
        0,
    )


def test_an_empty_chain_is_whole() -> None:
    assert verdict([]).flaw is None


@pytest.mark.parametrize("index", range(12))
def test_a_flipped_bit_is_named(index: int) -> None:
    payloads = chain()
    for place in (20, len(payloads[index]) // 2, len(payloads[index]) - 20):
        changed = bytearray(payloads[index])
        changed[place] ^= 1
        spoilt = [*payloads[:index], bytes(changed), *payloads[index + 1 :]]
        assert flaw(spoilt) == (f"line {index + 1}", "flipped")


@pytest.mark.parametrize("index", range(11))
def test_a_removed_entry_is_named_where_it_is_missed(index: int) -> None:
    payloads = chain()
    del payloads[index]
    assert flaw(payloads) == (f"line {index + 1}", "removed")


@pytest.mark.parametrize("index", range(1, 11))
def test_two_entries_that_changed_places_are_named(index: int) -> None:
    payloads = chain()
    payloads[index], payloads[index + 1] = payloads[index + 1], payloads[index]
    found = flaw(payloads)
    assert found is not None
    assert found[0] == f"line {index + 1}"
    assert found[1] in {"reordered", "inserted"}


@pytest.mark.parametrize("index", range(1, 12))
def test_a_doubled_entry_is_named(index: int) -> None:
    payloads = chain()
    payloads.insert(index, payloads[index - 1])
    assert flaw(payloads) == (f"line {index + 1}", "inserted")


def test_an_entry_of_another_chain_is_named() -> None:
    payloads = chain()
    payloads.insert(3, chain(6)[4])
    found = flaw(payloads)
    assert found is not None
    assert found[0] == "line 4"


def forged(payload: bytes, **changes: object) -> bytes:
    """An entry whose author knows how to hash."""
    document = json.loads(payload) | changes
    del document["hash"]
    return canonical(document | {"hash": link_hash(document["prev"], document)})


def test_a_rewritten_entry_with_a_good_hash_breaks_the_next_link() -> None:
    payloads = chain()
    payloads[2] = forged(payloads[2], n=99)
    found = flaw(payloads)
    assert found is not None
    assert found[0] == "line 4"


def rewrite_from(payloads: list[bytes], index: int) -> list[bytes]:
    """Somebody rewrote everything from `index` on, hashes and all, but has no key."""
    rewritten = [*payloads[:index], forged(payloads[index], n=99)]
    for payload in payloads[index + 1 :]:
        before = json.loads(rewritten[-1])
        document = json.loads(payload)
        changes: dict[str, object] = {"prev": before["hash"]}
        if document["kind"] == "checkpoint":
            changes["upto_hash"] = before["hash"]
        if document.get("after"):
            changes["after"] = document["after"] | {"hash": before["hash"]}
        rewritten.append(forged(payload, **changes))
    return rewritten


def test_a_whole_rewritten_history_fails_at_the_next_signature_and_only_there() -> None:
    rewritten = rewrite_from(chain(), 2)
    assert flaw(rewritten) == ("line 6", "forged")
    assert verdict(rewritten, key=None).flaw is None, "without a key nobody can tell"


def test_another_key_signs_nothing() -> None:
    assert flaw(chain(key=SigningKey.generate())) == ("line 6", "forged")


def test_blanks_are_not_canonical() -> None:
    payloads = chain()
    payloads[1] = json.dumps(json.loads(payloads[1]), sort_keys=True, ensure_ascii=False).encode()
    assert flaw(payloads) == ("line 2", "flipped")


def test_a_chain_that_begins_in_the_middle_has_lost_its_beginning_unless_a_checkpoint_seals_it() -> None:
    assert flaw(chain()[2:]) == ("line 1", "removed")
    assert flaw(chain()[5:]) is None


def test_a_cut_line_is_truncated() -> None:
    payloads = chain()
    payloads[-1] = payloads[-1][:-30]
    assert flaw(payloads) == ("line 12", "truncated")


def test_a_tail_without_its_seal_is_told_but_may_be_a_running_chain() -> None:
    found = verdict(chain()[:-2])
    assert (found.flaw, found.unsealed) == (None, 4)


def minted(*bodies: Body) -> list[bytes]:
    minter, events = Minter(RUN, KEY.sign), list[Event]()
    head = Head(0, EPOCHS[0], 0, seed_hash("site", "gw", EPOCHS[0]), UtcNs(0))
    for body in (AgentStarted(None, "1", "c", clean_stop=True), *bodies):
        head = minter.mint(head, body, MonoNs(0), PAIR, events)
    return [event.payload for event in events]


def test_what_must_be_followed_and_is_not_is_truncated() -> None:
    p1 = ViolationRaised(
        "m", "g", None, "estop", Priority.P1, Basis.PROVEN, "o", "2026-01-01T00:00:00Z", None, {}
    )
    assert flaw(minted(p1)) == ("line 2", "truncated")
    assert flaw(minted(StateReport(1, 2, {}, {}, ()))) == ("line 2", "truncated")
    assert flaw(minted(StateReport(1, 2, {}, {}, ()), StateReport(2, 2, {}, {}, ()))) is None


def test_a_new_epoch_must_name_the_entry_before_it() -> None:
    payloads = chain()
    payloads[6] = forged(payloads[6], after=None)
    assert flaw(payloads) == ("line 7", "removed")
