"""The federation key where it lies in the fleet's own folder, which a trial allows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from anabranch.disk import explained, write_durably
from anabranch.fleet.identity import Identity

__all__ = ["FederationKeyFile"]

_KEY: Final = "federation.key"
_NEXT: Final = "federation-next.key"
_RETIRED: Final = "federation-retired-{}.key"
_SECRET_MODE: Final = 0o600


class FederationKeyFile:
    """``federation.key`` of a fleet, and the one that follows it while it is being replaced.

    Args:
        folder: of the fleet.

    Attributes:
        path: where the key lies if it lies here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / _KEY

    @property
    def here(self) -> bool:
        """Whether there is one."""
        return self.path.exists()

    def following(self, passphrase: bytes | None = None) -> Identity:
        """A new key beside it, not in force yet; the same one when asked again.

        Raises:
            AnabranchError: AB-730, AB-731 a key that was begun cannot be read; AB-6xx the disk.
        """
        path = self._folder / _NEXT
        if not path.exists():
            Identity.generate().save(path, passphrase)
        return Identity.load(path, passphrase)

    def retire(self, *, replaced: bool) -> Path | None:
        """After a rotation: the old key goes aside.

        Args:
            replaced: whether `following` takes its place; else the new key is kept elsewhere.

        Returns:
            Where the old key lies now; None when there was none here.

        Raises:
            AnabranchError: AB-6xx from the disk.
        """
        if not self.here:
            return None
        number = len(list(self._folder.glob(_RETIRED.format("*")))) + 1
        aside, following = self._folder / _RETIRED.format(number), self._folder / _NEXT
        with explained(self._folder, "putting the old federation key aside"):
            # There is a key of this name at every moment: killed in between, it is done again.
            write_durably(aside, self.path.read_bytes(), "key", mode=_SECRET_MODE)
            if replaced:
                os.replace(following, self.path)
            else:
                self.path.unlink()
        return aside
