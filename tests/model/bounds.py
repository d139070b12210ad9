"""How far the searches go: small ones for every test run, larger ones for long runs.

Each size is a set of bounds that reach in different directions, because one that reaches in all of them is out of
anybody's reach: with every fault twice a world of two agents has billions of states.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from tests.model.world import FAULTS, Act, Bound


class Size(StrEnum):
    """Of a search."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


_NONE: frozenset[Act] = frozenset()
_ALONE = FAULTS - {Act.CLONE}
_HISTORIES = frozenset({Act.SNAPSHOT, Act.KILL, Act.PRUNE, Act.DAMAGE, Act.DELETE_GATEWAY})

BOUNDS: Mapping[Size, Mapping[str, Bound]] = {
    Size.SMALL: {
        "weather alone": Bound(events=2, faults=0, up=2, down=2, kinds=_NONE),
        "every fault": Bound(events=1, faults=1, up=2, kinds=_ALONE),
        "a clone": Bound(events=0, faults=1, up=1, kinds=frozenset({Act.CLONE})),
        "every pair of faults": Bound(events=0, faults=2, up=1, kinds=_ALONE),
        "two histories": Bound(events=2, faults=1, up=2, kinds=frozenset({Act.SNAPSHOT})),
    },
    Size.MEDIUM: {
        "weather alone": Bound(events=3, faults=0, up=3, down=2, window=3, kinds=_NONE),
        "every fault": Bound(events=2, faults=1, up=2, kinds=_ALONE),
        "a clone": Bound(events=1, faults=1, up=1, kinds=frozenset({Act.CLONE})),
        "every pair of faults": Bound(events=1, faults=2, up=1, kinds=_ALONE),
        "two histories": Bound(events=3, faults=1, up=2, kinds=frozenset({Act.SNAPSHOT})),
    },
    Size.LARGE: {
        "every fault": Bound(events=3, faults=1, up=2, down=2, kinds=_ALONE),
        "a clone": Bound(events=1, faults=1, up=2, kinds=frozenset({Act.CLONE})),
        "a clone and a fault": Bound(events=0, faults=2, up=1),
        "every pair of faults": Bound(events=2, faults=2, up=1, kinds=_ALONE),
        "every three faults": Bound(events=0, faults=3, up=1, kinds=_ALONE),
        "two histories": Bound(events=2, faults=2, up=2, kinds=_HISTORIES),
    },
}
