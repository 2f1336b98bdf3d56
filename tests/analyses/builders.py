"""Rows with the keys of the real ones, and real results, with made-up numbers that are known in closed form: no measurements."""

import numpy as np
import pandas as pd
import real_results

from consistency_lab.paper.plots.frames import current_rows
from consistency_lab.paper.rows import Rows
from consistency_lab.store.results import save_result
from consistency_lab.store.runs import Store

LEVELS = 5
DIFFUSION = {"unet": 0.9, "dit": 0.94, "mlp": 0.92}
CONTRAST = {"gan": 0.2, "vae": 0.6}
RULER = {"count": 64, "data": "d", "levels": LEVELS, "seed": 0, "metrics": ["mse", "ssim-sigma0.8 (a note)"]}
REFERENCES = ("gaussian", "optimal", "mean")


def models(family, count=4):
    return [f"{family}-{i}" for i in range(count)]


def bounds(name, value, half=0.02):
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def scored(metric, value, half=0.02):
    found = {f"{metric}_score": value, f"{metric}_score_low": value - half, f"{metric}_score_high": value + half}
    return (
        found
        | dict.fromkeys((f"{metric}_distance", f"{metric}_median_distance"), 0.5 * (1 - value))
        | {f"{metric}_null": 0.5}
    )


def family_values(score, diffusion=True, references=REFERENCES, metrics=("mse", "cosine", "ssim-sigma0.8"), half=0.02):
    values = {"nearest": 0.1}
    t = np.linspace(1, 0, LEVELS)
    for metric in metrics:
        values |= scored(metric, score, half)
        if not diffusion:
            continue
        curve = np.linspace(0.3, score, LEVELS)
        values[f"{metric}_ceiling"] = 0.001
        along = {
            "t": t,
            "log_snr": np.linspace(-10, 8, LEVELS),
            "score": curve,
            "score_low": curve - half,
            "score_high": curve + half,
        }
        along |= {"distance": 0.5 * (1 - curve), "null": np.full(LEVELS, 0.5)}
        values[f"{metric}_along_t"] = {key: list(map(float, x)) for key, x in along.items()}
        values[f"{metric}_along_t"]["log_snr"][-1] = None
    for i, reference in enumerate(references if diffusion else ()):
        values |= bounds(f"to_{reference}", score - 0.1 * (i + 1))
        values[f"residual_after_{reference}"] = score - 0.05
    return values


def quality_values(frechet, covered=10):
    found = bounds("frechet", frechet, 1.0) | {"frechet_worst": frechet + 1, "covered": covered, "classes": 10}
    return found | {"frechet_floor": 5.0, "frechet_gaussian": 30.0, "frechet_memoriser": 8.0, "measure": "Frechet"}


def likeness(
    folder,
    families=None,
    study="likeness",
    crosses=True,
    contrast=None,
    gap=0.05,
    p=0.01,
    cosine_gap=None,
    poor=("gan",),
):
    """Between two families the score is the mean of theirs less ``gap`` (by cosine ``cosine_gap``), and the permutation's p is ``p``.

    The images of the families ``poor`` are worse than twice the best diffusion family's.
    """
    rows = Rows(folder / f"{study}.jsonl")
    families, contrast = DIFFUSION if families is None else families, CONTRAST if contrast is None else contrast
    for name, score in (families | contrast).items():
        own = {"family": name, "models": models(name)}
        diffusion = name in families
        rows.row({"row": "family", **own, **RULER}, lambda s=score, d=diffusion: family_values(s, d))
        frechet = 40.0 if name in poor else 10.0
        rows.row({"row": "quality", **own, "count": 100}, lambda f=frechet: quality_values(f))
    names = list(families | contrast)
    for i, first in enumerate(names if crosses else ()):
        for second in names[i + 1 :]:
            if (first == "gan") != (second == "gan"):
                continue  # they start from noise of other shapes
            both = {"families": [first, second], "models": models(first) + models(second)}
            mean = 0.5 * ((families | contrast)[first] + (families | contrast)[second])
            values = scored("mse", mean - gap) | scored("cosine", mean - (gap if cosine_gap is None else cosine_gap))
            values |= {"p_any": p, "mse_p": p, "cosine_p": p}
            rows.row({"row": "cross", **both, **RULER}, lambda v=values: v)
    return rows


