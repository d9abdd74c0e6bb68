"""What the updates of an asynchronous sum were made from.

In a synchronous round all members train from one model, and the context names it. A buffered sum
(FedBuff, Nguyen et al. 2022) is formed when updates are ready, and each may have another base. The
context then lists them all, so that every member sees which versions the others claim and that
equal versions are equal models, and can work out how stale each update is.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from anabranch.privacy.secure_aggregation.primitives import DIGEST_BYTES, digest
from anabranch.privacy.secure_aggregation.refusals import bad_parameters
from anabranch.privacy.secure_aggregation.wire import Reader, Writer

__all__ = ["NO_BASES", "Base", "Bases"]

_TASK_BYTES = 16


@dataclass(frozen=True)
class Base:
    """Of one member's update.

    Attributes:
        task: the 32 hexadecimal digits of the training task.
        round: the model version that the task was to make.
        model: SHA-256 of the broadcast that it began with.
    """

    task: str
    round: int
    model: bytes


@dataclass(frozen=True)
class Bases:
    """Of all members' updates, or of none in a synchronous round.

    Attributes:
        version: the model version that the sum makes.
        of: by name of the member.

    Raises:
        AnabranchError: AB-952 a number is impossible, or one version has two models.

    >>> from anabranch.privacy.secure_aggregation.bases import Base, Bases
    >>> Bases(7, {"va": Base("0" * 32, 4, bytes(32))}).staleness("va")
    3
    """

    version: int
    of: Mapping[str, Base]

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", MappingProxyType(dict(sorted(self.of.items()))))
        models: dict[int, bytes] = {}
        for name, base in self.of.items():
            if len(base.model) != DIGEST_BYTES or len(base.task) != 2 * _TASK_BYTES:
                raise bad_parameters(f"The base of {name} has a digest or a name of no such size.")
            if not 0 <= base.round <= self.version:
                raise bad_parameters(f"The base of {name} is later than the sum.")
            if models.setdefault(base.round, base.model) != base.model:
                raise bad_parameters(f"Version {base.round} is shown as two different models.")

    def __bool__(self) -> bool:
        return bool(self.of)

    @property
    def model_digest(self) -> bytes:
        """What stands for all the models in the context of the sum."""
        return digest("bases", self.write(Writer()).finish())

    def staleness(self, name: str) -> int:
        """Model versions made since the member was asked."""
        return self.version - self.of[name].round

    def of_those(self, names: Container[str]) -> Bases:
        """Of some of the members."""
        return Bases(self.version, {name: b for name, b in self.of.items() if name in names})

    def write(self, writer: Writer) -> Writer:
        """Append the bases to the bytes of a context."""
        writer.number(self.version).number(len(self.of), 4)
        for name, base in self.of.items():
            writer.text(name).raw(bytes.fromhex(base.task)).number(base.round).raw(base.model)
        return writer

    @staticmethod
    def read(reader: Reader) -> Bases:
        """The inverse of `write`."""
        version, listed = reader.number(), {}
        for _ in range(reader.count()):
            name, task = reader.text(), reader.raw(_TASK_BYTES).hex()
            listed[name] = Base(task, reader.number(), reader.raw(DIGEST_BYTES))
        return Bases(version, listed)


NO_BASES = Bases(0, {})
"""Of a synchronous round."""
