"""Recorded trajectories: what a file must hold, and what a comparison of two is."""

import json
import zipfile

import numpy as np
import pytest
import torch

import consistency_lab as cl
from consistency_lab.errors import UserError
from consistency_lab.pipelines.recording import as_image
from consistency_lab.pipelines.recording_files import load_recording, save_recording
from consistency_lab.store.checkpoint import save_tensors
from consistency_lab.store.results import provenance

SIGMAS = np.array([1.0, 0.75, 0.5, 0.25, 0.0])


def tensors(seed=0, steps=5, count=6, shape=(2, 4, 4), x0=True):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(steps, count, *shape, generator=generator)  # noqa: E731
    found = {"latents": draw(), "sigmas": torch.linspace(1, 0, steps).double()}
    found["alphas"] = 1 - found["sigmas"]
    return found | ({"x0": draw()} if x0 else {})


def write(path, held=None, facts=None, **said):
    save_recording(path, held or tensors(), said, facts or {})
    return path


def test_either_format_reads_the_same(tmp_path):
    one, other = (
        cl.load_recording(write(tmp_path / f"a.{kind}", names=list("abcdef"))) for kind in ("npz", "safetensors")
    )
    for quantity in ("latents", "x0"):
        made = one.estimates(range(6), range(5), quantity)
        assert torch.equal(made, other.estimates(range(6), range(5), quantity))
        assert torch.equal(made[:-1], tensors()[quantity][:-1])
        assert torch.equal(made[-1], tensors()["latents"][-1])  # data is its own x0
    assert one.names == other.names == tuple("abcdef")
    assert torch.equal(one.log_snr, other.log_snr)
    assert one.log_snr[2] == 0  # alpha = sigma
    assert one.log_snr[[0, -1]].tolist() == [-np.inf, np.inf]


def test_narrow_types_are_read_as_float32(tmp_path):
    held = tensors()
    for dtype in (torch.bfloat16, torch.float16):
        narrow = held | {name: held[name].to(dtype) for name in ("latents", "x0")}
        read = cl.load_recording(write(tmp_path / "narrow.safetensors", narrow)).estimates([4, 0], [1], "x0")
        assert read.dtype == torch.float32
        assert torch.equal(read[0], narrow["x0"][1, [4, 0]].float())


def test_times_alone_are_those_of_a_schedule(tmp_path):
    np.savez(tmp_path / "flow.npz", latents=np.zeros((3, 2, 1, 2, 2), np.float32), times=np.array([0.9, 0.5, 0.0]))
    flow = cl.load_recording(tmp_path / "flow.npz")
    assert flow.log_snr.tolist() == pytest.approx([2 * np.log(1 / 9), 0, np.inf])
    facts = json.dumps({"schedule": "linear"})
    np.savez(
        tmp_path / "l.npz", latents=np.zeros((3, 2, 1, 2, 2), np.float32), times=np.array([0.9, 0.5, 0.0]), facts=facts
    )
    linear = cl.load_recording(tmp_path / "l.npz")
    assert linear.log_snr[:2].tolist() == pytest.approx(
        cl.SCHEDULES.build("linear").log_snr(torch.tensor([0.9, 0.5])).tolist()
    )


def test_steps_from_data_to_noise_are_turned_and_of_equal_levels_the_last_is_kept(tmp_path):
    held = tensors()
    turned = {name: value.flip(0) for name, value in held.items()}
    assert torch.equal(
        cl.load_recording(write(tmp_path / "a.npz")).estimates(range(6), range(5), "x0"),
        cl.load_recording(write(tmp_path / "b.npz", turned)).estimates(range(6), range(5), "x0"),
    )
    twice = {name: value[[0, 1, 1, 2, 3, 4]].clone() for name, value in held.items()}
    twice["latents"][1] = 7.0  # a solver's first stage
    read = cl.load_recording(write(tmp_path / "c.npz", twice))
    assert torch.equal(read.estimates(range(6), range(5), "latents"), held["latents"])


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"latents": torch.zeros(3, 2)}, "needs latents"),
        ({"latents": torch.zeros(5, 2, 1)}, "does not say the noise levels"),
        ({"latents": torch.zeros(5, 2, 1), "sigmas": torch.ones(5)}, "sigmas without alphas"),
        ({"latents": torch.zeros(5, 2, 1), "times": torch.ones(4)}, "for 5 steps"),
        ({"latents": torch.zeros(2, 2, 1), "times": torch.tensor([1000.0, 500.0])}, "they lie in \\[0, 1\\]"),
        ({"latents": torch.zeros(3, 2, 1), "times": torch.tensor([0.5, 0.9, 0.1])}, "rise and fall"),
        ({"latents": torch.zeros(2, 2, 1), "times": torch.tensor([0.5, torch.nan])}, "not finite"),
        ({"latents": torch.zeros(2, 2, 3), "x0": torch.zeros(2, 2, 4), "times": torch.tensor([1.0, 0.0])}, "one shape"),
        (
            {"latents": torch.zeros(2, 2, 3), "images": torch.zeros(3, 1, 2, 2), "times": torch.tensor([1.0, 0.0])},
            "images",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, held, said):
    save_tensors(tmp_path / "bad.safetensors", held, {})
    with pytest.raises(UserError, match=said):
        cl.load_recording(tmp_path / "bad.safetensors")


