"""The notebooks: sources that run with tiny sizes, and .ipynb files that are made from them and from nothing else."""

import ast
from pathlib import Path

import jupytext
import nbformat
import pytest
import xarray as xr
from IPython.core.interactiveshell import InteractiveShell

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
# In place of what the cell of parameters says.
TINY = {
    "NETWORK": "mlp(width=16, depth=1)",
    "STEPS": 2,
    "PILOT_STEPS": 2,
    "COUNT": 4,
    "SHOWN": 4,
    "IMAGES": 4,
    "SAMPLER_STEPS": 3,
    "POINTS": 5,
    "CURVE_STEPS": 2,
    "LANCZOS": 12,
    "PRODUCTS": 6,
}
MEGABYTE = 1_000_000


def notebook(source):
    return jupytext.read(source)


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


def tiny(cell):
    """A cell of parameters with the values of `TINY`: the same names, all of them, and nothing else."""
    assigned = [target.id for line in ast.parse(cell.source).body for target in line.targets]
    return "\n".join(f"{name} = {TINY[name]!r}" for name in assigned)


def test_there_are_five_and_the_readme_names_them():
    said = (FOLDER / "README.md").read_text("utf-8")
    assert len(SOURCES) == 5
    assert all(f"]({path.name})" in said and f"]({path.stem}.ipynb)" in said for path in SOURCES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_source_runs_and_its_results_show_themselves(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shell, cells = InteractiveShell(), [cell for cell in notebook(source).cells if cell.cell_type == "code"]
    assert [is_parameters(cell) for cell in cells] == [True] + [False] * (len(cells) - 1)
    shown = 0
    for cell in cells:
        done = shell.run_cell(tiny(cell) if is_parameters(cell) else cell.source)
        done.raise_error()
        if isinstance(done.result, xr.Dataset):
            html = shell.display_formatter.format(done.result)[0]["text/html"]
            assert html.startswith("<div><p><strong>"), cell.source
            shown += 1
    shell.run_line_magic("unload_ext", "consistency_lab")
    assert shown > 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_its_source(source):
    made = source.with_suffix(".ipynb")
    kept = nbformat.read(made, as_version=4)
    assert [(c.cell_type, c.source, is_parameters(c)) for c in kept.cells] == [
        (c.cell_type, c.source, is_parameters(c)) for c in notebook(source).cells
    ], f"run: python docs/make_notebooks.py {source.stem}"
    assert made.stat().st_size < MEGABYTE


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_holds_the_outputs_of_one_whole_run(source):
    """In order, without an error or a complaint, a figure for what can be moved, and nothing of the machine that ran it."""
    cells = [c for c in nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "text/html" in kinds
    assert "application/vnd.jupyter.widget-view+json" not in kinds
    text = str(outputs)
    assert not [folder for folder in ("/home/", "/root/", "/tmp/", "/work/", "/Users/") if folder in text]


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_kernel(source, tmp_path):
    from nbclient import NotebookClient

    made = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    for cell in filter(is_parameters, made.cells):
        cell.source = tiny(cell)
    done = NotebookClient(made, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    kinds = [kind for cell in done.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert "text/html" in kinds
    assert "application/vnd.jupyter.widget-view+json" in kinds
