"""Execute every notebook beside this file from its first cell to its last: ``make notebooks``.

With ``--write`` the outputs are kept in the files; otherwise nothing is changed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(path: Path, write: bool) -> None:
    """Run ``path`` in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message shows it.
    """
    notebook = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=900, resources=resources).execute()
    if write:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times would change with every run
        nbformat.write(notebook, path)
    print(f"{path.name}: {len(notebook.cells)} cells, {time.perf_counter() - began:.0f} s")


def main() -> None:
    for path in sorted(HERE.glob("*.ipynb")):
        execute(path, write="--write" in sys.argv[1:])


if __name__ == "__main__":
    main()
