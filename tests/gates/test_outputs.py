"""What a gate leaves for continuous integration, and how reports and notebooks show it."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from painter import Painter
from PIL import Image

import consistency_lab as cl
from consistency_lab.kinds.gate import Gate
from consistency_lab.kinds.registry import figures_of, kind_of
from consistency_lab.plots.differences import brightened
from consistency_lab.plots.gate import gate_frame, worst_figure, worst_frame
from consistency_lab.reports.gate import json_text, write_junit, write_markdown
from consistency_lab.store.results import load_result, save_result


@pytest.fixture(scope="module")
def results():
    a, b = Painter("a"), Painter("b | <2>", noise=0.3)
    return {
        "pass": cl.gate(a, b, at_least=0.8),
        "fail": cl.gate(a, b, metrics=["mse", "cosine"], at_least=[0.5, 0.999]),
        "cannot tell": cl.gate(a, b, a, count=64, margin=0.05),
    }


DECISIONS = ("pass", "fail", "cannot tell")


@pytest.mark.parametrize("decision", DECISIONS)
def test_junit_has_a_case_for_every_metric(results, decision, tmp_path):
    result = results[decision]
    write_junit(result, tmp_path / "deep" / "gate.xml")
    (suite,) = ET.parse(tmp_path / "deep" / "gate.xml").getroot()
    cases = suite.findall("testcase")
    assert len(cases) == int(suite.get("tests")) == result.sizes["metric"]
    for case, metric in zip(cases, result["metric"].values.tolist(), strict=True):
        assert case.get("name").startswith(f"{metric}: ")
        assert case.get("classname") == "gate.b | <2> against a"
        told = str(result["decision"].sel(metric=metric).item())
        found = {"pass": case.find("system-out"), "fail": case.find("failure"), "cannot tell": case.find("error")}
        assert [name for name, part in found.items() if part is not None] == [told]
        text = found[told].text
        assert f"{float(result['score'].sel(metric=metric)[-1]):.3f}" in text
        if told != "pass":
            assert found[told].get("type") == told
            assert found[told].get("message") in text
    for key, word in (("failures", "fail"), ("errors", "cannot tell")):
        assert int(suite.get(key)) == int((result["decision"] == word).sum())


@pytest.mark.parametrize("decision", DECISIONS)
def test_markdown_refers_to_a_picture_beside_it(results, decision, tmp_path):
    picture = write_markdown(results[decision], tmp_path / "comment.md")
    text = (tmp_path / "comment.md").read_text()
    assert picture == tmp_path / "comment-worst.png"
    assert Image.open(picture).size[0] > 100
    assert "(<comment-worst.png>)" in text
    assert "data:" not in text
    assert text.startswith(f"### Gate: {decision}: b \\| <2> against a")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + results[decision].sizes["metric"]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1


@pytest.mark.parametrize("decision", DECISIONS)
def test_json_holds_the_numbers(results, decision):
    found = json.loads(json_text(results[decision]), parse_constant=pytest.fail)
    assert found["decision"] == decision
    assert found["status"] == {"pass": 0, "fail": 1, "cannot tell": 3}[decision]
    mse = found["metrics"]["mse"]
    assert mse["score"]["value"] == float(results[decision]["score"][-1, 0])
    assert mse["null"] == pytest.approx(float(results[decision]["null"][:, 0].mean()))
    assert ("margin" in mse) == (decision == "cannot tell")
    assert found["provenance"]["samples"] == results[decision].sizes["sample"]
    assert len(found["worst"]) == 4 * results[decision].sizes["metric"]
    if decision == "cannot tell":
        assert mse["more"] > 0
        assert mse["ceiling"]["value"] == 1


@pytest.mark.parametrize("decision", DECISIONS)
def test_it_is_saved_shown_explored_and_reported(results, decision, tmp_path):
    save_result(results[decision], tmp_path / "gate.nc")
    result = load_result(tmp_path / "gate.nc")
    assert result.identical(results[decision])
    assert type(kind_of(result)) is Gate
    assert [name for name, _, _ in figures_of(result)] == ["looks", "worst"]
    page = cl.report([result], tmp_path / "report.html").read_text()
    assert f"Gate: {decision}" in page
    assert "b | &lt;2&gt; against a" in page
    assert decision in cl.show(result)._repr_html_()
    assert kind_of(result).sentence(result).startswith(f"{decision}: b | <2> against a")
    figure, sentence = kind_of(result).view(result).draw(figure="looks")
    assert len(figure.axes) == result.sizes["metric"]
    assert sentence


def test_the_sentence_says_what_was_asked_and_found(results):
    said = {decision: Gate().sentence(result) for decision, result in results.items()}
    assert "score ≥ 0.8 holds (mse): score 0.9" in said["pass"]
    assert "score ≥ 0.5 " in said["fail"]
    assert "score ≥ 0.999 does not hold (cosine)" in said["fail"]
    assert "ceiling − score ≤ 0.05 cannot be told (mse)" in said["cannot tell"]
    assert "more samples would tell" in said["cannot tell"]


def test_one_metric_of_several_is_a_whole_result(results):
    part = results["fail"].sel(metric="cosine")
    assert set(gate_frame(part)["metric"]) == {"cosine"}
    assert "cosine" in cl.show(part)._repr_html_()
    with pytest.raises(cl.UserError, match="do not belong together"):
        gate_frame(results["fail"].isel(look=[0]))


def test_the_frame_is_the_trace_and_the_worst_are_in_nulls(results):
    result = results["pass"]
    table = gate_frame(result)
    assert table["samples"].tolist() == result["samples"].values.tolist()
    assert table["low"].values == pytest.approx(result["score_low"].values[:, 0], nan_ok=True)
    worst = worst_frame(result)
    own = np.sort(result["distance"].values[:, 0])[::-1][:4] / result["null"].values[:, 0].mean()
    assert worst["distance_in_nulls"].values == pytest.approx(own)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_worst_pairs_are_drawn_with_where_they_differ(channels):
    a, b = (Painter(name, noise=noise, shape=(channels, 4, 4)) for name, noise in (("a", 0.0), ("b", 0.5)))
    result = cl.gate(a, b, at_least=0.5, count=32)
    axes = worst_figure(result).axes
    first = int(worst_frame(result)["sample"][0])
    pictures = result["worst_images"].sel(worst=first).values
    drawn = [np.asarray(axes[place].images[0].get_array()) for place in (0, 4, 8) if axes[place].images]
    if channels == 4:
        assert len(drawn) == 1  # no picture, but where they differ
    else:
        shown = pictures.transpose(0, 2, 3, 1)
        assert (drawn[0] == (shown[0] if channels == 3 else shown[0, ..., 0])).all()
        assert (drawn[1] == (shown[1] if channels == 3 else shown[1, ..., 0])).all()
    pairs = result["worst_images"].values.astype(float)
    apart = [
        np.abs(one - other).max(0)
        for one, other in pairs[[list(result["worst"]).index(i) for i in worst_frame(result)["sample"]]]
    ]
    factor = brightened(apart)
    assert axes[8].get_ylabel() == (f"difference ×\u202f{factor}" if factor > 1 else "difference")
    assert (drawn[-1] == factor * np.abs(pictures[0] - pictures[1]).max(0)).all()


def test_differences_are_brightened_by_one_factor_until_white():
    dim, bright = np.full((1, 4, 4), 7.0), np.full((1, 4, 4), 200.0)
    assert brightened([dim]) == 32  # 7 * 32 = 224, and 448 would be white
    assert brightened([bright]) == brightened([0 * dim]) == brightened([]) == 1
    assert brightened([bright, dim, dim, 0 * dim]) == 32  # of the one that typical pictures need


def test_a_distance_in_nulls_says_so(results):
    titles = [ax.get_title(loc="left") or ax.get_title() for ax in worst_figure(results["pass"]).axes]
    first = worst_frame(results["pass"]).iloc[0]
    assert any(f"{first['metric']} {first['distance_in_nulls']:.3g} × null" in title for title in titles)
