"""What the numbers beside a score say about it, in sentences: a reference that scores higher, the sample that decides the mean."""

from __future__ import annotations

import math

import xarray as xr

from consistency_lab.intervals import interval_of
from consistency_lab.kinds.numbers import score_text
from consistency_lab.markup import percent
from consistency_lab.plots import reading
from consistency_lab.similarity.named import sample_name

_KNOWS = {
    "gaussian": (
        "the Gaussian denoiser, which knows no more of the training images than their mean and covariance",
        "what mean and covariance bring about without any training",
    ),
    "optimal": (
        "the optimal denoiser, whose samples are training images",
        "what the training images themselves bring about: look at the nearest ones for copies",
    ),
}


def nearer_reference(ds: xr.Dataset, metric: str) -> str:
    """What it means where a closed-form denoiser scores higher with the models than they score with each other; empty otherwise.

    Of two such denoisers the one with the higher score is told. Scores are those at t = 0.
    """
    if "reference_mean_score" not in ds:
        return ""
    last = ds.isel(t=-1).sel(metric=metric)
    family = interval_of(last, "family_score")
    scores = {
        name: interval_of(last.sel(reference=name), "reference_mean_score")
        for name in reading.names(ds, "reference")
        if name in _KNOWS
    }
    higher = {name: score for name, score in scores.items() if score.estimate > family.estimate}
    if not higher:
        return ""
    name = max(higher, key=lambda each: float(higher[each].estimate))
    who, why = _KNOWS[name]
    said = (
        f"{who[0].upper()}{who[1:]}, scores higher with the models ({score_text(*higher[name])}) than they score with each other "
        f"({score_text(*family)}): an agreement of this size is {why}."
    )
    if higher[name].low <= family.high and family.low <= higher[name].high:
        said += " The intervals overlap, so which of the two is higher is not certain."
    return said + _beyond(last, name, metric)


def _beyond(last: xr.Dataset, name: str, metric: str) -> str:
    """What is shared when that denoiser's images are taken off, which is measured by the mean squared error alone."""
    if "residual_score" not in last or metric != "mse":
        return ""
    each = last["residual_score"].sel(reference=name).values
    if math.isnan(float(each.mean())):
        return ""
    nan = math.nan
    ends = f"{score_text(float(each.min()), nan, nan)} to {score_text(float(each.max()), nan, nan)}"
    by_pair = f" (mean over pairs; {ends})" if len(each) > 1 else ""
    shown = score_text(float(each.mean()), nan, nan)
    return (
        f" Once that denoiser's images are subtracted from theirs, the models score {shown} with each other{by_pair}."
    )


def worst_sample(ds: xr.Dataset, metric: str) -> str:
    """How much of the distance at t = 0 one sample holds, beside its fair share; empty where that is not known."""
    if "worst_share" not in ds:
        return ""
    last = ds.isel(t=-1).sel(metric=metric)
    share, sample = float(last["worst_share"]), int(last["worst_sample"])
    if math.isnan(share) or sample < 0:
        return ""
    fair = percent(1 / ds.sizes["sample"])
    return f"The worst sample, {sample_name(ds, sample)}, holds {percent(share)} of the distance; if all held the same it would be {fair}."