def sizes(folder, networks=("mlp",), predicted=(0.3, 0.55, 0.85), explained=(0.4, 0.6, 0.8), **spec):
    """Scores across sets of 0.2, 0.55 and 0.9, +- 0.02."""
    rows = Rows(folder / "sizes.jsonl")
    for network in networks:
        for i, size in enumerate((8, 100, 900)):
            values = bounds("between", 0.2 + 0.35 * i) | bounds("within", 0.95) | bounds("copies", 0.9 - 0.44 * i)
            values |= {"nearest_own": 0.1, "nearest_other": 0.2}
            if predicted:
                values |= bounds("predicted", predicted[i], 0.01)
            for k, name in enumerate(("gaussian", "local", "optimal") if explained else ()):
                values |= bounds(f"explained_{name}", explained[i] - 0.1 * k)
            own = {"row": "size", "size": size, "count": 64, "settings": {"network": network}, **spec}
            rows.row(own, lambda v=values: v)


def emergence(folder):
    rows = Rows(folder / "emergence.jsonl")
    for name, score in DIFFUSION.items():
        for step, share in ((25, 0.2), (200, 0.6), (1500, 1.0)):
            spec = {"row": "emergence", "family": name, "models": models(name), "step": step, **RULER}
            rows.row(spec, lambda v=score * share: family_values(v))


def sampling(folder, scores=(0.9, 0.8, 0.6, 0.1)):
    """Of each diffusion family by what is shared, +- 0.02."""
    rows = Rows(folder / "sampling.jsonl")
    kinds = (
        ("first noise, deterministic", "ddim"),
        ("first noise and path", "ancestral"),
        ("first noise alone", "ancestral"),
    )
    for name in DIFFUSION:
        for (shared, method), score in zip((*kinds, ("path alone", "ancestral")), scores, strict=True):
            own = {"family": name, "models": models(name), "shared": shared, "method": method}
            values = scored("mse", score) | scored("cosine", score)
            rows.row({"row": "sampling", **own, **RULER}, lambda v=values: v)


def shipped(folder, diffusion=0.9, others=0.0):
    """Two U-Nets, an MLP, two GANs, and two VAEs that are nearly the same, by every metric, +- 0.02."""
    rows = Rows(folder / "zoo.jsonl")
    for kinds, score in (
        (("unet-s0", "unet-s1", "mlp-s0"), diffusion),
        (("gan-s0", "gan-s1"), others),
        (("vae-s0", "vae-s1"), 0.97),
    ):
        names = [f"fashion-{kind}" for kind in kinds]
        both = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        found = [{"first": a, "second": b, **scored("mse", score), **scored("cosine", score)} for a, b in both]
        rows.row({"row": "shipped", "models": names, **RULER}, lambda v=found: {"pairs": v})


def origins(folder):
    rows = Rows(folder / "origins.jsonl")
    references = ("gaussian", "local(window=3)", "optimal")
    for name, score in DIFFUSION.items():
        spec = {"row": "family", "family": name, "models": models(name), **RULER, "references": list(references)}
        rows.row(spec, lambda v=score: family_values(v, references=references, metrics=("mse",)))


def why(folder):
    rows = Rows(folder / "why.jsonl")

    def add(probe, family, values, part=None):
        own = {"probe": probe, "family": family, "models": models(family, 2), "part": part}
        rows.row({"row": "why", **own, "data": "d", "count": 64, "bins": 10, "seed": 0}, lambda: values)

    networks = [(name, None, 1.0) for name in (*DIFFUSION, "vae")]
    networks += [("gan", "generator", 30.0), ("gan", "discriminator", 60.0)]
    for name, part, scale in networks:
        add(
            "line",
            name,
            bounds("relative_curvature", scale, 0.1 * scale) | bounds("roughness", 0.02 * scale, 0.002),
            part,
        )
        add("between", name, bounds("relative_barrier", 2 * scale, 0.2 * scale), part)
        spectrum = bounds("hessian_relative_trace", 50 * scale, scale) | bounds("hessian_relative_top", 5 * scale, 0.1)
        ends = bounds("hessian_top", 2.5 * scale, 0.05) | bounds("hessian_bottom", -0.5, 0.05) | {"loss": 0.5}
        spectrum |= ends | {"hessian_negative_share": 0.1, "trace_by_t": {"all": 1.0}}
        add("curvature", name, spectrum, part)
    for i, name in enumerate(DIFFUSION):
        definitions = [
            {"definition": text, "unit": "mean square", "peak_t": t, "peak_t_low": t - 0.05, "peak_t_high": t + 0.05,
             "share_below": 0.3 + 0.1 * i, "share_below_low": 0.25, "share_below_high": 0.8, "uniform_below": 0.5, "defined": 1.0}
            for text, t in (("eps error", 0.05), ("x0 error", 0.95), ("half-time", 0.5))
        ]  # fmt: skip
        ranks = [
            {"first": a, "second": b, "rho": rho, "rho_low": rho - 0.1, "rho_high": rho + 0.1, "times": 10}
            for a, b, rho in (
                ("eps error", "x0 error", -0.9),
                ("eps error", "half-time", 0.8),
                ("x0 error", "half-time", 0.0),
            )
        ]
        values = {"definitions": definitions, "rank_correlations": ranks, "excess_over_optimal_on": "training"}
        add("difficulty", name, values)
        times = bounds("half_known_t", 0.6) | bounds("swap_t", 0.5) | bounds("handoff_t", 0.7)
        add("structure", name, times)
        paths = bounds("mean_loss", 0.3) | bounds("consistency", 0.9)
        for path, barrier in (("straight line", 0.4), ("trained curve", 0.01)):
            paths |= bounds(f"barrier_{path}", barrier)
        add("connectivity", name, paths)


