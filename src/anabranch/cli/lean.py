"""`anabranch join` where the command line is not installed: the same options, a plain parser.

A site that only takes part needs the extra ``client`` and no terminal library; that keeps its
installation small.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from anabranch.cli.attending import Joining, join_fleet
from anabranch.cli.endings import INTERRUPTED, ExitCode, tell, unexpected
from anabranch.errors import AnabranchError

__all__ = ["main", "parser"]


class _Usage(Exception):  # noqa: N818  # it is not an error of the program
    """The words of wrong usage."""


def parser() -> argparse.ArgumentParser:
    """The options of ``anabranch join``, as `anabranch.cli.joining` has them."""
    made = argparse.ArgumentParser(
        "anabranch join",
        description="Work for every run of a fleet, with this site's own data. Rows never leave.",
    )
    add = made.add_argument
    add("url", nargs="?", default="", metavar="URL", help="Of the coordinator.")
    add("--data", type=Path, metavar="DIR", help="This site's folder or file.")
    add("--policy", type=Path, metavar="FILE", help="What this site takes part in.")
    add("--token", default="", help="Enrol first, with this token.")
    add("--name", default="", help="Of this client, unless enrolled.")
    add("--home", type=Path, default=Path("client"), metavar="DIR", help="Of this client.")
    add("--key-file", type=Path, metavar="FILE", help="Opens the home; not beside the data.")
    add("--keyring", action="store_true", help="The system's keyring opens the home.")
    add("--approve", action="append", default=[], metavar="DIGEST", help="Agree to a contract.")
    add("--ca", dest="authority", type=Path, metavar="FILE", help="Trusted authorities (PEM).")
    add("--proxy", metavar="URL", help="HTTP(S) proxy.")
    add("--engine", default="auto", help="How models are trained here.")
    add("--patience", type=float, metavar="SECONDS", help="Give up without contact (never).")
    add("--report-device", action="store_true", help="Tell times, energy and speed of tasks.")
    add("--device", default="", help="With it: this device's class, such as entry.")
    add("--network", default="", help="With it: 2g, 3g, 4g, 5g or wifi.")
    add("--debug", action="store_true", help="Tracebacks of errors.")
    return made


def main(words: Sequence[str]) -> int:
    """Join as ``words`` say; the program's exit code."""
    made = parser()
    given = vars(made.parse_args(words))
    debug = bool(given.pop("debug"))
    try:
        join_fleet(Joining(**{**given, "approve": tuple(given["approve"])}), _Usage)
    except _Usage as wrong:
        made.error(str(wrong))
    except AnabranchError as error:
        tell(str(error), debug=debug)
        return ExitCode.ERROR
    except KeyboardInterrupt:
        tell(INTERRUPTED, debug=False)
        return ExitCode.INTERRUPTED
    except Exception as error:
        # The last resort of the program: whatever else goes wrong is named, never swallowed.
        tell(str(unexpected(error)), debug=debug)
        return ExitCode.ERROR
    sys.stdout.flush()
    return ExitCode.OK
