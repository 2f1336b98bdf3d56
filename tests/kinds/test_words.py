import importlib.metadata
import json

from consistency_lab import train
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.kinds import words
from consistency_lab.kinds.comparison import _models
from consistency_lab.kinds.numbers import duration
from consistency_lab.similarity.compare import compare


def test_only_what_is_recorded_is_said(results):
    ds = results.comparison(3, samples=12)
    said = dict(words.compared(ds, {"sampler": {"method": "ddim", "eta": 0.5}}))
    names = ", ".join(map(str, ds["model"].values))
    assert said == {"models": f"3: {names}", "pairs": "3", "samples a model": "12", "sampler": "ddim, eta = 0.5"}


def test_caveats_follow_the_provenance(results):
    ds = results.comparison(3, samples=12, nearest=False).drop_vars("ceiling")
    facts = {"sampler": {"clip": True}, "models": [{"name": "a", "weights": "raw", "network": "unet(width=8)"}]}
    said = " ".join(words.caveats(ds, facts))
    for part in ("at least four", "clipped", "Raw weights", "memorisation was not checked", "No ceiling"):
        assert part in said
    assert "differ in architecture" not in said
    full = results.comparison(4, samples=12)
    assert len(words.caveats(full, words.facts_of(full))) == 1


def test_methods_name_interval_null_and_references(results):
    ds = results.comparison(3, samples=12)
    said = " ".join(words.methods(ds, words.facts_of(ds)))
    for part in (
        ds.attrs["interval"],
        "different noise",
        "Gaussian denoiser, optimal denoiser, data mean",
        "PSNR is a similarity",
        "Lin's",
    ):
        assert part in said
    assert "Lin's" not in " ".join(words.methods(ds.sel(metric=["cosine"]), {}))


def test_broken_provenance_is_no_provenance(results):
    ds = results.recipe()
    ds.attrs["provenance"] = "{"
    assert words.facts_of(ds) == {}
    ds.attrs["provenance"] = json.dumps(
        {"device": "cuda", "accelerator": "H200", "versions": {"torch": "2.6.0", "scipy": None}}
    )
    assert dict(words.machine(words.facts_of(ds))) == {"device": "cuda H200", "versions": "torch 2.6.0"}


def test_seeds_are_one_number_where_all_streams_share_it():
    assert words.seeds_of({"seeds": {"init": 3, "noise": 3, "order": 3}}) == "3"
    assert words.seeds_of({"seeds": {"init": 3, "noise": 0, "order": 3}}) == "init 3, noise 0, order 3"
    assert words.seeds_of({"seeds": None}) == words.seeds_of({}) == ""


def test_a_commit_is_short_and_keeps_its_state():
    facts = {"git_commit": "1939821faf3d4afcea54c4583fb0c1026e5edc81-dirty"}
    assert words.machine(facts) == [("git commit", "1939821faf3d (dirty)")]
    assert words.machine({"git_commit": None}) == []


def test_what_a_real_comparison_records_is_said():
    # The made-up provenance of the other tests could drift from what is recorded.
    images = load_images("digits").take(range(40), "few")
    models = [train(images, network="mlp(width=8, depth=1)", seed=seed, steps=2, batch=4) for seed in (0, 1)]
    ds = compare(models, count=4, sampler=Sampler(steps=3), images=images, levels=2)
    said = dict(words.compared(ds, words.facts_of(ds)) + words.machine(words.facts_of(ds)))
    assert said["sampler"].startswith("ddim, 3 steps, x0 not clipped")
    assert said["training seeds"] == "0; 1"
    assert said["weights"] == "EMA"
    assert (
        f"torchvision {importlib.metadata.version('torchvision')}, lpips {importlib.metadata.version('lpips')}"
        in said["versions"]
    )
    assert "None" not in said["versions"]
    assert said["ceiling"] == "6 steps"
    assert said["data"].startswith("few (fingerprint")
    assert {"network evaluations a sample (NFE)", "device", "threads", "versions", "noise seed"} <= set(said)
    assert "6 solver steps" in " ".join(words.methods(ds, words.facts_of(ds)))