def race(names_and_roles, last=60):
    """Contestants that fall as 1/step, each twice as fast as the one before, over three seeds and four evaluations."""
    names, roles = list(names_and_roles), list(names_and_roles.values())
    shape, steps = (len(names), 3), np.array([1, 10, 30, last])
    speed, seeds = 2.0 ** np.arange(len(names)), np.array([1, 1.1, 1.2])
    loss = seeds[None, :, None] / (steps[None, None] * speed[:, None, None])
    crossing = np.broadcast_to(seeds[None, :, None] * np.array([30.0, 50.0]) / speed[:, None, None], (*shape, 2))
    frechet = 10 + 100 * loss
    values = {
        "loss": loss,
        "evaluation_step": steps.astype(float),
        "evaluation_loss": loss,
        "frechet": frechet,
        "crossing": crossing,
        "censored": False,
        "diverged_at": np.nan,
        "seconds_per_step": 0.01,
        "total_variation": 0.0,
        "effective_share": 1.0,
        "batch": 64,
        "pilot_seconds": 0.0,
        "pilot_loss": 1.0 / steps,
        "target_loss": [0.03, 0.02],
        "reference_value": [[np.nan, 6.0], [0.05, 30.0], [1.0, 90.0], [0.9, 12.0]],
        "qualified": [True, False],
        "role": roles,
        "entry": names,
        "pilot_steps": 0,
        "planned_steps": last,
    }
    coords = {
        "contestant": names,
        "seed": [0, 1, 2],
        "step": steps,
        "target": [0.5, 0.9],
        "reference": ["training images", "Gaussian denoiser", "data mean", "optimal denoiser"],
        "metric": ["held-out loss", "Frechet distance (digits classifier features)"],
    }
    return real_results.like(real_results.race(), values, coords, control=names[0])


STANDARD = {"uniform": "control", "uniform + decay": "annealed", "paper: CLTS + MDLRC": "paper", "recipe": "recipe"}
CENTERS = {"uniform": "control", "CLTS, center 0.1": "curriculum", "CLTS, center 0.5": "curriculum"}


def everything(root, preset="digits"):
    folder = root / preset
    folder.mkdir(parents=True)
    likeness(folder)
    ways = {"eps": 0.9, "x0": 0.8, "eps/x0": 0.7}
    likeness(folder, ways, "parametrisation", contrast={})
    likeness(
        folder, {"all three": 0.85, "initialisation": 0.88, "data order": 0.95}, "streams", crosses=False, contrast={}
    )
    rows = Rows(folder / "perceptual.jsonl")
    spec = {"row": "family", "family": "unet", "models": models("unet", 3), **RULER}
    rows.row(spec, lambda: family_values(0.8, metrics=("mse", "lpips-squeeze")))
    sizes(folder)
    emergence(folder)
    origins(folder)
    sampling(folder)
    shipped(folder)
    scales = {"mlp": 0.9, "mlp, labels, scale 1": 0.85, "mlp, labels, scale 4": 0.7}
    likeness(folder, scales, "guidance", crosses=False, contrast={})
    why(folder)
    save_result(race(STANDARD), folder / "race-standard.nc")
    save_result(race(CENTERS), folder / "race-centers.nc")
    learnt = {"uniform": 0.9, "recipe": 0.91}
    likeness(folder, learnt, "race-consistency", contrast={})
    return root


