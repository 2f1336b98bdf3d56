"""What the literature claims, and the rule by which rows of a set confirm or contradict it: docs/findings.md shows every verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from _common import METRICS, Source, by_metric, hull, listed, nested, relation, sweeps
from shipped import OTHERS, pairs
from theory import beside_theory

from consistency_lab.diffusion.schedule import SCHEDULES, Schedule
from consistency_lab.intervals import Interval, estimates, interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.race.table import AGAINST, fastest, race_table, sooner
from consistency_lab.plots.possible import drawn_back
from consistency_lab.presets import likeness_plan

PAPER = "[Xu et al. 2024](https://arxiv.org/abs/2404.07946)"
LINEAR = "linear"
LEVEL = 0.05  # of a permutation test
FEW = 0.05  # of samples being copies: no memorising any more
# By which signs the parts of a claim have.
VERDICTS: dict[frozenset[bool | None], str] = {
    frozenset({True}): "confirmed",
    frozenset({True, None}): "partly confirmed",
    frozenset({True, False}): "depends",
    frozenset({True, False, None}): "depends",
    frozenset({False, None}): "partly contradicted",
    frozenset({False}): "contradicted",
    frozenset({None}): "undecided",
}


class Part(NamedTuple):
    """A part of a claim: True where it holds, False where its opposite does, None where intervals do not tell; and its numbers."""

    holds: bool | None
    text: str


@dataclass(frozen=True)
class Claim:
    """One claim of the literature.

    Attributes:
        said: what is claimed, as a sentence. source: who says so. rule: what confirms and what contradicts it, in words.
        control: what the numbers are held against. judge: its parts on the rows of a set; raises `MissingRows` where there are none.
        script: of `analyses/`, whose figure shows it. command: that makes the rows, with a gap for the preset.
    """

    said: str
    source: str
    rule: str
    control: str
    judge: Callable[[Source], Iterable[Part]]
    script: str
    command: str

    def parts(self, source: Source) -> list[Part]:
        """What the rows of a set say. Raises `MissingRows` where it has none that could tell."""
        found = list(self.judge(source))
        if not found:
            raise frames.MissingRows("there is nothing to be judged")
        return found


def verdict(parts: Iterable[Part]) -> str:
    """One of `VERDICTS`."""
    return VERDICTS[frozenset(part.holds for part in parts)]


def ends(interval: Iterable[float], digits: int = 3) -> str:
    """``0.912 [0.901, 0.923]``, the same number of digits everywhere."""
    value, low, high = interval
    text = f"{value:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low + high) else "")
    return text.replace("-", "−")


def beyond(interval: Iterable[float], value: float) -> bool | None:
    """Whether an interval lies above a value (True), below it (False) or holds it (None)."""
    _, low, high = interval
    return True if low > value else False if high < value else None


def apart(first: Interval, second: Interval) -> bool | None:
    """Whether the first interval lies above the second (True), below it (False) or overlaps it (None)."""
    return True if first.low > second.high else False if first.high < second.low else None


def all_of(signs: Sequence[bool | None]) -> bool | None:
    """False where one is, True where all are, None where it is not told."""
    return False if False in signs else True if all(signs) else None


def above(first: pd.Series, second: pd.Series, column: str) -> bool | None:
    """Whether the first row's interval lies above the second's (True), below it (False) or overlaps it (None)."""
    return {"lies above": True, "lies below": False}.get(relation(first, second, column))


def _score(row: pd.Series) -> str:
    return f"{row['name'].replace(' | ', ' with ')} {ends(interval_of(row, 'score'))}"


def _alike(source: Source) -> Iterable[Part]:
    """Where no GAN or VAE of a family is fit, by the models that ship, whose GANs are (and whose VAEs are not, by the zoo's own table)."""
    for metric, table in by_metric(source.rows("likeness")).items():
        diffusion = table[table["group"].isin(frames.GROUPS[:2])]
        others = table[table["group"].eq(frames.GROUPS[2])]
        unfit = others["fit"].eq(False)
        left_out = (
            f" (not fit in `study likeness`: {listed(others.loc[unfit, 'name'].tolist())})" if unfit.any() else ""
        )
        if not unfit.all():
            yield _apart(diffusion, others[~unfit], f"by {metric}{left_out}")
            continue
        shipped = pairs(source.rows("zoo"), metric)
        gans = shipped["group"].eq(OTHERS) & shipped["name"].str.startswith("gan")
        ours = shipped["group"] != OTHERS
        yield _apart(
            shipped[ours],
            shipped[gans],
            f"of the models that ship (`study zoo`; intervals over noise), by {metric}{left_out}",
        )


def _apart(diffusion: pd.DataFrame, others: pd.DataFrame, words: str) -> Part:
    low, high = diffusion.loc[diffusion["score_low"].idxmin()], others.loc[others["score_high"].idxmax()]
    fit = sorted({name.partition("-")[0].upper() + "s" for name in others["name"]})
    text = f"{words} the lowest are {_score(low)}, the highest of fit {listed(fit)} ({len(others)}) {_score(high)}"
    return Part(above(low, high, "score"), text)


def _any_architecture(source: Source) -> Iterable[Part]:
    table = next(iter(by_metric(source.rows("likeness")).values()))
    for row in table[table["group"].eq(frames.GROUPS[1])].to_dict("records"):
        yield Part(
            False if row["p_any"] <= LEVEL else None, f"{row['name'].replace(' | ', ' and ')} p = {row['p_any']:.3f}"
        )


def _share_below(*definitions: str) -> Callable[[Source], Iterable[Part]]:
    def judge(source: Source) -> Iterable[Part]:
        for row in frames.probes(source.rows("why"), "difficulty").to_dict("records"):
            for own in nested(row["definitions"]).to_dict("records"):
                if own["definition"] in definitions:
                    share = interval_of(own, "share_below")
                    yield Part(beyond(share, own["uniform_below"]), f"{row['name']}, {own['definition']} {ends(share)}")

    return judge


SMOOTHNESS = (("line", "roughness"), ("line", "relative_curvature"), ("curvature", "hessian_relative_trace"))


def _smoother(source: Source) -> Iterable[Part]:
    rows = source.rows("why")
    fit = frames.families(source.rows("likeness")).set_index("family")["fit"]
    for probe, number in SMOOTHNESS:
        try:
            table = frames.probes(rows, probe)
        except frames.MissingRows:
            continue
        table["kind"] = [source.kind(family) for family in table["family"]]
        table = table[table["kind"].ne("GAN") | table["family"].map(fit).ne(False)]
        ours, theirs = hull(table, number, "diffusion"), hull(table, number, "GAN")
        if ours and theirs:
            lower = True if ours[1] < theirs[0] else False if ours[0] > theirs[1] else None
            text = "{}: intervals from {:.3g} to {:.3g}, those of the GAN's networks from {:.3g} to {:.3g}"
            yield Part(lower, text.format(number.replace("_", " "), *ours, *theirs).replace("-", "−"))


def _one_basin(source: Source) -> Iterable[Part]:
    """As a share of the loss at the ends: nearly none of it, or more than all of it."""
    for row in frames.probes(source.rows("why"), "between").to_dict("records"):
        if source.kind(row["family"]) == "diffusion":
            rise = interval_of(row, "relative_barrier")
            yield Part(
                True if rise[2] < 0.1 else False if rise[1] > 1 else None, f"{row['name']} {ends(rise, 1)} times"
            )


def _decided_early(source: Source) -> Iterable[Part]:
    for row in frames.probes(source.rows("why"), "structure").to_dict("records"):
        time = Interval(*(linear_time(source, row["family"], t) for t in interval_of(row, "half_known_t")))
        yield Part(beyond(time, 0.5), f"{row['name']} from t = {ends(time, 2)} on")


def schedule_of(source: Source, family: str) -> Schedule:
    """Of a family of the main table."""
    settings = likeness_plan(source.preset).families[family][0]
    return SCHEDULES.build(str(getattr(settings, "schedule", LINEAR)))


def linear_time(source: Source, family: str, t: float) -> float:
    """The time at which the paper's linear schedule has as much noise as a family's own has at t."""
    own, linear = schedule_of(source, family), SCHEDULES.build(LINEAR)
    if own.spec == linear.spec or not np.isfinite(t):
        return t
    level = own.log_snr(torch.tensor(min(max(t, own.t_min), own.t_max), dtype=torch.float64))
    least, most = (linear.log_snr(torch.tensor(each, dtype=torch.float64)) for each in (linear.t_max, linear.t_min))
    return float(linear.time_from_log_snr(level.clamp(least, most)))


def _ways(source: Source) -> Iterable[tuple[str, pd.DataFrame]]:
    for metric, table in by_metric(source.rows("parametrisation")).items():
        yield metric, table.set_index("name", drop=False)


def _mean_prediction_fails(source: Source) -> Iterable[Part]:
    for metric, table in _ways(source):
        yield _falls_short(table.loc["x0"], table.loc["eps"], metric)


def _falls_short(row: pd.Series, of: pd.Series, metric: str) -> Part:
    """Whether the first scores less than half of what the second does."""
    reached = beyond(interval_of(row, "score"), of["score"] / 2)
    return Part(None if reached is None else not reached, f"by {metric} {_score(row)}, {_score(of)}")


def _flow_is_more_stable(source: Source) -> Iterable[Part]:
    for metric, table in _ways(source):
        flow = table.loc["flow"]
        for way in ("eps", "x0", "v", "edm"):
            yield _falls_short(table.loc[way], flow, metric)


def _alike_under_noise(source: Source) -> Iterable[Part]:
    for row in frames.measured_alike(source.rows("sampling"), "sampling"):
        if row["spec"]["shared"] == "first noise and path":
            for metric in METRICS:
                score = interval_of(row["values"], f"{metric}_score")
                yield Part(beyond(score, 0.5), f"{row['spec']['family']} by {metric} {ends(score)}")


def _near_linear(source: Source) -> Iterable[Part]:
    """Nearer than other denoisers in closed form, which are near too: all know the data."""
    for row in frames.families(source.rows("origins")).to_dict("records"):
        others = {key: interval_of(row, key) for key in estimates(row) if key.startswith("to_")}
        near = others.pop("to_gaussian")
        nearer = [apart(near, each) for each in others.values()]
        texts = (f"{key.removeprefix('to_').partition('(')[0]} {ends(each)}" for key, each in others.items())
        yield Part(all_of(nearer), f"{row['family']} Gaussian {ends(near)}, {listed(texts)}")


def _linear_first(source: Source) -> Iterable[Part]:
    own = frames.families(source.rows("emergence"), "emergence")
    for family, line in own.sort_values("step").groupby("family", sort=False):
        nearest, last = line.loc[line["to_gaussian"].idxmax()], line.iloc[-1]
        texts = [f"{ends(interval_of(row, 'to_gaussian'))} at step {row['step']:.0f}" for row in (nearest, last)]
        if nearest["step"] == last["step"]:  # a longer run may leave it
            yield Part(None, f"{family} nearest at its end, {texts[1]}")
        else:
            yield Part(above(nearest, last, "to_gaussian") or None, f"{family} {texts[0]}, {texts[1]}")


def copies(row: pd.Series) -> Interval:
    """The share of samples that are copies of images of their own set."""
    return drawn_back(interval_of(row, "copies"), 0.0, 1.0)


def _both_regimes(table: pd.DataFrame) -> bool:
    """Whether the smallest sets of a sweep were memorised and the largest were not."""
    small, large = table.iloc[0], table.iloc[-1]
    return beyond(copies(small), 0.5) is True and bool(large["copies_high"] < FEW)


def _two_regimes(source: Source) -> Iterable[Part]:
    for network, table in sweeps(source.rows("sizes")).items():
        middle = table.loc[table.iloc[1:-1]["within"].idxmin()]
        rows = [table.iloc[0], middle, table.iloc[-1]]
        dip = [above(row, middle, "within") for row in (rows[0], rows[2])]
        texts = (
            f"{ends(interval_of(row, 'within'))} with {ends(copies(row))} of copies at {row['size']:.0f} images"
            for row in rows
        )
        told = True if dip == [True, True] else False if False in dip else None
        yield Part(told if _both_regimes(table) else None, f"{network} {listed(texts)}")


def _disjoint_sets_agree(source: Source) -> Iterable[Part]:
    for network, table in sweeps(source.rows("sizes")).items():
        small, large = table.iloc[0], table.iloc[-1]
        grows = above(large, small, "between")
        texts = (
            f"{ends(interval_of(row, 'between'))} with {ends(copies(row))} of copies at {row['size']:.0f} images"
            for row in (small, large)
        )
        yield Part(
            True if grows and _both_regimes(table) else False if grows is False else None, f"{network} {listed(texts)}"
        )


def _as_linear(source: Source) -> Iterable[Part]:
    for network, table in beside_theory(source).items():
        met, texts = [], []
        for row in table.to_dict("records"):
            measured, theory = interval_of(row, "between"), interval_of(row, "predicted")
            met.append(apart(measured, theory) is None)
            texts.append(f"{row['size']:.0f} images {ends(measured)}, in theory {ends(theory)}")
        holds = True if all(met) else False if sum(met) < len(met) / 2 else None
        yield Part(holds, f"{network} at {sum(met)} of {len(met)} sizes: {', '.join(texts)}")


def ratio(source: Source, first: str, second: str, contestants: str = "standard", seconds: bool = False) -> Interval:
    """How many times sooner than the second contestant the first reached the last target."""
    race = source.race(contestants)
    at = float(race["target"].values[-1])
    return Interval(*sooner(race, first, second, at, seconds=seconds)[:3])


def entry(source: Source, name: str, contestants: str = "standard") -> str:
    """Of the lengths at which an entry ran, the fastest contestant."""
    race = source.race(contestants)
    own = [str(each) for each, of in zip(race["contestant"].values, race["entry"].values, strict=True) if of == name]
    if not own:
        raise frames.MissingRows(f"nobody raced as {name!r}")
    return fastest(race, own, float(race["target"].values[-1]))


def _twice_as_fast(source: Source) -> Iterable[Part]:
    table = race_table(source.race("standard"))
    table = table[(table["entry"] == "paper: CLTS + MDLRC") & table["fastest"]].set_index("against")
    for against in ("control", "annealed"):
        row = table.loc[AGAINST[against]]
        sooner = interval_of(row, "speedup")
        yield Part(None if row["bound"] else beyond(sooner, 2.0), f"{ends(sooner, 2)} times against {AGAINST[against]}")


def twin(source: Source) -> Interval:
    """How many times sooner than the density of its end, held from the first step on, the curriculum reached the last target."""
    moving = entry(source, "CLTS + annealing")
    return ratio(source, moving, f"{moving}, at its end")


def _curriculum_helps(source: Source) -> Iterable[Part]:
    yield Part(beyond(twin(source), 1.0), f"{ends(twin(source), 2)} times")


def _momentum_helps(source: Source) -> Iterable[Part]:
    race = source.race("standard")
    decayed = entry(source, "uniform + MDLRC")
    steps = race["planned_steps"].sel(contestant=decayed)
    alike = race.sel(contestant=(race["entry"] == "uniform + decay to .1") & (race["planned_steps"] == steps))
    control = str(alike["contestant"].item())
    never = {name: int(race["censored"].sel(contestant=name).values[:, -1].sum()) for name in (decayed, control)}
    found = ratio(source, decayed, control)
    lost = f"it never arrived in {never[decayed]} of {race.sizes['seed']} seeds, its control in {never[control]}"
    yield Part(beyond(found, 1.0), lost if any(never.values()) else f"{ends(found, 2)} times")


def _center(source: Source) -> Iterable[Part]:
    table = race_table(source.race("centers")).drop_duplicates("contestant").set_index("contestant")
    claimed, signs, texts = table.loc["CLTS, center 0.3"], [], []
    for name, other in table[table["role"].eq("curriculum")].iterrows():
        bound = "at most " if other["bound"] == "at most" else ""
        texts.append(f"{name} {bound}{ends(interval_of(other, 'speedup'), 2)}")
        if name != claimed.name:
            signs.append(None if other["bound"] or claimed["bound"] else above(claimed, other, "speedup"))
    # One that is better is enough.
    yield Part(all_of(signs), f"{listed(texts)} times as soon as uniform")


FLAT = "the same at every t: then half lies there where the measured t are spread evenly (digits), 0.35 where they follow EDM's schedule"

CLAIMS = {
    "alike": Claim(
        "The same noise gives nearly the same image in diffusion models, whatever seed and architecture; in GANs and VAEs it does not.",
        f"{PAPER}; [Zhang et al. 2024](https://arxiv.org/abs/2310.05264)",
        "confirmed where the interval of every family and of every two families of diffusion models lies above those of all GANs and VAEs "
        "whose images are good enough to be evidence, by squared error and by cosine (where none are, the models that ship are "
        "held against each other); contradicted where one lies below some of them",
        "other noise is 0; GANs and VAEs of like quality",
        _alike,
        "consistency_table",
        "study likeness --preset {preset}",
    ),
    "architecture": Claim(
        "Models of different architectures agree as models of one do.",
        PAPER,
        f"contradicted where a permutation of the labels tells every two architectures apart (p ≤ {LEVEL}; of 4 and 4 models none is below "
        "0.029), undecided otherwise: that no test tells them apart would confirm nothing",
        "exchange of the labels: what seeds alone do",
        _any_architecture,
        "consistency_table",
        "study likeness --preset {preset}",
    ),
    "easy": Claim(
        "Noisy timesteps are easy to learn.",
        PAPER,
        "confirmed where more of the error lies below t = 0.5, in every family, than there is of t, whether it is counted in the noise, in "
        "the image or in v; contradicted where less does. (The paper trains on the noise, whose error vanishes at high noise whatever is "
        "learnt)",
        FLAT,
        _share_below("eps error", "x0 error", "v error"),
        "difficulty_definitions",
        "study why --preset {preset}",
    ),
    "slow": Claim(
        "The less noisy timesteps are slower to learn.",
        "[Denoising task difficulty 2024](https://arxiv.org/abs/2403.10348)",
        "confirmed where more of the sum of the half-times (steps to half of the way from the first loss to the last) lies below t = 0.5, "
        "in every family, than there is of t; contradicted where less does",
        FLAT,
        _share_below("half-time"),
        "difficulty_definitions",
        "study why --preset {preset}",
    ),
    "smooth": Claim(
        "The loss landscape of a diffusion model is smoother than a GAN's.",
        PAPER,
        "confirmed where the intervals of all diffusion families lie below those of the GAN's two networks by roughness, by relative "
        "curvature along a line and by the Hessian's relative trace (both over the loss, so that they ask too how near a GAN's is to 0); "
        "contradicted where they lie above them. GANs whose images are not good enough to be evidence are left out",
        "the GAN's networks; the VAE (below)",
        _smoother,
        "smoothness",
        "study why --preset {preset}",
    ),
    "basin": Claim(
        "Models that agree have found similar minima.",
        PAPER,
        "confirmed where the loss on the straight line between two models of a family rises by less than a tenth of its value at the ends; "
        "contradicted where it rises by more than that value",
        "a trained curve between the same ends; permuted units",
        _one_basin,
        "connectivity",
        "study why --preset {preset}",
    ),
    "structure": Claim(
        "The structure of an image is decided at the noisy timesteps.",
        PAPER,
        "confirmed where the estimate explains half of the variance of the final image from some t above 0.5 on, in every family; "
        "contradicted where only from some t below 0.5 on (t of the linear schedule, by the same log-SNR; at t = 0.5 there is "
        "12 times as much noise as image)",
        "the mean image explains none",
        _decided_early,
        "structure",
        "study why --preset {preset}",
    ),
    "mean": Claim(
        "Models that predict the mean instead of the noise do not show the consistency.",
        PAPER,
        "confirmed where models that predict x0 score less than half of what models that predict eps score, by squared error and by "
        "cosine; contradicted where they score more",
        "the same network, data, steps and sampler; with an outer skip mean prediction is noise prediction",
        _mean_prediction_fails,
        "parametrisation",
        "study parametrisation --preset {preset}",
    ),
    "flow": Claim(
        "Flow matching is stable over seeds, and score-based diffusion is not.",
        "[Briq et al. 2026](https://arxiv.org/abs/2605.08398)",
        "confirmed where models of eps, x0, v and EDM score less than half of what models of flow matching score, by squared error and by "
        "cosine; contradicted where they score more",
        "the same network, data, steps and sampler",
        _flow_is_more_stable,
        "parametrisation",
        "study parametrisation --preset {preset}",
    ),
    "stochastic": Claim(
        "Models agree under a stochastic sampler that shares the noise of every step.",
        PAPER,
        "confirmed where models of every family score above 0.5, by squared error and by cosine; contradicted below",
        "the first noise alone, the noise on the way alone, a deterministic sampler",
        _alike_under_noise,
        "sampling",
        "study sampling --preset {preset}",
    ),
    "linear": Claim(
        "Networks that generalise are nearest to the best linear denoiser.",
        "[Li, Dai & Qu 2024](https://arxiv.org/abs/2410.24060); [Wang & Vastola 2024](https://arxiv.org/abs/2412.09726)",
        "confirmed where models of every family score more with the Gaussian denoiser of their training set than with the local "
        "and with the optimal one, which are near too, with intervals apart; contradicted where less than with one of them",
        "other noise is 0; the local and the optimal denoiser, which memorises",
        _near_linear,
        "origins",
        "study origins --preset {preset}",
    ),
    "first": Claim(
        "The linear denoiser is learnt first, and left later.",
        "[Li, Dai & Qu 2024](https://arxiv.org/abs/2410.24060)",
        "confirmed where every family is nearer to the Gaussian denoiser at some step than at the end, with intervals apart (the nearest "
        "of all steps, which flatters it); not told where it is nearest at the end, since a longer run may leave it",
        "the same models at the end of their training",
        _linear_first,
        "emergence",
        "study emergence --preset {preset}",
    ),
    "disjoint": Claim(
        "Models of two sets that share no image agree once the sets are large, and are copies of their sets when they are small.",
        "[Kadkhodaie et al. 2024](https://arxiv.org/abs/2310.02557)",
        f"confirmed where models of the largest sets agree more than those of the smallest, with fewer than {FEW:.0%} of copies there and "
        "more than half here; contradicted where they agree less",
        "models of one set; copies counted by the nearest image of the own and of the other set",
        _disjoint_sets_agree,
        "memorisation_sweep",
        "study sizes --preset {preset}",
    ),
    "regimes": Claim(
        "Models of one set agree where they memorise and where they generalise, and less in between.",
        "[Zhang et al. 2024](https://arxiv.org/abs/2310.05264)",
        "confirmed where models of one set agree less at some size than at the smallest and at the largest; contradicted where they agree "
        "more there than at one of these; not told where fewer than half of the smallest sets' samples are "
        f"copies, or more than {FEW:.0%} of the largest sets'",
        "the same network and steps at every size",
        _two_regimes,
        "memorisation_sweep",
        "study sizes --preset {preset}",
    ),
    "theory": Claim(
        "Models of disjoint sets agree as linear denoisers do in theory.",
        "[Wang, Zavatone-Veth & Pehlevan 2026](https://arxiv.org/abs/2602.02908)",
        "confirmed where the interval of the measured score meets that of the predicted one at every size, for every architecture; "
        "contradicted where at fewer than half of the sizes",
        "simulated linear denoisers, which the prediction is tested on; models of one set",
        _as_linear,
        "theory",
        "study sizes --preset {preset}",
    ),
    "faster": Claim(
        "CLTS with MDLRC trains 2 to 2.6 times faster.",
        PAPER,
        "confirmed where it reaches the target more than 2 times sooner than uniform Adam and than the fastest annealed run; "
        "contradicted where both intervals end below 2. (Width, floor and length of the curriculum are ours, since the paper "
        "gives none, and its target is a Frechet distance)",
        "uniform times at the preset's rate, which on digits is not the best one for uniform times (below), and at annealed rates",
        _twice_as_fast,
        "race",
        "race --preset {preset}",
    ),
    "curriculum": Claim(
        "A curriculum over timesteps trains faster.",
        PAPER,
        "confirmed where CLTS reaches the target sooner than the density of its end, held from the first step on; contradicted where later",
        "the static twin: the same density without a curriculum",
        _curriculum_helps,
        "race",
        "race --preset {preset}",
    ),
    "momentum": Claim(
        "Momentum decay with learning-rate compensation trains faster.",
        PAPER,
        "confirmed where MDLRC reaches the target sooner than a linear decay of the rate to a tenth, which is what its compensation "
        "amounts to; contradicted where later; not told where a seed never arrived",
        "the same decay of the rate at constant momentum",
        _momentum_helps,
        "race",
        "race --preset {preset}",
    ),
    "center": Claim(
        "The best center of the curriculum is t = 0.3.",
        PAPER,
        "confirmed where it reaches the target sooner than every other center, with intervals apart; contradicted where one is sooner; not "
        "told where a seed never arrived",
        "uniform times",
        _center,
        "center_ablation",
        "race --preset {preset} --contestants centers",
    ),
}