def test_a_damaged_file_and_one_of_pickles_are_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    np.savez(tmp_path / "p.npz", latents=np.array([{"a": 1}], dtype=object))
    for name in ("a.safetensors", "p.npz"):
        with pytest.raises(UserError, match="truncated"):
            cl.load_recording(tmp_path / name)
    with pytest.raises(UserError, match="names"):
        write(tmp_path / "b.npz", names=["a"])
    assert not (tmp_path / "b.npz").exists()  # whole or not at all


def test_a_comparison_is_that_of_the_estimates(tmp_path):
    held = [tensors(seed) for seed in (0, 1)]
    a, b = (cl.load_recording(write(tmp_path / f"{k}.safetensors", each)) for k, each in enumerate(held))
    ds = cl.compare([a, b], metrics=("mse",))
    x0 = [torch.cat([each["x0"][:-1], each["latents"][-1:]]) for each in held]
    distance = (x0[0] - x0[1]).pow(2).flatten(2).mean(2)
    assert np.allclose(ds["distance"].values[0, ..., 0], distance, rtol=1e-6)
    others = torch.cdist(x0[0].flatten(2), x0[1].flatten(2)).pow(2) / 32
    null = (others.sum((1, 2)) - others.diagonal(dim1=1, dim2=2).sum(1)) / 30
    assert np.allclose(ds["null"].values[0, ..., 0].mean(1), null, rtol=1e-4)
    assert ds["t"].values == pytest.approx(SIGMAS)
    assert ds.attrs["quantity"] == "x0"
    swapped = cl.compare([b, a], metrics=("mse",))
    assert np.array_equal(swapped["distance"], ds["distance"])
    blocks = cl.compare([a, b], metrics=("mse",), block=4)
    assert np.array_equal(blocks["distance"], ds["distance"])
    assert cl.compare([a, a.__class__(**{**vars(a), "name": "again"})], metrics=("mse",))[
        "score"
    ].values == pytest.approx(1.0)


def test_without_x0_latents_are_compared_and_it_is_said(tmp_path):
    a = cl.load_recording(write(tmp_path / "a.npz"))
    b = cl.load_recording(write(tmp_path / "b.npz", tensors(1, x0=False)))
    ds = cl.compare([a, b], metrics=("mse",))
    distance = (tensors()["latents"] - tensors(1, x0=False)["latents"]).pow(2).flatten(2).mean(2)
    assert np.allclose(ds["distance"].values[0, ..., 0], distance, rtol=1e-6)
    assert ds.attrs["quantity"] == "latents"
    assert "the latents themselves are compared" in ds.attrs["warnings"]


def test_only_levels_in_common_are_compared(tmp_path):
    a = cl.load_recording(write(tmp_path / "a.npz"))
    b = cl.load_recording(write(tmp_path / "b.npz", tensors(1, steps=3)))
    ds = cl.compare([a, b], metrics=("mse",))
    assert ds["t"].values == pytest.approx([1, 0.5, 0])
    assert "3 noise levels that all have, of up to 5" in ds.attrs["warnings"]
    other = tensors(2, steps=2)
    other["sigmas"], other["alphas"] = torch.tensor([0.9, 0.4]), torch.tensor([0.1, 0.6])
    c = cl.load_recording(write(tmp_path / "c.npz", other))
    with pytest.raises(UserError, match="'a' and 'c' have no noise level in common"):
        cl.compare([a, c])


def test_samples_are_paired_by_name(tmp_path):
    held = tensors()
    order = [3, 0, 5, 1]
    part = {name: value[:, order] if value.ndim > 1 else value for name, value in held.items()}
    a = cl.load_recording(write(tmp_path / "a.npz", names=list("abcdef")))
    b = cl.load_recording(write(tmp_path / "b.npz", part, names=list("dafb")))
    ds = cl.compare([a, b], metrics=("mse",))
    assert list(ds["sample_name"].values) == list("abdf")
    assert float(ds["distance"].max()) == 0
    assert "2 of its 6 samples have no partner" in ds.attrs["warnings"]


