import base64
import html.parser
import io
import itertools
import json
import re
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from consistency_lab.errors import StoreError, UserError
from consistency_lab.intervals import interval_of
from consistency_lab.kinds.base import Kind, Section, Table
from consistency_lab.kinds.gallery import extremes
from consistency_lab.kinds.registry import figures_of
from consistency_lab.plots import frames
from consistency_lab.reports import html as pages
from consistency_lab.reports.html import LONG, report
from consistency_lab.store.results import load_result, save_result

FEW = {"samples": 6, "shown": 2, "times": 3}  # of comparisons whose pictures and curves are not looked at


class Page(html.parser.HTMLParser):
    """What the tests ask of a page: elements with attributes, ids, the text that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag == self.open.pop(), f"</{tag}> closes nothing"

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def all(self, tag, **wanted):
        return [
            a
            for t, a in self.elements
            if t == tag and all(a.get(key.rstrip("_")) == value for key, value in wanted.items())
        ]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert report(results.everything(), path) == path
    return path


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_its_ids_are_unique(page):
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_nothing_is_fetched(page, written):
    for tag, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, key, attributes[key])
    text = written.read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)", text)
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")


def test_every_reference_inside_a_figure_finds_its_target(written):
    text = written.read_text(encoding="utf-8")
    ids = set(re.findall(r'\sid="([^"]+)"', text))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= ids
    assert set(re.findall(r'href="#([^"]+)"', text)) <= ids


def test_the_headline_has_its_interval_kind_null_ceiling_and_references(page, results):
    last = results.comparison().isel(t=-1).sel(metric="mse")
    score, low, high = (f"{part:.3f}" for part in interval_of(last, "family_score"))
    assert score in page.text
    assert f"{low} to {high}" in page.text
    for words in (
        "two-way jackknife",
        "other noise (null)",
        "other step count (ceiling)",
        "Gaussian denoiser",
        "data mean",
    ):
        assert words in page.text


def test_warnings_stand_beside_the_headline_in_all_three_files(results, tmp_path):
    ds = results.comparison(2, **FEW).sel(metric=["mse"])
    ds.attrs["warnings"] = json.dumps(["dit: 12 % of <pixels> lie outside."])
    path = report([ds], tmp_path / "r.html")
    hero = path.read_text(encoding="utf-8").split('class="card hero"')[1].split("What was compared")[0]
    assert "12 % of &lt;pixels&gt; lie outside" in hero
    assert r"12 % of \<pixels> lie outside" in path.with_suffix(".md").read_text(encoding="utf-8").split("###")[0]
    assert json.loads(path.with_suffix(".json").read_text())["headline"]["warnings"] == [
        "dit: 12 % of <pixels> lie outside."
    ]


def test_what_was_compared_is_said(page):
    for words in (
        "1099511627776",
        "ddim, 20 steps, x0 not clipped",
        "training seeds 0; 1",
        "ceiling 40 steps",
        "network evaluations",
        "EMA",
        f"torch {version('torch')}",
        "digits",
        "cpu",
    ):
        assert words in page.text


def test_the_gallery_has_a_canvas_for_each_row_and_noise_with_a_name(page, results):
    ds = results.comparison()
    rows = 4 + 3 + 4  # and those of the samples at either end
    moving = page.all("canvas")
    assert all(canvas["role"] == "img" and canvas["aria-label"] for canvas in moving)
    assert len([c for c in moving if "data-moves" in c]) == (4 + 3) * ds.sizes["shown"]
    listed = [end for metric in ds["metric"].values for end in extremes(ds, metric).values()]
    ends = {column for end in listed for column, _, _ in end}  # the median samples are drawn elsewhere
    assert len({(c["data-row"], c["data-column"]) for c in moving}) == rows * ds.sizes["shown"] + 4 * len(ends)
    slider = page.all("input", type="range")[0]
    assert (slider["min"], slider["max"], slider["value"]) == ("0", str(ds.sizes["t"] - 1), str(ds.sizes["t"] - 1))
    assert slider["aria-label"]


def test_the_contents_reach_every_section_and_its_parts(page):
    (nav,) = page.all("nav")
    assert nav["aria-label"]
    links = [
        a["href"].removeprefix("#") for a in page.all("a") if a.get("href", "").startswith("#") and "class" not in a
    ]
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert set(links) <= ids
    sections = [section["id"] for section in page.all("section")]
    parts = [card["id"] for card in page.all("div", class_="card") if "id" in card]
    assert sorted(links) == sorted(sections + parts)
    assert len(parts) == 7


def test_headings_go_down_by_one_step(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_heads_of_tables_say_what_they_are_of_and_what_moves_is_reached(page):
    assert page.all("th")
    assert all(th.get("scope") in ("col", "row", "rowgroup") for th in page.all("th"))
    moving = [div for div in page.all("div") if div.get("class") in ("scroll", "drawing")]
    assert len(moving) > 20
    assert all(div["tabindex"] == "0" and div["role"] == "group" and div["aria-label"] for div in moving)
    assert all(image["alt"] for image in page.all("img"))


def test_one_time_has_no_figure_along_t(results, tmp_path):
    ds = results.comparison(3, **FEW).isel(t=[-1])
    path = report([ds], tmp_path / "pixels.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert "along t" not in page.text.lower()
    assert page.all("input", type="range") == []
    assert not [a for a in page.all("a") if a.get("download", "").endswith("curves.csv")]
    assert "comparison-1-curves" not in path.read_text(encoding="utf-8")
    assert not [name for name, _, _ in figures_of(ds) if name.startswith("curves")]


def test_difficulties_share_a_section_where_they_share_their_images(results, tmp_path):
    first = results.difficulty()
    second = first.assign_attrs(model="another")
    path = report([first, second, results.recipe()], tmp_path / "together.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert [section["id"] for section in page.all("section")] == ["difficulty-1", "recipe-2"]
    assert len(page.all("details")) == 2 + 2  # one a model, and how each section was made
    csv = next(a for a in page.all("a") if a.get("download") == "difficulty-1-curves.csv")
    table = pd.read_csv(io.BytesIO(base64.b64decode(csv["href"].split(",")[1])))
    assert list(dict.fromkeys(table["model"])) == [first.attrs["model"], "another"]
    entries = json.loads(path.with_suffix(".json").read_text())["results"]
    assert [entry["kind"] for entry in entries] == ["difficulty", "difficulty", "recipe"]
    assert "### another: every definition, and how they agree" in path.with_suffix(".md").read_text(encoding="utf-8")
    apart = report([first, first], tmp_path / "apart.html")  # of one name: nobody could tell the lines from each other
    assert len(Page(apart.read_text(encoding="utf-8")).all("section")) == 2


def test_long_tables_stand_behind_their_titles(results, tmp_path):
    rows = [("a", "b")] * (LONG + 1)

    class Long(Kind):
        def section(self, ds):
            return Section("Long", [Table(("what", "value"), rows), Table(("what", "value"), rows[:-1])])

    section = pages._section(Long().section(None), [results.recipe()], 1)
    page = Page(pages._environment().get_template("page.html.j2").render(title="t", sections=[section], summary=[]))
    summaries = re.findall(r"What: all \d+ rows", page.text)
    assert summaries == [f"What: all {LONG + 1} rows"]
    assert len(page.all("table")) == 2


def test_figures_have_alternatives_and_vector_text(page):
    figures = page.all("svg")
    assert len(figures) == 4 * 3 + 1 + 3 + 2 * 2 + 1 + 1 + len(page.all("div", class_="drawing narrow"))
    assert len(page.all("div", class_="drawing narrow")) == len(page.all("div", class_="drawing broad")) == 3
    assert all(figure["role"] == "img" and len(figure["aria-label"]) > 30 for figure in figures)
    assert "consistency score, mse" in page.text
    assert "log-SNR" in page.text


def test_the_data_behind_each_figure_can_be_saved(page, results):
    links = {a["download"]: a.get("href") for a in page.all("a") if "download" in a}
    assert len([name for name in links if name.endswith(".csv")]) == len(page.all("figure"))
    assert set(links) >= {"comparison-1-gallery.png", "comparison-1-gallery.npy"}
    assert base64.b64decode(links["comparison-1-gallery.png"].split(",")[1]).startswith(b"\x89PNG")
    text = base64.b64decode(links["comparison-1-mse-curves.csv"].split(",")[1]).decode()
    back = pd.read_csv(io.StringIO(text))
    expected = frames.curves(results.comparison(), "mse")
    np.testing.assert_allclose(back["value"], expected["value"], rtol=1e-5)


def test_undefined_is_a_word_with_a_reason(page):
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    assert "PSNR is a similarity, not a distance: shown, never scored" in page.text
    assert "undefined: a barrier needs two models" in page.text


def test_text_of_a_result_is_escaped(written, results):
    ds = results.recipe().assign_attrs(title="<script>alert(1)</script>", reasons='["The path has a barrier <0.5>."]')
    path = written.with_name("escaped.html")
    report([ds], path, title="a </title> b")
    other = Page(path.read_text(encoding="utf-8"))
    assert "<script>alert(1)</script>" in other.text
    assert "has a barrier <0.5>." in other.text
    assert len(other.all("script")) == 1
    assert "a </title> b" in other.text


def test_json_is_strict_and_complete(written, results):
    def refuse(constant):
        raise AssertionError(constant)

    numbers = json.loads(written.with_suffix(".json").read_text(encoding="utf-8"), parse_constant=refuse)
    ds = results.comparison()
    assert numbers["headline"]["score"] == pytest.approx(float(ds["family_score"].isel(t=-1).sel(metric="mse")))
    assert numbers["headline"]["interval"] == ds.attrs["interval"]
    assert [entry["kind"] for entry in numbers["results"]] == [
        "comparison",
        "difficulty",
        "landscape",
        "landscape",
        "training",
        "recipe",
    ]
    psnr = numbers["results"][0]["metrics"]["psnr"]
    assert psnr["score"] is None
    assert "never scored" in psnr["reason"]
    assert numbers["results"][0]["provenance"]["noise_seed"] == 2**40
    assert numbers["results"][3]["numbers"]["barrier"] is None
    assert numbers["results"][5]["settings"] == json.loads(results.recipe().attrs["settings"])


def test_markdown_has_the_same_headline(written):
    text = written.with_suffix(".md").read_text(encoding="utf-8")
    numbers = json.loads(written.with_suffix(".json").read_text(encoding="utf-8"))
    assert numbers["headline"]["sentence"] in text
    assert "| other noise (null) |" in text
    assert "nan" not in text.lower().split()


def test_two_models_are_this_pair_and_missing_parts_are_left_out(results, tmp_path):
    ds = results.comparison(2, **FEW, nearest=False, references=False).drop_vars(
        ["images", "extreme_images", "ceiling"]
    )
    text = Page(report([ds], tmp_path / "two.html").read_text(encoding="utf-8"))
    assert "this pair, not this family" in text.text
    assert "Two models make one pair" in text.text
    assert "memorisation was not checked" in text.text
    assert text.all("canvas") == []
    assert "Gallery" not in text.text
    assert "Gaussian denoiser" not in text.text


def test_a_result_without_provenance_is_reported_and_says_so(results, tmp_path):
    ds = results.comparison(3, **FEW).sel(metric=["mse"])
    del ds.attrs["provenance"], ds.attrs["interval"]
    text = Page(report([ds], tmp_path / "bare.html").read_text(encoding="utf-8")).text
    assert "does not record how it was made" in text
    assert "not recorded" in text


def test_a_collapsed_comparison_is_undefined_and_says_why(results, tmp_path):
    ds = results.comparison(3, **FEW).sel(metric=["mse"])
    ds["null"] = 0 * ds["null"]
    for name in (
        "score",
        "score_low",
        "score_high",
        "family_score",
        "family_score_low",
        "family_score_high",
        "reference_score",
    ):
        ds[name] = np.nan * ds[name]
    path = report([ds], tmp_path / "collapsed.html")
    text = Page(path.read_text(encoding="utf-8")).text
    assert "Undefined: collapsed: images from different noise do not differ" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert "undefined: collapsed" in path.with_suffix(".md").read_text(encoding="utf-8")


def test_several_comparisons_share_a_page(results, tmp_path):
    given = [results.comparison(count, **FEW).sel(metric=["mse"]) for count in (2, 3)]
    page = Page(report(given, tmp_path / "report.html").read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert len(page.all("section", class_="comparison")) == 2
    # One metric needs no switch.
    assert page.all("input", type="radio") == []


def test_the_scores_of_several_comparisons_stand_side_by_side(results, tmp_path):
    given = [results.comparison(count, **FEW).sel(metric=["mse"]) for count in (2, 3)]
    path = report(given, tmp_path / "report.html")
    top = path.read_text(encoding="utf-8").split('id="summary"')[1].split("<section")[0]
    markdown = path.with_suffix(".md").read_text(encoding="utf-8").split("## Comparison")[0]
    for i, ds in enumerate(given, start=1):
        score, low, high = (f"{x:.3f}".replace("-", "−") for x in interval_of(ds.isel(t=-1, metric=0), "family_score"))
        assert f'<a class="to" href="#comparison-{i}">{", ".join(ds["model"].values)}</a>' in top
        assert f"{score} [{low}, {high}] (mse)" in top
        assert f"{score} [{low}, {high}] (mse)" in markdown.replace("\\", "")
    alone = report(given[:1], tmp_path / "one.html").read_text(encoding="utf-8")
    assert 'id="summary"' not in alone


def test_what_is_not_there_is_not_named(results, tmp_path):
    full = results.comparison(3, **FEW).sel(metric=["mse"])
    bare = results.comparison(2, samples=6, shown=2, times=3, references=False).sel(metric=["mse"])
    bare = bare.drop_vars([name for name in bare.variables if str(name).startswith("ceiling")])
    said = {}
    for name, ds in (("full", full), ("bare", bare)):
        text = Page(report([ds], tmp_path / f"{name}.html").read_text(encoding="utf-8")).text
        said[name] = (
            re.search(r"Beside its [^.]*? at t = 0", text)[0],
            re.search(r"(\S+ ?\S+): (all models|each pair).*? Lines", text)[0],
        )
    assert said["full"][0] == "Beside its null, its ceiling and its references at t = 0"
    assert said["bare"][0] == "Beside its null at t = 0"
    assert "squares" in said["full"][1]
    assert not re.search("squares|triangle|: all models", said["bare"][1])


def test_results_that_were_saved_and_loaded_give_the_same_page(results, tmp_path):
    given = [ds.sel(metric=["mse"]) if "metric" in ds.dims else ds for ds in results.everything(2, **FEW)]
    loaded = []
    for i, ds in enumerate(given):
        save_result(ds, tmp_path / f"{i}.nc")
        loaded.append(load_result(tmp_path / f"{i}.nc"))
    first, second = report(given, tmp_path / "a.html"), report(loaded, tmp_path / "b.html")
    for suffix in (".html", ".json", ".md"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()
    assert all(one.identical(other) for one, other in zip(given, loaded, strict=True))  # a page changes no result


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "nothing to report"),
        (["likeness.nc"], "not of str"),
        ([xr.Dataset(attrs={"kind": "comparision"})], "Did you mean 'comparison'"),
        ([xr.Dataset()], "unknown kind of result"),
        (xr.Dataset(attrs={"kind": "recipe"}), r"report\(\[result\], path\)"),
        ([xr.Dataset(attrs={"kind": "training"})], "lacks loss"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(given, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        report(given, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_bad_paths_are_one_sentence(results, tmp_path):
    with pytest.raises(UserError, match=r"end its path in \.html"):
        report([results.recipe()], tmp_path / "report.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        report([results.recipe()], tmp_path / "file" / "report.html")


def test_eight_colour_models_stay_small(results, tmp_path):
    # Larger images and more times and samples than a comparison has by default, without computing them anew.
    ds = results.comparison(8, channels=3, samples=12, shown=12, times=8)
    ds = results.resized(ds, row=32, column=32, t=24, sample=264).assign_coords(t=np.linspace(1, 0, 24))
    path = report([ds], tmp_path / "eight.html")
    # What single models add, their landscapes and spectra, comes on top: 0.1 MB each.
    assert path.stat().st_size < 12.5e6
