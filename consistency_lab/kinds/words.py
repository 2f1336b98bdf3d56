"""Methods and caveats in words, made from what a result recorded about itself and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from consistency_lab.choices import printable
from consistency_lab.errors import StoreError
from consistency_lab.kinds.asked import told_together
from consistency_lab.plots import reading
from consistency_lab.similarity.named import shared_word
from consistency_lab.similarity.quantities import is_scored, note_of
from consistency_lab.store.results import provenance

Facts = Mapping[str, Any]


def facts_of(ds: xr.Dataset) -> dict[str, Any]:
    """The provenance of a result, empty when it recorded none."""
    try:
        found = _printable(provenance(ds))
        return found if isinstance(found, dict) else {}
    except StoreError:
        return {}


def _printable(fact: Any) -> Any:
    """The fact with its texts as they are shown, names as `store.shapes.whole` gives them."""
    if isinstance(fact, dict):
        return {printable(key): _printable(value) for key, value in fact.items()}
    if isinstance(fact, list):
        return [_printable(value) for value in fact]
    return printable(fact) if isinstance(fact, str) else fact


def compared(ds: xr.Dataset, facts: Facts) -> list[tuple[str, str]]:
    """What was compared, as (term, text): only what is recorded. On what machine: `machine`."""
    sampler, data = _mapping(facts.get("sampler")), _mapping(facts.get("data"))
    entries: list[tuple[str, Any]] = [
        ("models", f"{ds.sizes['model']}: {', '.join(map(printable, map(str, ds['model'].values)))}"),
        ("pairs", ds.sizes["pair"]),
        ("samples a model", ds.sizes["sample"]),
        ("noise seed", facts.get("noise_seed")),
        ("training seeds", "; ".join(dict.fromkeys(filter(None, map(seeds_of, models_of(facts)))))),
        ("weights", ", ".join(dict.fromkeys(weights_name(m) for m in models_of(facts) if m.get("weights")))),
        ("labels", _runs(facts.get("labels") or [])),
        ("sub-folders, a label each", len(facts["folders"]) if facts.get("folders") else None),
        ("frames a clip", facts.get("frames")),
        ("blocks of samples", facts.get("blocks")),
        ("sampler", _listed(sampler)),
        ("network evaluations a sample (NFE)", facts.get("nfe")),
        *told_together(models_of(facts)),
        ("ceiling", _ceiling(ds, facts)),
        ("data", _data(data)),
    ]
    return [(term, str(value)) for term, value in entries if value not in (None, "")]


def _ceiling(ds: xr.Dataset, facts: Facts) -> str | None:
    if again := _mapping(facts.get("again")):
        return f"a second run, {again.get('name')}"
    return f"{facts['ceiling_steps']} steps{_of_samples(ds)}" if facts.get("ceiling_steps") else None


def _of_samples(ds: xr.Dataset) -> str:
    """ ", 64 of 256 samples" where some alone were walked twice."""
    twice = ds["ceiling"].dropna("sample", how="all").sizes["sample"] if "ceiling" in ds else 0
    return f", {twice} of {ds.sizes['sample']} samples" if 0 < twice < ds.sizes["sample"] else ""


def machine(facts: Facts) -> list[tuple[str, str]]:
    """Device, threads and versions, as (term, text): only what is recorded."""
    device = " ".join(str(facts[key]) for key in ("device", "accelerator") if facts.get(key))
    versions = ", ".join(f"{name} {version}" for name, version in _mapping(facts.get("versions")).items() if version)
    entries = [
        ("device", device),
        ("threads", facts.get("threads")),
        ("versions", versions),
        ("numerics version", facts.get("numerics_version")),
        ("measures version", facts.get("measures_version")),
        ("git commit", _commit(str(facts.get("git_commit") or ""))),
    ]
    return [(term, str(value)) for term, value in entries if value not in (None, "")]


def made(ds: xr.Dataset) -> str:
    """What every section says at its end: how many samples, and the machine; empty where nothing is recorded."""
    facts = facts_of(ds)
    parts = [f"{facts['samples']} samples"] if "samples" in facts else []
    return "; ".join(parts + [f"{term} {text}" for term, text in machine(facts)])


def models_of(facts: Facts) -> list[dict[str, Any]]:
    """The models that a comparison recorded, in its order."""
    return [dict(model) for model in facts.get("models") or [] if isinstance(model, Mapping)]


def methods(ds: xr.Dataset, facts: Facts) -> list[str]:
    """How the numbers of a comparison were made, a sentence an entry."""
    sampler, shared = _mapping(facts.get("sampler")), shared_word(ds)
    elsewhere, over = ("in different places", "images") if shared == "place" else ("from different noise", "noise")
    lin = (
        " For the mean-squared error it equals Lin's concordance coefficient."
        if "mse" in reading.names(ds, "metric")
        else ""
    )
    pairs = f"each of the {ds.sizes['pair']} pairs was" if ds.sizes["pair"] > 1 else "the pair was"
    at = f"; {pairs} compared sample by sample at {ds.sizes['t']} time{'s' if ds.sizes['t'] > 1 else ''}."
    folders = [str(model.get("name")) for model in models_of(facts) if model.get("kind") == "images"]
    what = "clips" if facts.get("frames") else "images"
    if folders and len(folders) == ds.sizes["model"]:
        said = [
            f"{ds.sizes['sample']} {what} of each of {len(folders)} folders were read, in an order drawn at random; those of one name "
            f"belong together; {pairs} compared sample by sample. How they were made is not known: another place is every other image."
        ]
    else:
        said = [
            f"{ds.sizes['model']} models each turned the same {ds.sizes['sample']} noise images into images"
            + (f" with {_listed(sampler)}" if sampler else "")
            + at
        ]
        if folders:
            said.append(
                f"The images of {', '.join(folders)} were read; that they were made from this noise is their user's word."
            )
    if facts.get("frames"):
        said.append(
            f"A clip is one sample: its distance is the mean over its {facts['frames']} frames, its null that of the same frame of "
            "other clips."
        )
    if ds.sizes["t"] > 1:
        said.append(
            "Before the last time, what is compared is each model's estimate of the final image (x0) at that time."
        )
    said += [
        "The consistency score is 1 − E d(A_i, B_i) / E d(A_i, B_j), i ≠ j: 1 when the images are the same, 0 when "
        f"sharing the {shared} brings them no closer." + lin,
        f"The null is the same distance between images {elsewhere}, over all pairs of different samples"
        + (" that were asked for the same label; the plain null takes all pairs." if "plain_null" in ds else "."),
        *_in_part(ds),
        *_in_blocks(ds, facts),
        f"Interval of the score over all models: {ds.attrs.get('interval', 'not recorded')}. The interval of a pair is "
        f"over {over} and speaks of this pair, not of the family. Intervals of mean distances are 95 % t intervals "
        f"over {over}; that of the null counts each sample twice, as a U-statistic of degree two must.",
    ]
    if "family_trimmed_score" in ds:
        said.append(
            "Scores of typical samples: the tenth of the samples with the largest distance and the tenth with the smallest are left out "
            "of distance and null (10 % trimmed), or medians stand for means; they say little of the samples that are left out."
        )
    if "without_score" in ds:
        said.append(
            "The odd one out is the model whose removal raises the score of the others most; the interval of the rise is over noise, "
            "for all models at once."
        )
    if alignment := meeting(ds):
        said.append(alignment)
    if again := _mapping(facts.get("again")):
        said.append(
            f"The ceiling is the first model against its own second run, {again.get('name')}: what differs there is not the model. Its "
            "null is the second run under other noise."
        )
    elif "ceiling" in ds:
        steps = f"{facts['ceiling_steps']}" if facts.get("ceiling_steps") else "another number of"
        said.append(
            f"The ceiling is a model compared with itself at {steps} solver steps{_of_samples(ds)}; no pair should beat it. "
            "Its null is the model with itself at other steps and other noise."
        )
    if "reference_distance" in ds:
        named = [reading.REFERENCE_NAMES.get(name, name) for name in reading.names(ds, "reference")]
        said.append(
            f"Closed-form references started from the same noise: {', '.join(named)}. Each has its own null, the models "
            "against the reference under other noise: the data mean, the same for all noise, scores 0 by construction."
        )
    if "ceiling" in ds or "reference_distance" in ds:
        said.append(
            "Scores of the ceiling and of references average the distances of all models and leave out one sample at a "
            "time, in distance and null alike (jackknife): they speak of these models."
        )
    if "nearest_distance" in ds:
        said.append("Memorisation check: the mean-squared error of each final image to its nearest training image.")
    for metric in reading.names(ds, "metric"):
        if note := note_of(ds, metric):
            said.append(f"{metric}: {note}.")
        if not is_scored(ds, metric):
            said.append(f"{reading.why_undefined(ds, metric)}.")
    return said


def _in_part(ds: xr.Dataset) -> list[str]:
    """Of which metrics the null is taken of some pairs of samples alone."""
    shifts = dict(zip(reading.names(ds, "metric"), ds["shifts"].values.tolist(), strict=True)) if "shifts" in ds else {}
    some = {count: [name for name, own in shifts.items() if own == count] for count in sorted({*shifts.values()} - {0})}
    return [
        f"The null of {', '.join(of)} is taken of samples i and i ± s alone, for {count} shifts s, or all where there are no more."
        for count, of in some.items()
    ]


def _in_blocks(ds: xr.Dataset, facts: Facts) -> list[str]:
    if not facts.get("blocks"):
        return []
    return [
        f"Samples were compared in {facts['blocks']} blocks, so that they need not all be held: the null of a sample is the mean over the "
        "other samples of its block. Trimmed scores are those of the null's pseudo-values, and quantiles of pixels are of some of them."
    ]


def meeting(ds: xr.Dataset) -> str:
    """Where models of different schedules start and meet, in a sentence; empty where all have one schedule or have no path."""
    if "pair_log_snr" not in ds or ds.sizes["t"] < 2:
        return ""
    start = ds["pair_log_snr"].isel(t=0).values
    schedules = {str(m["schedule"]) for m in models_of(facts_of(ds)) if m.get("schedule")}
    if len(schedules) < 2 and (start == start[0]).all():
        return ""
    low, high = (f"{x:.1f}".replace("-", "−") for x in (start.min(), start.max()))
    return (
        "Models of different schedules are compared at equal log-SNR, on one alignment a pair (equal steps of the mean of both times), "
        f"from the noisiest level that both reach (log-SNR {low if low == high else f'{low} to {high}'}); t and log-SNR of figures are "
        "means over pairs. Pictures, ceilings, references and nearest images are of each model's walk on its own schedule."
    )


def caveats(ds: xr.Dataset, facts: Facts) -> list[str]:
    """What a reader should hold against these numbers; empty when nothing applies."""
    count, said = ds.sizes["model"], []
    if count == 2:
        said.append("Two models make one pair: the interval is over noise only and says nothing about other models.")
    elif count < 4:
        said.append(f"{count} models are few: a statement about a family of models should rest on at least four.")
    networks = dict.fromkeys(str(m["network"]).split("(")[0] for m in models_of(facts) if "network" in m)
    if len(networks) > 1:
        said.append(
            f"The models differ in architecture ({', '.join(networks)}) and the interval treats them as one family; "
            "the pairs show where it does not."
        )
    if _mapping(facts.get("sampler")).get("clip"):
        said.append("x0 was clipped while sampling, which raises similarity by itself.")
    if (precision := _mapping(facts.get("sampler")).get("precision")) is not None:
        said.append(
            f"Networks were evaluated in {precision} while sampling, whose rounding is in every distance, the ceiling's too."
        )
    if any(m.get("weights") == "raw" for m in models_of(facts)):
        said.append("Raw weights were compared for at least one model; averaged (EMA) weights usually agree more.")
    if "nearest_distance" not in ds:
        said.append(
            "No training images were given, so memorisation was not checked: models that copy the data agree as well."
        )
    if "ceiling" not in ds:
        said.append(
            "No ceiling was measured, so it is not known how much of the difference a second run of the first would show; give one with "
            "--again (in Python: again=...)."
            if models_of(facts) and all(model.get("kind") == "images" for model in models_of(facts))
            else "No ceiling was measured, so it is not known how much of the difference is the solver's."
        )
    for metric in reading.names(ds, "metric"):
        score = float(ds["family_score"].isel(t=-1).sel(metric=metric))
        if score != score and is_scored(ds, metric):
            said.append(f"The score in {metric} is undefined: {reading.why_undefined(ds, metric)}.")
    if not facts:
        said.append("This result does not record how it was made (no provenance).")
    return said


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(settings: Facts) -> str:
    """``ddim, 50 steps, x0 not clipped``: what this report knows how to say, then the rest as key = value."""
    parts = [str(settings["method"])] if "method" in settings else []
    if "steps" in settings:
        parts.append(f"{settings['steps']} steps")
    if "clip" in settings:
        parts.append("x0 clipped" if settings["clip"] else "x0 not clipped")
    rest = {key: value for key, value in settings.items() if key not in ("method", "steps", "clip")}
    return ", ".join(parts + [f"{key} = {value}" for key, value in rest.items()])


def _runs(labels: Sequence[int]) -> str:
    """``0 to 9`` for labels that follow each other, else each."""
    if len(labels) > 2 and list(labels) == list(range(labels[0], labels[-1] + 1)):
        return f"{labels[0]} to {labels[-1]}, in turn"
    return ", ".join(map(str, labels))


def seeds_of(model: Facts) -> str:
    """``0`` where initialisation, data order and training noise share a seed, else each by name; empty where none is recorded."""
    seeds = _mapping(model.get("seeds"))
    if len(set(seeds.values())) < 2:
        return "".join(str(seed) for seed in dict.fromkeys(seeds.values()))
    return ", ".join(f"{stream} {seed}" for stream, seed in seeds.items())


def _commit(commit: str) -> str:
    """A commit as short as names stay unique, and whether the files differed from it."""
    name, _, state = commit.partition("-")
    return name[:12] + (f" ({state})" if state else "")


def weights_name(model: Facts) -> str:
    """Raw weights, or their exponential moving average (EMA)."""
    return {"ema": "EMA", "raw": "raw"}.get(str(model["weights"]), str(model["weights"]))


def _data(data: Facts) -> str:
    print_of = str(data.get("fingerprint", ""))[:12]
    return " ".join(
        part for part in (str(data.get("name", "")), f"(fingerprint {print_of}…)" if print_of else "") if part
    )
