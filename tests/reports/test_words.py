import json

from consistency_lab.reports import words


def test_only_what_is_recorded_is_said(results):
    ds = results.comparison(3, samples=12)
    said = dict(words.compared(ds, {"sampler": {"name": "ddim", "eta": 0.5}}))
    assert said == {"models": "3", "pairs": "3", "samples a model": "12", "sampler": "ddim, eta = 0.5"}


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
