"""The part of a population's ledger that one run writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anabranch.coordinator.store.participations import Participations
from anabranch.coordinator.store.secrets import RunSecret
from anabranch.privacy.ledger import Balance, Charge, Request, Reserved, rules

if TYPE_CHECKING:
    from anabranch.coordinator.store.ledger import PopulationLedger

__all__ = ["Reservation", "RunLedger"]


@dataclass(frozen=True)
class Reservation:
    """The right to compute one release.

    Attributes:
        release: its id.
        noise_key: 32 bytes that the noise derives from; the same for a replay.
        replayed: whether the same release was reserved before; it costs nothing again.
        entry: as it stands in the ledger.
    """

    release: str
    noise_key: bytes = field(repr=False)
    replayed: bool
    entry: Reserved


class RunLedger:
    """The part of a population's ledger that one run writes; get it from `PopulationLedger.begin`.

    Attributes:
        run: id of the run.
        ledger: of the population.
    """

    def __init__(self, ledger: PopulationLedger, run: str, secret: RunSecret) -> None:
        self.ledger = ledger
        self.run = run
        self._secret = secret

    def reserve(self, request: Request) -> Reservation:
        """Reserve one release, durably, before anything of it is computed.

        The same request again (after a crash, by a retry) is a replay: it costs nothing and has the
        same noise key. Any other input is another release.

        Raises:
            AnabranchError: AB-919 the run may not release this; AB-920 its budget is used up and
                the run ends with its last good model; AB-914 damaged; AB-6xx from the disk.
        """
        found: list[tuple[Reserved, bool]] = []

        def rule(balance: Balance) -> Reserved | None:
            found.append(rules.reserve(balance, self.run, request))
            entry, replayed = found[-1]
            return None if replayed else entry

        self.ledger.decide("reserve", rule)
        entry, replayed = found[-1]
        key = self._secret.derive("noise", entry.release)
        return Reservation(entry.release, key, replayed, entry)

    def settle(self, release: str, charge: Charge, output: str) -> None:
        """Say what was released; call it after the round is durable. May be repeated.

        Args:
            release: id of the reservation.
            charge: with the noise that was really added.
            output: SHA-256 of what was released.

        Raises:
            AnabranchError: AB-921 no such reservation, or settled differently.
        """
        self.ledger.decide("settle", lambda b: rules.settle(b, release, charge, output))

    def void(self, release: str, reason: str) -> None:
        """Give a reservation back, when nothing can have been computed from it. May be repeated.

        Only the caller can know that: the noise key was not used, and no sum was opened. After a
        crash nobody knows, and the reservation stays spent.

        Raises:
            AnabranchError: AB-921 no such reservation, or settled differently.
        """
        self.ledger.decide("settle", lambda b: rules.settle(b, release, None, reason=reason))

    def unsettled(self) -> Mapping[str, Charge]:
        """Reserved charges by release id, of releases that nobody said anything about since."""
        releases = self.ledger.balance().runs[self.run].releases
        return {
            release: held.reserved.charge
            for release, held in releases.items()
            if held.settled is None
        }

    def finish(self, reason: str, *, final: bool = True) -> None:
        """End the run: what it did not use returns to the population. May be repeated.

        Args:
            reason: in words.
            final: the run never goes on, and its secret is erased. False for a run that was stopped
                and may be resumed.
        """
        self.ledger.decide("close", lambda b: rules.close(b, self.run, reason, final=final))
        if final:
            self._secret.erase()

    def noise_key(self, release: str) -> bytes:
        """The key of a release that was reserved before: correlated noise draws it again."""
        return self._secret.derive("noise", release)

    def payload_key(self) -> bytes:
        """Keys the digests of exact sums: without the secret nobody can test a guess at one."""
        return self._secret.derive("payloads", "")

    def client_key(self) -> bytes:
        """What simulated clients draw their part of distributed noise from."""
        return self._secret.derive("clients", "")

    def coins(self, round_: int) -> bytes:
        """32 secret bytes behind the selection of a round; equal after a crash."""
        return self._secret.derive("coins", str(round_))

    @property
    def participations(self) -> Participations:
        """Who took part in which rounds."""
        return self.ledger.participations(self.run)
