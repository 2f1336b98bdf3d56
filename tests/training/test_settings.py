import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from consistency_lab.choices import Choice
from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError
from consistency_lab.model_kinds import kind_of
from consistency_lab.store.spec import content_hash
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import train

HASHES = [
    (TrainingSettings(), "0ee3b3c5fd0c"),
    (
        TrainingSettings.of(
            network="mlp(width=64, depth=2)",
            predicts="edm",
            timesteps="clts(center=0.3)",
            optimizer="sgd(momentum=0.5)",
            momentum="constant",
            seed=3,
            init_seed=7,
        ),
        "7edef67a60d6",
    ),
    (
        TrainingSettings.of(
            network="dit",
            schedule="flow",
            predicts="flow",
            objective="flow",
            timesteps="logit_normal",
            weighting="none",
        ),
        "25b6e4914cde",
    ),
    (
        TrainingSettings.of(
            network=" unet( width = 16 )",
            schedule="edm",
            weighting="edm(sigma_data=0.3)",
            timesteps="density(floor=0.1, values=[1.0, 0.5, 0.25], weighted=True)",
        ),
        "10bd822f0fdd",
    ),
    (
        TrainingSettings.of(
            timesteps="density(values=(1.0, 2, 3))", weighting="min-snr(gamma=5)", lr=1, optimizer="adamw"
        ),
        "eea3c9ca5dc0",
    ),
    (
        TrainingSettings.of(
            timesteps="loss_root(exponent=0.4, floor=0.1)", momentum="mdlrc", conditional=True, weighting="p2"
        ),
        "c415a7b3fdb4",
    ),
    (TrainingSettings.of(timesteps="speed", weighting="speed", momentum="demon_adam"), "291b4ffc5223"),
    (TrainingSettings.of(timesteps="beta(a=2.0, b=1)", weighting="edm"), "ec4f1ebc43e7"),
    (GANSettings(), "5307c8b7c2b6"),
    (GANSettings.of(generator="image(network='unet')", discriminator="conv(width=16)"), "05e8dcd7089c"),
    (GANSettings.of(generator="latent(latent=6)", optimizer="adam(beta1=0.5)"), "347a76dbc028"),
    (VAESettings(), "05affe76e275"),
    (VAESettings.of(autoencoder="conv(latent=4, width=8)", beta=0.2, precision="bfloat16"), "3e8fe0400378"),
]


def test_python_and_file_agree(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"network": "dit(depth=3)", "lr": 1, "seed": 2**40}))
    assert TrainingSettings.read(path) == TrainingSettings.of(network="dit(depth=3)", lr=1.0, seed=2**40)


def test_streams_follow_the_seed_unless_set():
    assert TrainingSettings(seed=3).seeds == {"init": 3, "order": 3, "noise": 3}
    assert TrainingSettings(seed=3, order_seed=0).seeds == {"init": 3, "order": 0, "noise": 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"netwrok": "unet"}, "Did you mean 'network'"),
        ({"steps": "10"}, "steps"),
        ({"steps": 0}, "above 0"),
        ({"lr": -1.0}, "above 0"),
        ({"lr": float("nan")}, "above 0"),
        ({"seed": -1}, "0 or more"),
        ({"steps": 1.5}, "steps"),
        ({"steps": 8.0}, r"steps: 8\.0 is not a whole number"),
        ({"lr": "fast"}, "lr: 'fast' is not a number"),
        ({"seed": 2**70}, r"seed must be a whole number from 0 to 2\^64 - 1, not 1180591620717411303424"),
        ({"init_seed": 2**64}, "init_seed must be a whole number from 0"),
        ({"steps": True}, "steps"),
        ({"precision": "float16"}, "precision"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TrainingSettings.of(**settings)


def test_numbers_of_numpy_are_taken_for_pythons():
    given = {"seed": np.int64(3), "steps": np.uint8(9), "lr": np.float32(0.5), "conditional": np.bool_(True)}
    settings = TrainingSettings.of(**given)
    assert settings == TrainingSettings.of(seed=3, steps=9, lr=0.5, conditional=True)
    assert [type(getattr(settings, key)) for key in given] == [int, int, float, bool]
    assert TrainingSettings.of(seed=2**64 - 1).seeds["init"] == 2**64 - 1


@pytest.mark.parametrize("content", ["[1]", "{", ""])
def test_files_that_hold_no_settings_are_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(UserError, match=r"s\.json"):
        TrainingSettings.read(tmp_path / "s.json")
    with pytest.raises(UserError, match="cannot read"):
        TrainingSettings.read(tmp_path / "missing.json")


@pytest.mark.parametrize("make", [TrainingSettings, TrainingSettings.of, TrainingSettings().replace])
def test_choices_are_objects_from_the_beginning(make):
    same = (
        "clts( width=0.2, center = 0.3 )",
        "clts(center=0.3, width=0.2)",
        {"name": "clts", "center": 0.3, "width": 0.2},
    )
    made = [make(timesteps=given) for given in same]
    assert all(isinstance(each.timesteps, Choice) and isinstance(each.network, Choice) for each in made)
    assert len(set(made)) == 1
    assert made[0].timesteps.options == {"center": 0.3, "width": 0.2}
    assert made[0].texts["timesteps"] == same[1]
    assert pickle.loads(pickle.dumps(made[0])) == made[0]
    with pytest.raises(UserError, match=r"unknown timestep sampler 'ctls'\. Did you mean 'clts'"):
        make(timesteps="ctls")
    with pytest.raises(UserError, match="Did you mean 'width'"):
        make(network="mlp(widht=3)")


def test_a_choice_is_parsed_once(monkeypatch):
    parsed = []
    original = Choice.parse.__func__

    def counted(cls, text):
        parsed.append(text) if isinstance(text, str) else None
        return original(cls, text)

    monkeypatch.setattr(Choice, "parse", classmethod(counted))
    settings = TrainingSettings.of(network="mlp(width=8)", timesteps="clts", steps=1, batch=4)
    assert parsed == ["mlp(width=8)", "clts"]
    images = load_images("digits").take(range(8), "few digits")
    parsed.clear()
    train(images, settings=settings, device="cpu", progress=False)
    assert parsed == []


def test_each_precision_is_another_spec():
    specs = [content_hash(TrainingSettings(precision=each).spec()) for each in ("float32", "tf32", "bfloat16")]
    assert specs[0] == content_hash(TrainingSettings().spec())
    assert len(set(specs)) == 3


def test_specs_hash_as_they_did():
    """The hashes of settings when choices were text; a run that a store holds is found by them."""
    images, cpu = load_images("digits"), torch.device("cpu")
    for settings, known in HASHES:
        kind = kind_of(settings)
        spec = kind.spec(images, settings, cpu)
        assert content_hash(spec)[:12] == known
        assert (
            content_hash(kind.spec(images, type(settings).from_spec(json.loads(json.dumps(spec))["settings"]), cpu))[
                :12
            ]
            == known
        )


def committed():
    root = Path(__file__).parents[2] / "figures"
    runs = {}
    for path in sorted(root.glob("**/*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            run = row.get("spec", {}).get("run")
            if isinstance(run, dict) and "timesteps" in run.get("settings", {}):
                runs[content_hash(run)] = run
    return list(runs.values())


def test_committed_specs_are_read_and_print_to_themselves():
    runs = committed()
    assert len(runs) > 50
    for run in runs:
        settings = TrainingSettings.from_spec(run["settings"])
        assert content_hash(settings.spec()) == content_hash(run["settings"])
        assert TrainingSettings.of(**settings.texts) == settings
