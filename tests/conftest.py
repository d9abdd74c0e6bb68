"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# The fast suite draws the same examples every time, so that a failure is the change's own; the
# whole suite (`make test-all`) looks further, with new examples in every run.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile("explore" if os.environ.get("ANABRANCH_EXPLORE") else "same")
