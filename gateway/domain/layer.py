"""A mapping with changes laid over it: seen at once, kept by `adopt`, forgotten by `discard`.

Folds stage the entries of a transaction before anybody knows whether it will commit (`gateway.ports.Fold`). A layer
costs what changed, not what there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Layer(Generic[K, V]):
    """Adopted entries, and staged changes over them (None marks what is taken out)."""

    def __init__(self) -> None:
        self._adopted: dict[K, V] = {}
        self._staged: dict[K, V | None] = {}

    def get(self, key: K) -> V | None:
        """The entry as staged."""
        return self._staged[key] if key in self._staged else self._adopted.get(key)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it, and nothing staged."""
        return not self._adopted and not self._staged

    def put(self, key: K, value: V) -> None:
        """Stage an entry."""
        self._staged[key] = value

    def drop(self, key: K) -> None:
        """Stage the removal of an entry."""
        self._staged[key] = None

    def values(self) -> Iterator[V]:
        """All entries as staged."""
        for key, value in self._adopted.items():
            if key not in self._staged:
                yield value
        for staged in self._staged.values():
            if staged is not None:
                yield staged

    def adopted(self) -> Mapping[K, V]:
        """The entries without what is staged."""
        return self._adopted

    def adopt(self) -> None:
        """What is staged is so now."""
        for key, value in self._staged.items():
            if value is None:
                self._adopted.pop(key, None)
            else:
                self._adopted[key] = value
        self._staged.clear()

    def discard(self) -> None:
        """Forget what is staged."""
        self._staged.clear()

    def replace(self, entries: Mapping[K, V]) -> None:
        """Adopt exactly `entries`."""
        self._staged.clear()
        self._adopted = dict(entries)
