"""How the program ends, in words and in numbers; it needs nothing that a client lacks."""

from __future__ import annotations

import sys
import traceback
from enum import IntEnum

from anabranch.errors import AnabranchError

__all__ = ["INTERRUPTED", "ExitCode", "tell", "unexpected"]

INTERRUPTED = "Interrupted. What was committed is kept; see `anabranch resume`."


class ExitCode(IntEnum):
    """What the program returns to the shell."""

    OK = 0
    ERROR = 1
    USAGE = 2
    LIMITS_MISSED = 3
    INTERRUPTED = 130


def unexpected(error: Exception) -> AnabranchError:
    """An error that nobody foresaw, as one of ours."""
    return AnabranchError(
        "AB-802",
        f"an error that Anabranch does not know: {type(error).__name__}: {error}.",
        fix="run the command again with --debug and report what it prints.",
        kept="Rounds that were committed are kept.",
    )


def tell(message: str, *, debug: bool) -> None:
    """On stderr; with the traceback when asked to."""
    if debug:
        traceback.print_exc()
    sys.stderr.write(message + "\n")
