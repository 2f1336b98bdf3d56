import os

import pytest

from consistency_lab.reports import folder
from consistency_lab.reports.folder import write_folder
from consistency_lab.store.results import load_result, save_result


@pytest.fixture
def drawn(monkeypatch):
    """Names of the figures that are drawn, and "page" for a page."""
    seen = []
    figures, page = folder.figures_of, folder.report

    def counted(ds):
        for name, figure, frame in figures(ds):
            seen.append(f"{ds.attrs['kind']}-{name}")
            yield name, figure, frame

    def paged(*arguments, **options):
        seen.append("page")
        return page(*arguments, **options)

    monkeypatch.setattr(folder, "figures_of", counted)
    monkeypatch.setattr(folder, "report", paged)
    return seen


def some(results):
    return {"loss": results.training(2), "line": results.recipe()}  # one plain figure each


def test_the_folder_holds_results_figures_and_the_page(results, tmp_path, drawn):
    assert write_folder(some(results), tmp_path, "Title") == tmp_path / "report.html"
    assert drawn == ["training-loss", "recipe-density", "page"]
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    for name in (
        "results/loss.nc",
        "results/loss.csv",
        "figures/line-density.png",
        "figures/line-density.pdf",
        "report.md",
    ):
        assert name in files
    assert load_result(tmp_path / "results" / "line.nc").identical(some(results)["line"])


def test_a_folder_does_not_mix_the_results_of_two_calls(results, tmp_path, drawn):
    write_folder(some(results), tmp_path, "Title")
    (tmp_path / "figures" / "mine.png").write_text("not ours")
    write_folder({"loss": some(results)["loss"]}, tmp_path, "Title")
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"loss.nc", "mine.png"} <= kept
    assert not [name for name in kept if name.startswith("line")]


def test_no_name_leads_out_of_the_folder(results, tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(folder, "report", lambda *_, **__: None)  # whose files have names of their own
    out, line = tmp_path / "out", results.recipe()
    for _ in range(2):  # what was written before is found by the same name
        write_folder({"../../escape": line, "_.._escape": line}, out, "Title")
    assert drawn == ["recipe-density"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (out / "results").glob("*.nc")) == ["_.._escape (2).nc", "_.._escape.nc"]
    notes = out / "figures" / ".drawn.json"
    notes.write_text(notes.read_text().replace("_.._escape (2)", "../../precious"))
    (tmp_path / "precious.nc").write_text("mine")
    write_folder({"_.._escape": line}, out, "Title")
    assert (tmp_path / "precious.nc").read_text() == "mine"


def test_what_is_unchanged_is_not_drawn_again(results, tmp_path, drawn, monkeypatch):
    write_folder(some(results), tmp_path, "Title")
    drawn.clear()
    write_folder(some(results), tmp_path, "Title")
    assert drawn == []
    write_folder(some(results), tmp_path, "Other title")
    assert drawn == ["page"]
    drawn.clear()
    changed = some(results)
    changed["loss"]["loss"][0, 0] += 1e-9
    write_folder(changed, tmp_path, "Other title")
    assert drawn == ["training-loss", "page"]
    assert load_result(tmp_path / "results" / "loss.nc").identical(changed["loss"])
    drawn.clear()
    os.unlink(tmp_path / "figures" / "line-density.pdf")
    write_folder(changed, tmp_path, "Other title")
    assert drawn == ["recipe-density"]
    drawn.clear()
    os.unlink(tmp_path / "report.json")
    write_folder(changed, tmp_path, "Other title")
    assert drawn == ["page"]
    drawn.clear()
    # A result that somebody else put into its place is not the one that was drawn.
    save_result(results.training(3), tmp_path / "results" / "line.nc")
    write_folder(changed, tmp_path, "Other title")
    assert drawn[0] == "recipe-density"
    drawn.clear()
    monkeypatch.setattr(folder, "_code", lambda: "other code")
    write_folder(changed, tmp_path, "Other title")
    assert drawn == ["training-loss", "recipe-density", "page"]


def test_damaged_notes_are_drawn_anew(results, tmp_path, drawn):
    write_folder(some(results), tmp_path, "Title")
    drawn.clear()
    (tmp_path / "figures" / ".drawn.json").write_text("[1")
    write_folder(some(results), tmp_path, "Title")
    assert drawn == ["training-loss", "recipe-density", "page"]


def test_the_page_alone_is_drawn_where_it_is_enough_and_the_figures_when_they_are_wanted(results, tmp_path, drawn):
    write_folder(some(results), tmp_path, "Title", figures=False)
    assert drawn == ["page"]
    assert not list(tmp_path.rglob("*.png"))
    assert load_result(tmp_path / "results" / "line.nc").identical(some(results)["line"])
    drawn.clear()
    write_folder(some(results), tmp_path, "Title", figures=False)
    assert drawn == []
    write_folder(some(results), tmp_path, "Title")
    assert drawn == ["training-loss", "recipe-density"]
    assert (tmp_path / "figures" / "line-density.pdf").is_file()
