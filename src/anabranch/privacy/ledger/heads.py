"""The signed head of a ledger: what a client keeps, so that nobody can turn the ledger back.

The coordinator puts it into every task of a private run. A client that once saw entry 40 with
digest d refuses a head with a lower sequence, or another digest at 40: the ledger was restored from
an old copy, or two of them are shown to different clients.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from anabranch.errors import AnabranchError
from anabranch.privacy.ledger.balance import Balance
from anabranch.privacy.ledger.chain import Link
from anabranch.privacy.ledger.documents import canonical

__all__ = ["Head", "head_of"]


@dataclass(frozen=True)
class Head:
    """Where a population's ledger stands.

    Attributes:
        population: whose.
        sequence: number of the last entry.
        digest: of the last entry; it binds all before.
        epsilon: spent, allotments of open runs included.
        budget: of the population.
        delta: of both.
        signature: Ed25519 over all of the above, hexadecimal; empty before signing.
    """

    population: str
    sequence: int
    digest: str
    epsilon: float
    budget: float
    delta: float
    signature: str = ""

    def _message(self) -> bytes:
        fields = {k: v for k, v in asdict(self).items() if k != "signature"}
        return b"anabranch ledger head 1\n" + canonical(fields).encode()

    def signed(self, key: Ed25519PrivateKey) -> Head:
        """The head with the coordinator's signature."""
        return replace(self, signature=key.sign(self._message()).hex())

    def verify(self, key: Ed25519PublicKey) -> None:
        """Check the signature.

        Raises:
            AnabranchError: AB-924 it is missing or not by this key.
        """
        try:
            key.verify(bytes.fromhex(self.signature), self._message())
        except (InvalidSignature, ValueError) as error:
            raise AnabranchError(
                "AB-924",
                f"the head of the ledger of {self.population!r} is not signed by the coordinator.",
                fix="ask who runs the coordinator; until then this client takes part in nothing "
                "private.",
                kept="Nothing was sent.",
            ) from error


def head_of(balance: Balance, last: Link) -> Head:
    """The head of a ledger, to be signed."""
    opened = balance.opened
    spent = balance.epsilon()
    return Head(opened.population, last.sequence, last.digest, spent, opened.epsilon, opened.delta)
