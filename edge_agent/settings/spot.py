"""Where something stands in a file, for problems that are found after the file was read."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.configfile import Document, PathKey, Problem


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something stands: a path in a document."""

    document: Document
    path: PathKey

    def problem(self, what: str, mend: str, *keys: str | int, at_key: bool = False) -> Problem:
        """A problem here, or at what stands under `keys` here."""
        return self.document.problem((*self.path, *keys), what, mend, at_key=at_key)

    def at(self, *keys: str | int) -> Spot:
        """What stands under `keys` here."""
        return Spot(self.document, (*self.path, *keys))
