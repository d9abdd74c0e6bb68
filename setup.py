"""The pages of error codes go into the wheel, so that `anabranch explain` needs no network."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PAGES = Path(__file__).resolve().parent / "docs" / "errors"


class BuildWithPages(build_py):
    """Copies ``docs/errors`` to ``anabranch/pages`` of what is built."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout reads them where they are
            return
        target = Path(self.build_lib) / "anabranch" / "pages"
        target.mkdir(parents=True, exist_ok=True)
        for page in sorted(PAGES.glob("AB-*.md")):
            shutil.copyfile(page, target / page.name)


setup(cmdclass={"build_py": BuildWithPages})
