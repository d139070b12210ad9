"""One device of a product, as its profile describes it, over real Modbus: driven by the names of its points.

For trying a configuration without the product, and for showing a fitter what each point does. A point named as `beat`
counts on, as a program that runs does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from simulators.control import Answer
from simulators.endpoint import Endpoint, Site, endpoint
from simulators.profile_image import ProfileError, ProfileImage, profile_folder

BEAT_S: Final = 0.5
"""A counter goes on this often: twice while the usual heartbeat may stand."""

BEAT_MAX: Final = 1 << 16
"""Counters of one register wrap here."""

_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def find_profile(name: str) -> Path:
    """The file of a shipped profile, or of one's own by its path. Raises `ProfileError`."""
    path = Path(name) if name.endswith(".yaml") or "/" in name else profile_folder() / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in profile_folder().glob("*.yaml")))
        raise ProfileError(f"there is no profile {name} — profiles here: {known}, or PATH.yaml")
    return path


class ProfileDevice:
    """The image, where it is served, and its counter."""

    def __init__(self, image: ProfileImage, site: Site, *, beat: str | None = None) -> None:
        if beat is not None:
            image.set(beat, 0)  # a name that is none is told before anybody comes
        self.image = image
        self.server: Endpoint = endpoint(image.bank, site)
        self._beat = beat

    def set_all(self, texts: Iterable[str]) -> None:
        """POINT=VALUE each: true, false, a number or a word of the point's map. Raises `ProfileError`."""
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise ProfileError(f"{text} sets nothing — write POINT=VALUE, such as o0=true")
            self._set(name, _value(value))

    def answer(self, request: Mapping[str, object]) -> Answer:
        """{"set": {"o0": true}} sets points; anything else is refused by ValueError."""
        points = request.get("set")
        if not isinstance(points, dict) or set(request) != {"set"}:
            raise ValueError('nothing to do — write {"set": {"POINT": VALUE}}')
        for name, value in points.items():
            if not isinstance(value, bool | int | float | str):
                raise ProfileError(f"{name} cannot be {value}")
            self._set(str(name), value)
        return {"set": len(points)}

    async def run(self) -> None:
        """Count, until cancelled."""
        count = 0
        while True:
            await asyncio.sleep(BEAT_S)
            count = (count + 1) % BEAT_MAX
            if self._beat is not None:
                self.image.set(self._beat, count)

    def _set(self, name: str, value: bool | float | str) -> None:  # noqa: FBT001 — a point's value
        try:
            self.image.set(name, value)
        except (AssertionError, OverflowError):
            raise ProfileError(f"{name} cannot hold {value}") from None


def _value(text: str) -> bool | float | str:
    with contextlib.suppress(KeyError):
        return {"true": True, "false": False}[text]
    if _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text
