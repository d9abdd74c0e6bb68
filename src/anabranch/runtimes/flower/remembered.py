"""What a client keeps between rounds, on its disk and in Flower's Context.

The folder counts. A copy goes into the Context with every answer, because a ClientApp may run in a
container whose disk ends with it, while the Context lies with the SuperNode; the Context in turn
is lost when the SuperNode restarts. Both are written before the answer is sent: the folder
durably, the Context together with the answer. A copy is taken back only where the folder holds
nothing at all. Secrets of secure sums stay on the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flwr.app import ConfigRecord, Context

from anabranch.disk import explained, make_directory, write_durably
from anabranch.errors import AnabranchError

__all__ = ["keep", "restore"]

_MARK: Final = "anabranch"
_COPY: Final = "anabranch-memory-"
_MOST: Final = 16 << 20
"""Bytes up to which a memory is copied: Flower hands the Context to a process for each message."""
_FILES: Final = "*.safetensors"


def restore(context: Context, run: str, folder: Path) -> None:
    """Put back what this client kept, where its folder is gone.

    Raises:
        AnabranchError: AB-784 there is no copy; training on would drift from the server's state.
    """
    if str(context.state.get(_MARK, {}).get(run, "")) != "kept" or any(folder.glob(_FILES)):
        return
    copies = dict(context.state.get(_COPY + run, {}))
    if not copies:
        raise AnabranchError(
            "AB-784",
            "what this client kept between rounds is gone from its folder.",
            fix="restore the folder, or start a new run.",
            kept="Nothing was sent.",
        )
    with explained(folder, "putting back the client's memory"):
        make_directory(folder, "memory")
        for name in copies:  # the oldest first: their order says which of them was begun before
            write_durably(folder / Path(name).name, bytes(copies[name]), "memory")


def keep(context: Context, run: str, folder: Path) -> None:
    """Note in the Context whether there is a memory, and copy it unless it is large."""
    files = list(folder.glob(_FILES)) if folder.is_dir() else []
    known = dict(context.state.get(_MARK, {}))
    if not files and run not in known:
        return
    # Nothing may be left of a first update that was not merged: then there is nothing to miss.
    context.state[_MARK] = ConfigRecord({**known, run: "kept" if files else ""})
    with explained(folder, "copying the client's memory"):
        ordered = sorted(files, key=lambda path: path.stat().st_mtime_ns)
        small = sum(path.stat().st_size for path in ordered) <= _MOST
        copies = {path.name: path.read_bytes() for path in ordered} if small else {}
    context.state[_COPY + run] = ConfigRecord(copies)
