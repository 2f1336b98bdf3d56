"""Sentences beside a score, against results whose scores are known."""

import numpy as np
import pytest

from consistency_lab.kinds.meaning import nearer_reference, worst_sample


def scored(results, family, gaussian, optimal=(0.1, 0.05, 0.15)):
    """A comparison with these scores in mse at t = 0, each with its interval."""
    ds = results.comparison(3, samples=6, shown=2, times=3)
    for name, part in zip(("", "_low", "_high"), zip(family, gaussian, optimal, strict=True), strict=True):
        ds[f"family_score{name}"].loc[{"metric": "mse", "t": 0.0}] = part[0]
        for reference, value in zip(("gaussian", "optimal"), part[1:], strict=True):
            ds[f"reference_mean_score{name}"].loc[{"metric": "mse", "t": 0.0, "reference": reference}] = value
    return ds


def test_a_reference_that_scores_higher_is_explained_with_both_intervals(results):
    said = nearer_reference(scored(results, (0.8, 0.43, 0.93), (0.81, 0.76, 0.85)), "mse")
    assert said.startswith(
        "The Gaussian denoiser, which knows no more of the training images than their mean and covariance, scores higher"
    )
    assert "(0.810 [0.760, 0.850]) than they score with each other (0.800 [0.430, 0.930])" in said
    assert "intervals overlap" in said


def test_what_is_left_without_the_reference_is_the_residual_score(results):
    ds = scored(results, (0.5, 0.4, 0.6), (0.9, 0.85, 0.95))
    each = ds["residual_score"].sel(reference="gaussian").isel(t=-1).values
    said = nearer_reference(ds, "mse")
    assert "overlap" not in said
    mean, least, most = (f"{x:.3f}".replace("-", "−") for x in (each.mean(), each.min(), each.max()))
    assert f"the models score {mean} with each other (mean over pairs; {least} to {most})" in said
    assert "subtracted" not in nearer_reference(ds.assign_coords(metric=["other", "cosine", "psnr"]), "other")


def test_the_higher_of_two_references_is_told(results):
    said = nearer_reference(scored(results, (0.5, 0.4, 0.6), (0.6, 0.5, 0.7), (0.9, 0.8, 0.95)), "mse")
    assert said.startswith("The optimal denoiser, whose samples are training images,")


@pytest.mark.parametrize("gaussian", [(0.79, 0.7, 0.85), (0.8, 0.7, 0.85), (np.nan, np.nan, np.nan)])
def test_nothing_is_said_of_one_that_does_not(results, gaussian):
    assert nearer_reference(scored(results, (0.8, 0.43, 0.93), gaussian), "mse") == ""


def test_nothing_is_said_without_references(results):
    assert nearer_reference(results.comparison(2, samples=6, shown=2, times=3, references=False), "mse") == ""


def test_the_share_of_the_worst_sample_has_its_fair_share_beside_it(results):
    ds = results.comparison(3, samples=48)
    ds["worst_share"].loc[{"metric": "mse", "t": 0.0}] = 0.24
    ds["worst_sample"].loc[{"metric": "mse", "t": 0.0}] = 7
    assert (
        worst_sample(ds, "mse")
        == "The worst sample, 7, holds 24 % of the distance; if all held the same it would be 2.1 %."
    )
    assert worst_sample(ds.drop_vars("worst_share"), "mse") == ""
    assert worst_sample(ds, "psnr") == ""
