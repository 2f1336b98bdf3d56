"""What the literature claims, and the rule by which rows of a set confirm or contradict it: docs/findings.md shows every verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd
from _common import Source, by_metric, hull, relation, sweeps

from consistency_lab.intervals import interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.race.crossing import speedup
from consistency_lab.paper.race.table import AGAINST, crossings, fastest, race_table

PAPER = "[Xu et al. 2024](https://arxiv.org/abs/2404.07946)"
LEVEL = 0.05  # of a permutation test
FEW = 0.05  # of samples being copies: no memorising any more
CONFIRMED, CONTRADICTED, DEPENDS, UNDECIDED = "confirmed", "contradicted", "depends", "undecided"

# A part of a claim: True where it holds, False where its opposite does, None where the intervals do not tell.
Part = bool | None


@dataclass(frozen=True)
class Claim:
    """One claim of the literature.

    Attributes:
        said: what is claimed, as a sentence. source: who says so. rule: what confirms and what contradicts it, in words.
        control: what the numbers are held against. judge: its parts on the rows of a set; raises `MissingRows` where there are none.
        script: of `analyses/`, whose figure and sentence show it. study: the arguments of the command that makes the rows.
    """

    said: str
    source: str
    rule: str
    control: str
    judge: Callable[[Source], Iterable[Part]]
    script: str
    study: str

    def verdict(self, source: Source) -> str:
        """`CONFIRMED` or `CONTRADICTED` where every part says so, `DEPENDS` where parts say both, else `UNDECIDED`.

        Raises:
            MissingRows: the set has no rows that could tell.
        """
        parts = list(self.judge(source))
        if not parts:
            raise frames.MissingRows("there is nothing to be judged")
        if all(part is not None and part for part in parts):
            return CONFIRMED
        if all(part is False for part in parts):
            return CONTRADICTED
        return DEPENDS if True in parts and False in parts else UNDECIDED


def beyond(interval: Iterable[float], value: float) -> Part:
    """Whether an interval lies above a value (True), below it (False) or holds it (None)."""
    _, low, high = interval
    return True if low > value else False if high < value else None


def above(first: pd.Series, second: pd.Series, column: str) -> Part:
    """Whether the first row's interval lies above the second's (True), below it (False) or overlaps it (None)."""
    return {"lies above": True, "lies below": False}.get(relation(first, second, column))


def _alike(source: Source) -> Iterable[Part]:
    for table in by_metric(source.rows("likeness")).values():
        diffusion = table[table["group"].isin(frames.GROUPS[:2])]
        others = table[table["group"].eq(frames.GROUPS[2]) & ~table["fit"].eq(False)]
        low, high = diffusion["score_low"].min(), others["score_high"].max()
        swapped = diffusion["score_high"].min() < others["score_low"].max()
        yield True if low > high else False if swapped else None


def _any_architecture(source: Source) -> Iterable[Part]:
    table = next(iter(by_metric(source.rows("likeness")).values()))
    for p in table[table["group"].eq(frames.GROUPS[1])]["p_any"].dropna():
        yield False if p <= LEVEL else None


def _definitions(source: Source) -> pd.DataFrame:
    rows = frames.probes(source.rows("why"), "difficulty")
    return pd.concat([pd.DataFrame(each) for each in rows["definitions"]], ignore_index=True)


def _share_below(*definitions: str) -> Callable[[Source], Iterable[Part]]:
    def judge(source: Source) -> Iterable[Part]:
        found = _definitions(source)
        for row in found[found["definition"].isin(definitions)].to_dict("records"):
            yield beyond(interval_of(row, "share_below"), row["uniform_below"])

    return judge


SMOOTHNESS = (("line", "roughness"), ("line", "relative_curvature"), ("curvature", "hessian_relative_trace"))


def _smoother(source: Source) -> Iterable[Part]:
    rows = source.rows("why")
    for probe, number in SMOOTHNESS:
        table = frames.probes(rows, probe)
        table["kind"] = [source.kind(family) for family in table["family"]]
        ours, theirs = hull(table, number, "diffusion"), hull(table, number, "GAN")
        if ours and theirs:
            yield True if ours[1] < theirs[0] else False if ours[0] > theirs[1] else None


def _one_basin(source: Source) -> Iterable[Part]:
    """As a share of the loss at the ends: none at all, or more than all of it."""
    for row in frames.probes(source.rows("why"), "between").to_dict("records"):
        if source.kind(row["family"]) == "diffusion":
            _, low, high = interval_of(row, "relative_barrier")
            yield True if high < 0.1 else False if low > 1 else None


def _decided_early(source: Source) -> Iterable[Part]:
    for row in frames.probes(source.rows("why"), "structure").to_dict("records"):
        yield beyond(interval_of(row, "half_known_t"), 0.5)


def _ways(source: Source) -> Iterable[pd.DataFrame]:
    return (table.set_index("name") for table in by_metric(source.rows("parametrisation")).values())


def _mean_prediction_fails(source: Source) -> Iterable[Part]:
    for table in _ways(source):
        lower = above(table.loc["x0"], table.loc["eps"], "score")
        yield True if lower is False else False


def _flow_is_more_stable(source: Source) -> Iterable[Part]:
    for table in _ways(source):
        for way in ("eps", "x0", "v", "edm"):
            yield above(table.loc["flow"], table.loc[way], "score")


def _near_linear(source: Source) -> Iterable[Part]:
    for row in frames.families(source.rows("origins")).to_dict("records"):
        yield beyond(interval_of(row, "to_gaussian"), 0.5)


def _linear_first(source: Source) -> Iterable[Part]:
    """Nearest to the Gaussian denoiser before the end, and then away from it."""
    own = frames.families(source.rows("emergence"), "emergence")
    for _, line in own.sort_values("step").groupby("family", sort=False):
        yield above(line.loc[line["to_gaussian"].idxmax()], line.iloc[-1], "to_gaussian") or None


def _two_regimes(source: Source) -> Iterable[Part]:
    for table in sweeps(source.rows("sizes")).values():
        middle = table.loc[table.iloc[1:-1]["within"].idxmin()]
        dip = [above(table.iloc[end], middle, "within") for end in (0, -1)]
        yield True if dip == [True, True] else False if False in dip else None


def _disjoint_sets_agree(source: Source) -> Iterable[Part]:
    for table in sweeps(source.rows("sizes")).values():
        small, large = table.iloc[0], table.iloc[-1]
        grows = above(large, small, "between")
        memorised, learnt = beyond(interval_of(small, "copies"), 0.5), beyond(interval_of(large, "copies"), FEW)
        yield True if (grows, memorised, learnt) == (True, True, False) else False if grows is False else None


def _as_linear(source: Source) -> Iterable[Part]:
    for table in sweeps(source.rows("sizes")).values():
        if "predicted" not in table:
            raise frames.MissingRows("the rows hold no prediction")
        for row in table.to_dict("records"):
            (_, low, high), (_, least, most) = interval_of(row, "between"), interval_of(row, "predicted")
            yield low <= most and least <= high


def ratio(source: Source, first: str, second: str) -> tuple[float, float, float]:
    """How many times sooner than the second contestant the first reached the last target."""
    race = source.race("standard")
    at = float(race["target"].values[-1])
    found = speedup(crossings(race, second, at), crossings(race, first, at))
    return found.estimate, found.low, found.high


def entry(source: Source, name: str) -> str:
    """Of the lengths at which an entry ran, the fastest contestant."""
    race = source.race("standard")
    own = [str(each) for each, of in zip(race["contestant"].values, race["entry"].values, strict=True) if of == name]
    return fastest(race, own, float(race["target"].values[-1]))


def _row(source: Source, name: str, against: str) -> pd.Series:
    table = race_table(source.race("standard"))
    return table[(table["entry"] == name) & table["fastest"] & (table["against"] == AGAINST[against])].iloc[0]


def _twice_as_fast(source: Source) -> Iterable[Part]:
    row = _row(source, "paper: CLTS + MDLRC", "control")
    yield None if row["bound"] else beyond(interval_of(row, "speedup"), 2.0)


def _curriculum_helps(source: Source) -> Iterable[Part]:
    moving = entry(source, "CLTS + annealing")
    yield beyond(ratio(source, moving, f"{moving}, at its end"), 1.0)


def _momentum_helps(source: Source) -> Iterable[Part]:
    yield beyond(ratio(source, "uniform + MDLRC", "uniform + decay to .1"), 1.0)


def _center(source: Source) -> Iterable[Part]:
    table = race_table(source.race("centers")).drop_duplicates("contestant").set_index("contestant")
    claimed = table.loc["CLTS, center 0.3"]
    for name in table.index[table["role"].eq("curriculum")]:
        if name != claimed.name:
            other = table.loc[name]
            # A bound says that it never arrived in some seed, which the claimed one did.
            yield True if other["bound"] == "at most" and not claimed["bound"] else above(claimed, other, "speedup")


CLAIMS = {
    "alike": Claim(
        "The same noise gives nearly the same image in diffusion models, whatever the seed and the architecture; in GANs and VAEs it does not.",
        f"{PAPER}; [Zhang et al. 2024](https://arxiv.org/abs/2310.05264)",
        "confirmed where the interval of every family and of every two families of diffusion models lies above those of all GANs and VAEs "
        "whose images are good enough to be evidence, by squared error and by cosine; contradicted where one lies below them",
        "other noise is 0; GANs and VAEs of like quality",
        _alike,
        "consistency_table",
        "study likeness",
    ),
    "architecture": Claim(
        "The architecture does not matter.",
        PAPER,
        f"contradicted where a permutation of the labels tells every two architectures apart (p ≤ {LEVEL}), undecided otherwise: that no "
        "test tells them apart would confirm nothing",
        "exchange of the labels: what seeds alone do",
        _any_architecture,
        "consistency_table",
        "study likeness",
    ),
    "easy": Claim(
        "Noisy timesteps are easy to learn.",
        PAPER,
        "confirmed where more than half of the error, summed over t, lies below t = 0.5 in every family, whether it is counted in the noise, "
        "in the image or in v; contradicted where less does",
        "an error that is the same at every t has half of it there",
        _share_below("eps error", "x0 error", "v error"),
        "difficulty_definitions",
        "study why",
    ),
    "slow": Claim(
        "The less noisy timesteps are slower to learn.",
        "[Denoising task difficulty 2024](https://arxiv.org/abs/2403.10348)",
        "confirmed where more than half of the sum of the half-times of the loss lies below t = 0.5 in every family; contradicted where less does",
        "half-times that are the same at every t have half of their sum there",
        _share_below("half-time"),
        "difficulty_definitions",
        "study why",
    ),
    "smooth": Claim(
        "The loss landscape of a diffusion model is smoother than a GAN's.",
        PAPER,
        "confirmed where the intervals of all diffusion families lie below those of the GAN's two networks by roughness, by relative "
        "curvature along a line and by the Hessian's relative trace; contradicted where they lie above them",
        "the GAN's networks; the VAE",
        _smoother,
        "smoothness",
        "study why",
    ),
    "basin": Claim(
        "Models that agree have found similar minima.",
        PAPER,
        "confirmed where the loss on the straight line between two models of a family rises by less than a tenth of its value at the ends; "
        "contradicted where it rises by more than that value",
        "a trained curve between the same ends; permuted units",
        _one_basin,
        "connectivity",
        "study why",
    ),
    "structure": Claim(
        "The structure of an image is decided at the noisy timesteps.",
        PAPER,
        "confirmed where half of the variance of the final image is explained by the estimate at some t above 0.5 in every family; "
        "contradicted where it never is",
        "the mean image explains none",
        _decided_early,
        "structure",
        "study why",
    ),
    "mean": Claim(
        "Models that predict the mean instead of the noise do not show the consistency.",
        PAPER,
        "confirmed where models that predict x0 agree less with each other than models that predict eps, by squared error and by cosine; "
        "contradicted where they do not",
        "the same network, data, steps and sampler; with an outer skip mean prediction is noise prediction",
        _mean_prediction_fails,
        "parametrisation",
        "study parametrisation",
    ),
    "flow": Claim(
        "Flow matching is stable over seeds, and score-based diffusion is not.",
        "[Briq et al. 2026](https://arxiv.org/abs/2605.08398)",
        "confirmed where models of flow matching agree more with each other than those of eps, x0, v and EDM, by squared error and by cosine; "
        "contradicted where they agree less",
        "the same network, data, steps and sampler",
        _flow_is_more_stable,
        "parametrisation",
        "study parametrisation",
    ),
    "linear": Claim(
        "Networks that generalise are near the best linear denoiser.",
        "[Li, Dai & Qu 2024](https://arxiv.org/abs/2410.24060); [Wang & Vastola 2024](https://arxiv.org/abs/2412.09726)",
        "confirmed where models of every family score above 0.5 with the Gaussian denoiser of their training set; contradicted below",
        "other noise is 0; the local and the memorising denoiser",
        _near_linear,
        "origins",
        "study origins",
    ),
    "first": Claim(
        "The linear denoiser is learnt first, and left later.",
        "[Li, Dai & Qu 2024](https://arxiv.org/abs/2410.24060)",
        "confirmed where every family is nearer to the Gaussian denoiser at some step than at the end, with intervals apart",
        "the same models at the end of their training",
        _linear_first,
        "emergence",
        "study emergence",
    ),
    "disjoint": Claim(
        "Models of two sets that share no image agree once the sets are large, and are copies of their sets when they are small.",
        "[Kadkhodaie et al. 2024](https://arxiv.org/abs/2310.02557)",
        f"confirmed where models of the largest sets agree more than those of the smallest, with fewer than {FEW:.0%} of copies there and "
        "more than half here; contradicted where they agree less",
        "models of one set; copies counted by the nearest image of the own and of the other set",
        _disjoint_sets_agree,
        "memorisation_sweep",
        "study sizes",
    ),
    "regimes": Claim(
        "Models of one set agree where they memorise and where they generalise, and less in between.",
        "[Zhang et al. 2024](https://arxiv.org/abs/2310.05264)",
        "confirmed where models of one set agree less at some size than at the smallest and at the largest; contradicted where they agree "
        "more there than at one of these",
        "the same network and steps at every size",
        _two_regimes,
        "memorisation_sweep",
        "study sizes",
    ),
    "theory": Claim(
        "Models of disjoint sets agree as linear denoisers do in theory.",
        "[Wang, Zavatone-Veth & Pehlevan 2026](https://arxiv.org/abs/2602.02908)",
        "confirmed where the interval of the measured score meets that of the predicted one at every size and of every architecture; "
        "contradicted where it meets none",
        "simulated linear denoisers, which the prediction is tested on; models of one set",
        _as_linear,
        "theory",
        "study sizes",
    ),
    "faster": Claim(
        "CLTS with MDLRC trains 2 to 2.6 times faster.",
        PAPER,
        "confirmed where it reaches the target more than 2 times sooner than uniform Adam; contradicted where the interval ends below 2",
        "uniform times at the same and at annealed rates",
        _twice_as_fast,
        "race",
        "race",
    ),
    "curriculum": Claim(
        "A curriculum over timesteps trains faster.",
        PAPER,
        "confirmed where CLTS reaches the target sooner than the density of its end, held from the first step on; contradicted where later",
        "the static twin: the same density without a curriculum",
        _curriculum_helps,
        "race",
        "race",
    ),
    "momentum": Claim(
        "Momentum decay with learning-rate compensation trains faster.",
        PAPER,
        "confirmed where MDLRC reaches the target sooner than a linear decay of the rate to a tenth, which is what its compensation amounts to; "
        "contradicted where later",
        "the same decay of the rate at constant momentum",
        _momentum_helps,
        "race",
        "race",
    ),
    "center": Claim(
        "The best center of the curriculum is t = 0.3.",
        PAPER,
        "confirmed where it reaches the target sooner than every other center, with intervals apart; contradicted where later than every other",
        "uniform times",
        _center,
        "center_ablation",
        "race --contestants centers",
    ),
}


