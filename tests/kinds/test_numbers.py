import json

import numpy as np
import pytest

from consistency_lab.errors import UserError
from consistency_lab.kinds.numbers import headline, number, plain, score_text, with_interval
from consistency_lab.plots.reading import headline_metric

NAN = float("nan")


def test_numbers_are_written_with_their_interval():
    assert number(0.0123456) == "0.0123"
    assert number(-2.5) == "−2.5"
    assert number(9432.1) == "9430"
    assert number(-163_985) == "−164000"
    assert number(1.234e7) == "1.23e+07"
    assert number(NAN) == "undefined"
    assert number(float("inf")) == "∞"
    assert with_interval(0.5, 0.4, 0.6) == "0.5 [0.4, 0.6]"
    assert with_interval(0.5, NAN, NAN) == "0.5 (no interval)"
    assert with_interval(NAN, NAN, NAN) == "undefined"
    assert score_text(-0.0001, NAN, NAN) == "0.000"
    assert score_text(0.9, -0.1, 1.0) == "0.900 [−0.100, 1.000]"


def test_plain_is_strict_json():
    text = json.dumps(
        plain({"a": np.float32(0.5), "b": (NAN, np.int64(3)), "c": np.array([np.inf, 1.0])}), allow_nan=False
    )
    assert json.loads(text) == {"a": 0.5, "b": [None, 3], "c": [None, 1.0]}


def test_headline_reads_the_last_time_of_the_first_metric(results):
    ds = results.comparison(4)
    first = headline(ds)
    last = ds.isel(t=-1).sel(metric="mse")
    assert first.score == float(last["family_score"])
    assert first.null[0] == pytest.approx(float(last["null"].mean()), rel=1e-6)
    assert first.null[1] < first.null[0] < first.null[2]
    assert (first.models, first.pairs, first.samples) == (4, 6, 48)
    assert first.reason is None
    assert f"{first.score:.3f}" in first.sentence
    assert "jackknife" in first.sentence


def test_an_undefined_headline_says_why(results):
    first = headline(results.comparison(3, samples=12), "psnr")
    assert first.as_dict()["score"] is None
    assert "undefined: PSNR is a similarity" in first.sentence


def test_the_headline_falls_back_to_a_metric_that_is_defined(results):
    ds = results.comparison(3, samples=12)
    assert headline_metric(ds) == "mse"
    assert headline_metric(ds.sel(metric=["psnr", "cosine"])) == "cosine"
    assert headline_metric(ds.sel(metric=["psnr"])) == "psnr"


def test_an_unknown_metric_is_one_sentence(results):
    with pytest.raises(UserError, match="unknown metric"):
        headline(results.comparison(3, samples=12), "lpips")