def test_it_is_said_of_which_metrics_the_null_is_of_some_pairs_alone(results):
    ds = results.comparison(3, samples=12).drop_vars("shifts", errors="ignore")
    assert "shifts s" not in " ".join(words.methods(ds, words.facts_of(ds)))
    ds = ds.assign_coords(shifts=("metric", [0] * (ds.sizes["metric"] - 1) + [8]))
    (said,) = [sentence for sentence in words.methods(ds, words.facts_of(ds)) if "shifts s" in sentence]
    assert said.startswith(
        f"The null of {ds['metric'].values[-1]} is taken of samples i and i ± s alone, for 8 shifts s"
    )


PIPELINE = {
    "kind": "pipeline",
    "class": "DiTPipeline",
    "scheduler": "DDIMScheduler",
    "evaluations": 4,
    "dtype": "float32",
}
MADE = {**PIPELINE, "steps": 4, "guidance": 2.0, "labels": [3, 7], "size": [16, 8], "batch": 4, "space": "pixels"}


def test_what_pipelines_were_asked_for_is_said_of_each(results):
    ds = results.comparison(2, samples=12)
    models = [
        {"name": "a", **MADE, "call": {"eta": 0.5}},
        {"name": "b", **PIPELINE, "quantize": "layerwise:fp8", "prompts": ["cat", "dog", "cow", "hen"], "batch": 4},
    ]
    said = dict(words.compared(ds, {"models": models}))
    assert said == {
        "models": f"2: {', '.join(map(str, ds['model'].values))}",
        "pairs": "1",
        "samples a model": "12",
        "pipeline": "DiTPipeline",
        "scheduler": "DDIMScheduler",
        "solver steps": "a: 4; b: its own",
        "guidance": "a: 2.0; b: its own",
        "size": "a: 16x8; b: its own",
        "further arguments": "a: eta=0.5; b: its own",
        "network evaluations": "4",
        "dtype": "float32",
        "quantiser": "a: none; b: layerwise:fp8",
        "prompts": "a: none; b: 4 in turn: 'cat', 'dog', 'cow', ...",
        "labels of its own": "a: 3, 7; b: none",
        "images made together": "4",
        "space": "a: pixels; b: none",
    }


def columns_of(table):
    """Texts of each model by what they say, of a table with a column a model."""
    return {row[0]: list(row[1:]) for row in table.rows}


def test_the_table_of_models_has_what_differs_between_them(results):
    ds = results.comparison(2, samples=12)
    names = [str(name) for name in ds["model"].values]
    models = [{"name": name, **MADE, "steps": steps} for name, steps in zip(names, (4, 8), strict=True)]
    columns = columns_of(_models(ds, {"models": models}))
    assert columns["solver steps"] == ["4", "8"]
    assert not {"steps", "dtype", "guidance"} & set(columns)
    models[1] = {"name": names[1], "kind": "images", "size": "8x8x1"}
    columns = columns_of(_models(ds, {"models": models}))
    assert columns["dtype"] == ["float32", "not recorded"]
    assert columns["size"] == ["16x8", "not recorded"]


def test_steps_and_batch_of_training_are_not_those_of_a_call(results):
    ds = results.comparison(2, samples=12)
    assert not {"solver steps", "images made together"} & set(dict(words.compared(ds, words.facts_of(ds))))
    columns = columns_of(_models(ds, words.facts_of(ds)))
    assert "steps" in columns
    recorded = [model["seconds"] for model in words.facts_of(ds)["models"]]
    assert columns["training took"] == [duration(seconds) for seconds in recorded]


def test_a_table_of_models_is_not_wider_than_the_page(results):
    few, many = results.comparison(2, samples=12), results.comparison(7, samples=12, shown=2, times=3)
    beside, below = (_models(ds, words.facts_of(ds)) for ds in (few, many))
    assert beside.head == ("model", *few["model"].values)
    assert [row[0] for row in below.rows] == list(many["model"].values)
    assert {row[0]: row[1] for row in beside.rows}["network"] == "unet"
    assert below.rows[0][below.head.index("network")] == "unet"
