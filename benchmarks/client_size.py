"""What a site installs: ``make bench-client`` writes ``benchmarks/results/client_size.json``.

Each variant goes into a fresh environment without pip and setuptools, in the versions of
``constraints.txt``. Counted are the sizes of all files in ``site-packages``, with and without the
bytecode (``.pyc``) that pip compiles at installation, and what ``du -sb`` says, which adds the
folders. The packages' own files are taken as they come; nothing is stripped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import Distribution, distributions
from pathlib import Path

from benchmarks.harness import RESULTS, machine

ROOT = Path(__file__).parent.parent
WANTED = 130_000_000
VARIANTS = {
    "core": "",
    "join": "[client]",
    "join and the other commands of a site": "[client,cli]",
}
"""Name of the variant, and the extras that it installs."""

Figures = dict[str, object]


def main() -> None:
    """Measure every variant, print a table, write the results."""
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for number, (name, extras) in enumerate(VARIANTS.items()):
            found[name] = installed(Path(folder) / f"{number}", f"{wheel}{extras}")
            show(name, found[name])
    document = {
        "machine": machine(),
        "when": time.strftime("%Y-%m-%d"),
        "wanted_bytes": WANTED,
        "variants": found,
    }
    (RESULTS / "client_size.json").write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def build_wheel(folder: Path) -> Path:
    """The package as it is published, built from a copy: old builds would leave their files in."""
    copy = folder / "source"
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", copy / "src", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(copy))
    (wheel,) = folder.glob("anabranch-*.whl")
    return wheel


def installed(folder: Path, what: str) -> Figures:
    """Sizes of an environment of its own that holds ``what``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip(python, "install", "--constraint", str(ROOT / "constraints.txt"), what)
    (site,) = folder.glob("lib/python*/site-packages")
    files = [path for path in site.rglob("*") if path.is_file()]
    bytecode = sum(path.stat().st_size for path in files if path.suffix == ".pyc")
    every = sum(path.stat().st_size for path in files)
    told = subprocess.run(["du", "-sb", str(site)], capture_output=True, text=True, check=True)
    packages = {dist.name: size(dist) for dist in distributions(path=[str(site)])}
    return {
        "bytes": every,
        "bytes_without_bytecode": every - bytecode,
        "du_sb": int(told.stdout.split()[0]),
        "packages": dict(sorted(packages.items(), key=lambda item: -item[1])),
    }


def size(dist: Distribution) -> int:
    """Bytes of a package's files, bytecode included."""
    paths = [Path(str(file.locate())) for file in dist.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def pip(python: str, *words: str) -> None:
    """Run this environment's pip for an interpreter that may have none."""
    base = [sys.executable, "-m", "pip", "--python", python]
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([*base, words[0], *quiet, *words[1:]], check=True)


def show(name: str, figures: Figures) -> None:
    """One variant as lines of text."""
    packages = figures["packages"]
    assert isinstance(packages, dict)
    bare, du = in_mb(figures["bytes_without_bytecode"]), in_mb(figures["du_sb"])
    print(f"\n{name}: {in_mb(figures['bytes'])} (without bytecode {bare}; du -sb {du})")
    for package, count in packages.items():
        print(f"  {package:20} {in_mb(count):>9}")


def in_mb(count: object) -> str:
    """Bytes in megabytes of a million."""
    assert isinstance(count, int)
    return f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
