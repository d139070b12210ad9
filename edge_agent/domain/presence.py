"""The proof that something is there: what a device says of an absent module is not believed.

Safety controllers answer for modules that are missing: one reads them as all ones, which is "no error", another as
zeros. A presence check is a coded bit of the device (a type code, a status word) that only the real thing makes true.
While it is not true, or not good, what it covers is not good either. Content from another block counts again when it
was asked for after the proof came: what had been read before was the absent module's.

Source: SICK Flexi Compact and Flexi Classic gateway manuals (absent modules); the outside contract, section 2 ("Unknown":
failed presence check).
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.domain.plan import WHOLE_DEVICE, DevicePlan, PresencePlan
from edge_agent.domain.quality import BlockState, Supply
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import MonoNs
from edge_agent.wire.event import Quality

ABSENT_REASON = "absent"
"""Why a device is lost whose presence is denied; `absent:MODULE` for a module of it."""


class PresenceCheck:
    """One check of one device: `signal` is its coded bit, `covered` what must not be believed without it."""

    __slots__ = ("_proven_at", "covered", "plan", "signal")

    def __init__(self, plan: PresencePlan, signal: Signal, covered: Sequence[Signal]) -> None:
        self.plan = plan
        self.signal = signal
        self.covered = tuple(covered)
        self._proven_at: MonoNs | None = None
        signal.block.has_proof = True
        for item in self.covered:
            item.checks = (*item.checks, self)

    @property
    def reason(self) -> str:
        """Why its device is lost while it is denied."""
        name = self.plan.name
        return ABSENT_REASON if name == WHOLE_DEVICE else f"{ABSENT_REASON}:{name}"

    @property
    def block(self) -> BlockState:
        """The block that the proof is read in."""
        return self.signal.block

    @property
    def is_denied(self) -> bool:
        """Whether it can be read, and does not prove the presence."""
        return self.block.supply is Supply.GOOD and self._proven_at is None

    @property
    def is_proven(self) -> bool:
        """Whether what it covers may be believed, once it is read again."""
        return self._proven_at is not None

    def settle(self, now: MonoNs) -> None:
        """Its signal has changed, in value or in quality."""
        if self.signal.truth is not True:
            self._proven_at = None
        elif self._proven_at is None:
            self._proven_at = now

    def doubt(self, block: BlockState) -> Quality | None:
        """What content of `block` is worth because of this check; None when nothing is against it."""
        if self._proven_at is None:
            return Quality.CONFIG_BAD if self.signal.is_good else self.signal.quality
        if block is not self.block and block.requested_at < self._proven_at:
            return Quality.CONFIG_BAD
        return None


def presence_checks(plan: DevicePlan, signals: Sequence[Signal]) -> tuple[PresenceCheck, ...]:
    """The checks of one device, tied to those of its `signals` that they cover."""
    proofs = {item.signal for item in plan.presence}
    coverable = [signal for signal in signals if signal.plan.id not in proofs]
    by_id = {signal.plan.id: signal for signal in signals if signal.plan.id in proofs}
    return tuple(
        PresenceCheck(
            item,
            by_id[item.signal],
            [signal for signal in coverable if item.name in (WHOLE_DEVICE, signal.plan.module)],
        )
        for item in plan.presence
    )
