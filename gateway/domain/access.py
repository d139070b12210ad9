"""Who may do what: five cumulative roles (the outside contract, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Each role may do what the ones before it may."""

    VIEWER = "viewer"
    MAINTENANCE = "maintenance"
    SHIFT_MANAGER = "shift_manager"
    SAFETY_OFFICER = "safety_officer"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """0 for a viewer … 4 for an administrator."""
        return list(Role).index(self)

    def includes(self, needed: Role) -> bool:
        """Whether somebody with this role may do what `needed` may."""
        return self.rank >= needed.rank


class Via(StrEnum):
    """How somebody proved who they are; it stands in the record of each of their acts."""

    SESSION = "session"
    TOKEN = "token"  # noqa: S105 - a word, not a secret
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may use the gateway, and as what."""

    name: str
    role: Role
    via: Via


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new session: the secret for the cookie (shown once, stored hashed), for whom, and how long it may live."""

    secret: str
    principal: Principal
    lifetime_s: int


class Refusal(StrEnum):
    """Why a sign-in was refused; the person is told no more than this."""

    WRONG = "wrong"
    THROTTLED = "throttled"