def test_prompts_are_labels_and_must_be_the_same(tmp_path):
    prompts = ["cat", "dog"] * 3
    a, b = (cl.load_recording(write(tmp_path / f"{k}.npz", tensors(k), prompts=prompts)) for k in (0, 1))
    ds = cl.compare([a, b], metrics=("mse",))
    assert ds["label"].values.tolist() == [0, 1] * 3
    assert provenance(ds)["prompts or labels"] == ["cat", "dog"]
    assert not np.allclose(ds["null"], ds["plain_null"])
    c = cl.load_recording(write(tmp_path / "c.npz", tensors(2), prompts=["cat", "cow"] * 3))
    with pytest.raises(UserError, match=r"'c' was asked for 'cow' and '0' for 'dog' \(sample 1\)"):
        cl.compare([a, c])


def test_noise_must_be_the_same(tmp_path):
    a, b, c = (
        cl.load_recording(write(tmp_path / f"{k}.npz", tensors(k), facts={} if k == 2 else {"noise_seed": k}))
        for k in range(3)
    )
    with pytest.raises(UserError, match="other noise"):
        cl.compare([a, b])
    cl.compare([a, c], metrics=("mse",))
    live = cl.wrap_generator(lambda noise: noise, shape=(2, 4, 4), name="live")
    with pytest.raises(
        UserError, match="'2' is a recording: the noise of its images is not known, and 'live' makes its images"
    ):
        cl.compare([c, live], count=4)
    ds = cl.compare([a, live], count=4, metrics=("mse",))
    ends = tensors()["latents"][-1, :4] - cl.SharedNoise(0).initial(range(4), (2, 4, 4))
    assert np.allclose(ds["distance"].values[0, 0, :, 0], ends.pow(2).flatten(1).mean(1), rtol=1e-5)


def test_values_that_are_not_finite_are_left_out_by_name(tmp_path):
    held = tensors(1)
    held["x0"][2, 3] = torch.nan
    a, b = cl.load_recording(write(tmp_path / "a.npz")), cl.load_recording(write(tmp_path / "b.npz", held))
    ds = cl.compare([a, b], metrics=("mse",))
    assert ds["sample"].values.tolist() == [0, 1, 2, 4, 5]
    assert provenance(ds)["not_finite"] == [{"model": "b", "t": 0.5, "sample": 3}]


def test_parts_and_selections(tmp_path):
    first, second = tensors(0), tensors(1)
    paths = [write(tmp_path / "a.safetensors", first), write(tmp_path / "b.npz", second)]
    both = cl.load_recording(paths)
    expected = torch.cat([first["x0"], second["x0"]], 1)
    assert torch.equal(both.estimates([7, 2, 11], [1], "x0")[0], expected[1, [7, 2, 11]])
    assert torch.equal(both.of([9, 1]).estimates([0], [1], "x0")[0], expected[1, [9]])
    with pytest.raises(UserError, match="12 samples"):
        both.generate(cl.SharedNoise(0), [12])


def test_any_shape_is_an_image():
    assert as_image((3, 4, 5)) == (3, 4, 5)
    assert as_image((16, 64)) == (1, 16, 64)
    assert as_image((7,)) == (1, 1, 7)
    assert as_image((4, 5, 6, 7)) == (4, 30, 7)


