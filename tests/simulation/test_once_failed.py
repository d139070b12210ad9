"""Seeds of long campaigns that once failed, and what was to be learnt from each."""

from __future__ import annotations

from typing import Final

import pytest

from tests.simulation.runs import assert_kept, run_seed

ONCE_FAILED: Final = {
    1000459: "a journal restored from a backup doubts again what it doubted then",
    1000470: "a restored image still had what a gap was stated for: it lies in quarantine and is acked",
    1000584: "a device that lost one table after the other was lost for as long as any was",
    1000720: "a restored image brought an event that a gap at the end of its run was stated for",
    1000779: "an open gap before a run whose beginning is damaged claimed what had come since the newest health",
    1000864: "of an agent and its clone nobody can tell whose disk was lost",
    1000888: "an open gap before a run whose beginning is damaged claimed what nobody had lost",
    1002005: "a violation whose end found no room was forgotten when the next one was raised",
    1003523: "a lost journal took what it knew of a lost disk, and an image brought a part of that back",
    1010455: "the auditor's board did not know that nothing could be journaled, which the real one tells",
    1011208: "a raise that found no room was told by the state report after it, and not by itself",
    1022642: "a listener that came and went with every event was sent the whole window each time: a storm",
    1030057: "the store that would have told of a loss was itself replaced by an image before anybody heard of it",
    1031845: "a journal restored from a backup had lost what the agent had pruned since, and could not tell how far that went",
    1037075: "an image brought what the gateway had not known of a disk when it heard that it was lost",
    1053628: "a run that was pruned whole is in the tail of the run before it, of which alone the gateway knew",
    1057822: "what is read after a gap, before the controller's counter has moved, denies no more than it proves",
    1060618: "a reply that came a millisecond after a guard had been unknown for too long did not come in time",
    1066917: "beats that had waited while the journal was full vouched for an agent that had been cut off since",
    1070051: "a program that ran for 0.4 s while its reads timed out had moved its counter",
    1073388: "the end of a violation had found no room on the disk that a clone's is an image of",
    1129948: "an agent that had lost findings for want of room vouched for what it had told before them",
    1145927: "the beginning of a new store straggled in behind the image that had replaced it: whose tail was lost, nobody can tell",
}


@pytest.mark.parametrize("seed", ONCE_FAILED, ids=str)
def test_every_promise_is_kept(seed: int) -> None:
    assert_kept(run_seed(seed))
