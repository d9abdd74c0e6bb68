"""The versions of a run's model that a networked client keeps, so that differences are enough.

A version is a point on the downlink's grid: whole numbers of steps from the first broadcast. It is
kept in one file, sealed like the client's memory. The newest one is kept, and beside it the one
that the coordinator believes the client to hold: an answer that came too late never reached it.
A file that is missing or damaged costs a whole download, nothing else.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from anabranch.client.program import ClientProgram
from anabranch.disk import explained, make_directory, write_durably
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.memory import Sealer
from anabranch.updates.downlink_state import Held
from anabranch.updates.grid import Grid

__all__ = ["HeldBroadcasts"]

_FILE: Final = re.compile(r"broadcast-([1-9][0-9]{0,9})\.held")
_EXPONENTS: Final = "exponents"
_UNITS: Final = "units."
_SHORT: Final = 2**15


class HeldBroadcasts:
    """What one client keeps of one run's broadcasts.

    Args:
        directory: of the client's memory in this run; made when something is kept.
        lengths: coordinates of each section of a broadcast.
        sealer: encrypts the files; None writes them as they are.
    """

    def __init__(
        self, directory: Path, lengths: Mapping[str, int], sealer: Sealer | None = None
    ) -> None:
        self._directory, self._lengths, self._sealer = Path(directory), lengths, sealer

    @staticmethod
    def of(
        program: ClientProgram, directory: Path, sealer: Sealer | None = None
    ) -> HeldBroadcasts | None:
        """Where a client keeps versions; None when its plan sends no differences."""
        if program.downlink is None or not program.downlink.remembers:
            return None
        lengths = {name: len(vector) for name, vector in program.origin.items()}
        return HeldBroadcasts(directory, lengths, sealer)

    def holds(self, version: int) -> bool:
        """Whether a difference to ``version`` can be used; everybody holds version 0."""
        return version == 0 or version in self._files()

    def read(self, version: int) -> Held:
        """The point of a version.

        Raises:
            AnabranchError: AB-526 it is not here, or no longer whole; it is then forgotten.
        """
        if version == 0:
            return Held()
        path = self._path(version)
        try:
            content = path.read_bytes()
            if self._sealer is not None:
                content = self._sealer.open(self._purpose, content, path)
            return Held(version, self._point(content))
        except Exception as error:  # a damaged file of any kind, from disk, vault or container
            self.forget()
            raise AnabranchError(
                "AB-526",
                f"the version {version} that this client held cannot be read.",
                fix="nothing: the whole model is fetched.",
                kept="Nothing was sent.",
            ) from error

    def keep(self, held: Held, base: int) -> None:
        """Keep a version that was decoded, and forget all others but ``base``.

        A client without room goes on: the next download is a whole model then.
        """
        with contextlib.suppress(AnabranchError):
            content = self._content(held)
            if self._sealer is not None:
                content = self._sealer.seal(self._purpose, content)
            make_directory(self._directory, "memory")
            with explained(self._directory, "keeping a model"):
                write_durably(self._path(held.version), content, "broadcast")
        self._forget_but(held.version, base)

    def forget(self) -> None:
        """Hold nothing."""
        self._forget_but()

    def _forget_but(self, *versions: int) -> None:
        for version, path in self._files().items():
            if version not in versions:
                path.unlink(missing_ok=True)

    def _content(self, held: Held) -> bytes:
        exponents = [held.grid(name, length).exponent for name, length in self._lengths.items()]
        arrays: dict[str, NDArray[np.generic]] = {_EXPONENTS: np.array(exponents, np.int64)}
        for name, length in self._lengths.items():
            units = held.grid(name, length).units
            largest = max(int(units.max(initial=0)), -int(units.min(initial=0)))
            arrays[_UNITS + name] = units.astype(np.int16) if largest < _SHORT else units
        return save(arrays)

    def _point(self, content: bytes) -> dict[str, Grid]:
        arrays = load(content)
        exponents = arrays[_EXPONENTS].tolist()
        point = {}
        for exponent, (name, length) in zip(exponents, self._lengths.items(), strict=True):
            units = arrays[_UNITS + name]
            if units.shape != (length,):
                raise ValueError("another model")
            point[name] = Grid(int(exponent), units.astype(np.int32))
        return point

    def _files(self) -> dict[int, Path]:
        if not self._directory.is_dir():
            return {}
        found = ((_FILE.fullmatch(path.name), path) for path in self._directory.iterdir())
        return {int(match[1]): path for match, path in found if match}

    def _path(self, version: int) -> Path:
        return self._directory / f"broadcast-{version}.held"

    @property
    def _purpose(self) -> str:
        return f"broadcast of {self._directory.name}"
