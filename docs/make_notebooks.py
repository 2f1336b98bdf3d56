"""Make the notebooks from their sources and run them, so that they hold the outputs that readers online see: ``make notebooks``.

Pages that show notebooks draw no widgets, so what can be moved in a notebook of one's own is stored as its still figure.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
STILL = "import sys, warnings; sys.modules['ipywidgets'] = None; warnings.filterwarnings('ignore', message='IProgress')"


def made(source: Path) -> nbformat.NotebookNode:
    """The notebook of a source with the outputs of a run in an empty folder. Raises what a cell raises."""
    notebook = nbformat.from_dict(jupytext.read(source))
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"--InteractiveShellApp.exec_lines={STILL}"]
        client = NotebookClient(
            notebook,
            timeout=1800,
            resources={"metadata": {"path": folder}},
            extra_arguments=arguments,
            record_timing=False,
        )
        client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{number}"  # the same at every run
    return notebook


if __name__ == "__main__":
    named = set(sys.argv[1:])
    for source in sorted(FOLDER.glob("*.py")):
        if not named or source.stem in named:
            nbformat.write(made(source), source.with_suffix(".ipynb"))
            print(source.with_suffix(".ipynb"), flush=True)
