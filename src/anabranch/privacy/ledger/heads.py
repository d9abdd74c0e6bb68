"""The signed head of a ledger: what a client keeps, so that nobody can turn the ledger back.

The coordinator puts it into every task of a private run. A client that once saw entry 40 with
digest d refuses a head with a lower sequence, and a later one that does not continue d: the ledger
was restored from an old copy, or two of them are shown to different clients. That it continues is
shown by the content digests of the entries between, which tell nothing of what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from anabranch.errors import AnabranchError
from anabranch.privacy.ledger.balance import Balance
from anabranch.privacy.ledger.chain import Link, continued
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

    What a client is shown beside it, see :meth:`continues`, needs no signature of its own.
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

    def continues(self, sequence: int, digest: str, contents: Sequence[str]) -> bool:
        """Whether this head has the entry ``sequence`` with ``digest`` in its past.

        Args:
            sequence: number of an earlier entry.
            digest: of that entry.
            contents: content digests of the entries after it, up to this head.
        """
        if len(contents) != self.sequence - sequence:
            return False
        try:
            return continued(digest, contents) == self.digest
        except ValueError:
            return False


def head_of(balance: Balance, last: Link) -> Head:
    """The head of a ledger, to be signed."""
    opened = balance.opened
    spent = balance.epsilon()
    return Head(opened.population, last.sequence, last.digest, spent, opened.epsilon, opened.delta)
