"""Ours and a stranger's verifier over released vectors, and over forgeries that nobody thought of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.adapters.signing import is_signed
from edge_agent.domain.verification import Entry, verify_chain
from edge_agent.wire.flaw import Deed, Flaw
from edge_agent.wire.heads import Heads, collect_heads
from gateway.adapters.bundle_file import check_bundle
from tests import second_verifier
from tests.forgeries import AGENT_KEY, GATEWAY_KEY, story, write_bundle, write_lines

T = TypeVar("T")
VECTORS = Path(__file__).parent / "evidence/v1"
VERDICTS = json.loads((VECTORS / "verdicts.json").read_text("utf-8"))
TRUE = story()

DIGEST = "3c0226ad76bf19e0"
"""First digits of SHA-256 over all vectors in order: a changed vector is a broken promise, a new one changes this."""

AT_THE_END = {Deed.TRUNCATED, Deed.ROLLED_BACK}


def ours(path: Path, heads: Path | None, key: str | None) -> Flaw | None:
    known = Heads()
    if heads is not None:
        lines = heads.read_bytes().splitlines()
        known = collect_heads(lines, is_signed, gateway_key=GATEWAY_KEY.public_key)
    if path.read_bytes().startswith(b'{"guardwatch_bundle"'):
        return check_bundle(path, known, lambda entries, _: iter(entries)).flaw
    lines = path.read_bytes().split(b"\n")
    entries = [Entry(f"line {number}", line) for number, line in enumerate(lines, 1) if line]
    keys = {key, *(found for keys in known.keys.values() for found in keys)} - {None}

    def check(message: bytes, signature: str) -> bool:
        return any(is_signed(str(known), message, signature) for known in keys)

    return verify_chain(entries, check if keys else None, known).flaw


def theirs(path: Path, heads: Path | None, key: str | None) -> object:
    """Where it finds the first bad entry; None for a whole record."""
    try:
        second_verifier.verify(path, heads, key, GATEWAY_KEY.public_key)
    except second_verifier.Bad as bad:
        return bad.args[0]
    return None


def agree(path: Path, heads: Path | None, key: str | None) -> Flaw | None:
    """Both say the same, and where; of an end that is missing, that it is missing."""
    flaw, place = ours(path, heads, key), theirs(path, heads, key)
    assert (flaw is None) == (place is None), (flaw, place)
    if flaw is not None and flaw.deed not in AT_THE_END and place != second_verifier.END:
        assert flaw.where == f"line {place}"
    return flaw


def test_the_vectors_are_the_released_ones() -> None:
    digest = hashlib.sha256()
    for path in sorted(VECTORS.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    assert digest.hexdigest()[: len(DIGEST)] == DIGEST


@pytest.mark.parametrize(
    "vector", VERDICTS, ids=[f"{item['file']}-{bool(item['heads'])}" for item in VERDICTS]
)
def test_both_verifiers_say_of_a_vector_what_it_is_known_for(vector: dict[str, str | None]) -> None:
    heads = None if vector["heads"] is None else VECTORS / vector["heads"]
    flaw = agree(VECTORS / str(vector["file"]), heads, vector["key"])
    found = (None, None) if flaw is None else (flaw.deed.value, flaw.where)
    assert found == (vector["deed"], vector["where"])


def test_the_vectors_show_every_deed_in_both_kinds() -> None:
    for kind in ("events", "bundle"):
        assert {item["deed"] for item in VERDICTS if str(item["file"]).startswith(kind)} == {None, *Deed}


def shuffled(data: st.DataObject, items: list[T]) -> list[T]:
    """One to three things done to a list, anywhere."""
    done = list(items)
    for _ in range(data.draw(st.integers(1, 3))):
        here, there = (data.draw(st.integers(0, len(done) - 1)) for _ in range(2))
        match data.draw(st.sampled_from(["remove", "double", "swap", "move", "cut"])):
            case "remove" if len(done) > 2:
                del done[here]
            case "double":
                done.insert(here, done[there])
            case "swap":
                done[here], done[there] = done[there], done[here]
            case "move":
                done.insert(there, done.pop(here))
            case _:
                done = done[: max(here, 2)]
    return done


def spoilt(data: st.DataObject, content: bytes) -> bytes:
    """Some bytes of a file changed, removed or added; its first line stays readable as what it is."""
    start = content.index(b"\n") + 1 if content.startswith(b'{"guardwatch_bundle"') else 0
    place = data.draw(st.integers(start, len(content) - 1))
    removed = data.draw(st.integers(0, 2))
    put = data.draw(
        st.sampled_from([b"", b"0", b"a", b" ", b'"', b"\xff", b"}", b"1.5", b"\\u0041", b"null"])
    )
    return content[:place] + put + content[place + removed :]


FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.data(), st.booleans())
def test_both_agree_on_a_chain_that_somebody_shuffled(
    tmp_path: Path, data: st.DataObject, with_head: bool
) -> None:
    path = write_lines(tmp_path / "events.jsonl", shuffled(data, TRUE.rows))
    agree(path, VECTORS / "heads.jsonl" if with_head else None, AGENT_KEY.public_key)


@FUZZ
@given(st.data(), st.booleans())
def test_both_agree_on_a_bundle_that_somebody_shuffled(
    tmp_path: Path, data: st.DataObject, with_head: bool
) -> None:
    said = TRUE.entries[-1] if data.draw(st.booleans()) else None
    path = write_bundle(tmp_path / "bundle.jsonl", shuffled(data, TRUE.entries), said=said)
    agree(path, VECTORS / "heads.jsonl" if with_head else None, None)


@FUZZ
@given(st.data(), st.sampled_from(["events-true.jsonl", "bundle-true.jsonl"]), st.booleans())
def test_both_agree_on_spoilt_bytes(tmp_path: Path, data: st.DataObject, name: str, with_head: bool) -> None:
    path = tmp_path / "record.jsonl"
    path.write_bytes(spoilt(data, (VECTORS / name).read_bytes()))
    agree(path, VECTORS / "heads.jsonl" if with_head else None, AGENT_KEY.public_key)