def test_an_address_loads_one(tmp_path):
    write(tmp_path / "a.npz", tensors() | {"images": torch.zeros(6, 3, 2, 2)})
    model = cl.load(f"trajectory:{tmp_path / 'a.npz'}?name=mine")
    assert (model.name, model.noise_shape) == ("mine", (2, 4, 4))
    pixels = cl.load(f"trajectory:{tmp_path / 'a.npz'}?space=pixels")
    assert pixels.generate(cl.SharedNoise(0), range(2)).shape == (2, 3, 2, 2)
    with pytest.raises(UserError, match="space"):
        cl.load(f"trajectory:{tmp_path / 'a.npz'}?space=else")


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_bytes_of_images_are_bytes(tmp_path, kind):
    images = torch.randint(0, 256, (6, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    read = cl.load_recording(write(tmp_path / f"a.{kind}", tensors() | {"images": images}), space="pixels")
    assert torch.equal(read.generate(cl.SharedNoise(0), [4, 0]), images[[4, 0]].float() / 127.5 - 1)
    with pytest.raises(UserError, match=r"holds images of (int16|I16); write floats in \[-1, 1\], or bytes"):
        if kind == "npz":
            held = {name: value.numpy() for name, value in tensors().items()}
            np.savez(tmp_path / "b.npz", **held, images=images.short().numpy())
            cl.load_recording(tmp_path / "b.npz")
        write(tmp_path / "b.safetensors", tensors() | {"images": images.short()})


def labelled(path, labels, seed=0):
    return cl.load_recording(write(path, tensors(seed), {"noise_seed": 0}, labels=labels))


class Telling(torch.nn.Module):
    """Gives its label back: what it was asked for is in its images."""

    def forward(self, x, t, label):
        return torch.ones_like(x) * label[:, None, None, None]


@pytest.fixture
def live():
    options = {"schedule": "flow", "predicts": "x0", "time": "unit", "shape": (2, 4, 4), "classes": 10, "name": "live"}
    return cl.wrap_module(Telling(), **options, device="cpu")


@pytest.mark.parametrize("labels", [[4] * 6, [4, 7] * 3, [7, 4, 4, 7, 4, 4]])
def test_a_live_model_is_asked_for_the_labels_of_a_recording(tmp_path, live, labels):
    recorded = labelled(tmp_path / "a.npz", labels)
    ds = cl.compare([live, recorded], metrics=("mse",), sampler="ddim(steps=2)")
    told = torch.tensor(labels)[:, None, None, None] - tensors()["latents"][-1]
    assert np.allclose(ds["distance"].values[0, -1, :, 0], told.pow(2).flatten(1).mean(1), rtol=1e-4)
    assert ds["label"].values.tolist() == labels
    assert "asked for a label" not in ds.attrs["warnings"]
    same = cl.compare([recorded, live], metrics=("mse",), sampler="ddim(steps=2)", labels=labels)
    assert np.array_equal(same["distance"], ds["distance"])
    with pytest.raises(
        UserError, match=r"image \d of 'a' is made under the label \d, and 1 was asked for; leave labels out"
    ):
        cl.compare([live, recorded], labels=[1])


def test_a_gate_asks_the_live_model_for_the_labels_of_the_recording(tmp_path, live):
    labels = [4, 7] * 8
    recorded = cl.load_recording(write(tmp_path / "a.npz", tensors(count=16), {"noise_seed": 0}, labels=labels))
    result = cl.gate(recorded, live, at_least=0.1, count=16, sampler="ddim(steps=2)", early=False)
    assert result["label"].values.tolist() == [labels[i] for i in result["sample"].values]
    told = (
        torch.tensor(result["label"].values.tolist())[:, None, None, None]
        - tensors(count=16)["latents"][-1][result["sample"].values.tolist()]
    )
    assert np.allclose(result["distance"].sel(metric="mse"), told.pow(2).flatten(1).mean(1), rtol=1e-4)


def test_labels_of_a_recording_that_a_live_model_cannot_be_asked_for(tmp_path, live):
    with pytest.raises(UserError, match="the label 12 was asked for, and 'live' knows the labels 0 to 9"):
        cl.compare([live, labelled(tmp_path / "a.npz", [12] * 6)])
    with pytest.raises(UserError, match="the label 3 would have fewer than 2 of 6 images"):
        cl.compare([live, labelled(tmp_path / "b.npz", [1, 1, 1, 1, 1, 3])])
    silent = cl.load_recording(write(tmp_path / "c.npz", facts={"noise_seed": 0}))
    ds = cl.compare([live, silent], metrics=("mse",), sampler="ddim(steps=2)", count=4)
    assert "live: asked for a label, and c for none that is known" in ds.attrs["warnings"]


@pytest.mark.parametrize(
    "odd",
    [
        {"names": np.array(5)},
        {"facts": '{"schedule": 5, "x": 1}'},
        {"latents.txt": b"text"},
        {"labels": np.array([[1], [2]])},
    ],
)
def test_a_recording_that_holds_odd_things_is_named(tmp_path, odd):
    path = tmp_path / "engine.npz"
    arrays = {"latents": np.zeros((2, 2, 1, 4, 4), np.float32), "times": np.array([0.9, 0.1])}
    np.savez(path, **arrays, **{key: value for key, value in odd.items() if key != "latents.txt"})
    if "latents.txt" in odd:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("more.txt", odd["latents.txt"])
    with pytest.raises(UserError, match=r"engine\.npz"):
        load_recording(path)
