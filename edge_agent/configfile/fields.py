"""What file models are made of: a strict base section, and the way a validator refuses a value."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

FAULT = "fault"
"""Error type of a refusal that brings its own sentence and its own way to mend it."""


class Section(BaseModel):
    """A mapping in a configuration file: every key known, every type as written, nothing changed afterwards."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def fault(what: str, mend: str) -> PydanticCustomError:
    """The error that a validator raises: `what` is wrong (a clause about the value), `mend` says how to put it right."""
    return PydanticCustomError(FAULT, "{what}", {"what": what, "mend": mend})