def structure_result(name="unet"):
    """Two models; bands known ever later, a handoff at 0.2 and an exchange at 0.3; exact in what `studies.why` and the frames read."""
    models, parts = [f"{name}-0", f"{name}-1"], ["mse", "band-0-0.5", "band-0.5-1", "pc-1-4"]
    along, values = {"fixed": [-5.0, 0.5, 1.0], "correlation": [0.0, 0.7, 1.0]}, {}
    for end, shift in (("", 0), ("_low", -0.02), ("_high", 0.02)):
        values |= {f"{key}{end}": np.add(curve, shift) for key, curve in along.items()}
        values[f"fixed_t{end}"] = np.add([0.5, 0.6, 0.4, 0.45], shift)
        for kind, at in (("swap", 0.3), ("handoff", 0.2)):
            values[f"{kind}_switch_t{end}"] = at + shift
            values |= {f"{kind}_{quantity}{end}": np.add([1.0, 0.6, 0.0], shift) for quantity in ("relative", "nearer")}
    handoffs = [f"{models[0]} > {models[1]}", f"{models[1]} > {models[0]}"]
    coords = {
        "model": models,
        "part": parts,
        "t": [1.0, 0.5, 0.0],
        "handoff": handoffs,
        "log_snr": [-10.0, -1.0, np.inf],
    }
    coords |= {"part_of": ["image", "band", "band", "components"]}
    coords |= {"part_first": [np.nan, 0.0, 0.5, 1.0], "part_last": [np.nan, 0.5, 1.0, 4.0]}
    return real_results.like(real_results.structure(), values, coords)


def line_result(peak, units="mean squared error in eps", ends=0.5):
    """A line whose loss is ``ends`` at both models and ``peak`` times that in the middle."""
    loss = ends * np.array([2.0, 1.0, peak, 1.0, 2.0])
    values = {"loss": loss, "loss_low": 0.9 * loss, "loss_high": 1.1 * loss}
    return real_results.like(real_results.landscape(), values, {"position": [-0.5, 0.0, 0.5, 1.0, 1.5]}, units=units)


def curvature_result(loss=0.5):
    """A flat density of 1 over eigenvalues from -1 to 2, of 10 parameters, in one part."""
    values = {
        "grid": np.linspace(-1, 2, 32),
        "density": np.ones(32),
        "density_error": 0.1,
        "width": 1.0,
        "node": [0.0, 1.0, 0.0, 1.0],
        "weight": 0.25,
        "loss": loss,
        "parameters": 10,
    }
    coords = {"operator": ["hessian"], "part": ["all"], "t": [np.nan]}
    return real_results.like(real_results.curvature(), values, coords)


def results(root, store, preset="digits"):
    """The results behind the rows of `why`, in a store."""
    made = {
        "structure": lambda spec: structure_result(spec["family"]),
        "between": lambda spec: (
            line_result(1.1, "generator's loss in nats", 0.693) if spec["part"] else line_result(3.0)
        ),
        "curvature": lambda spec: curvature_result(),
    }
    for row in current_rows(root / preset / "why.jsonl"):
        spec = row["spec"]
        if spec["probe"] in made:
            name = f"{spec['probe']}-{spec['family']}"
            Store(store).result(
                "why",
                name,
                spec,
                lambda s=spec: made[s["probe"]](s),
            )


def commit(root, store, load, preset="digits"):
    """The committed data of every figure that draws curves or images; ``load`` imports a script by name."""
    stored, folder = load("_stored"), root / preset
    source = load("_common").Source(preset, root, store=store)
    for script, probe in CURVES.items():
        stored.curves(source, script, probe, load(script).frame_of).to_csv(
            folder / f"figure-{script.replace('_', '-')}.csv", index=False
        )
    # Every pixel of column k is k.
    pixels = np.broadcast_to(np.arange(2.0)[:, None, None, None], (2, 3, 3, 1))
    rows = [row for row in current_rows(folder / "likeness.jsonl") if row["spec"]["row"] == "family"]
    grids = [
        stored.image_frame(pixels, row=stored.short(row), family=row["spec"]["family"], model=model)
        for row in rows
        for model in row["spec"]["models"]
    ]
    pd.concat(grids).to_csv(folder / "figure-same-noise-grid.csv", index=False)
    rows = [row for row in current_rows(folder / "why.jsonl") if row["spec"]["probe"] == "structure"]
    strips = [
        stored.image_frame(pixels, row=stored.short(row), family=row["spec"]["family"], t=t)
        for row in rows
        for t in (1.0, 0.0)
    ]
    pd.concat(strips).to_csv(folder / "figure-structure-images.csv", index=False)


CURVES = {
    "interpolation": "between",
    "hessian_spectra": "curvature",
    "bands": "structure",
    "handoff": "structure",
    "structure": "structure",
}
