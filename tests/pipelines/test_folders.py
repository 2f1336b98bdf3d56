"""Folders of images as models: what is read, what is paired with what, and what is left out, by name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import consistency_lab as cl
from consistency_lab.addresses import OPENERS, open_foreign
from consistency_lab.cli import main
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.pipelines.contents import natural
from consistency_lab.pipelines.pairing import agreed
from consistency_lab.pipelines.recording_files import save_recording
from consistency_lab.store.results import load_result, provenance

NOISE = cl.SharedNoise(0)
EXIF = Image.Exif()
EXIF[0x0131] = "a program"  # with which a WebP file is of the extended kind


def pixels(seed, size=(16, 16), channels=3):
    array = np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)
    return array[..., 0] if channels == 1 else array


def write(folder, pictures, **options):
    """A folder of pictures by relative name; its path."""
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name, **options)
    return folder


def numbered(folder, count=6, start=0, ending="png", **options):
    return write(folder, {f"{i:03d}.{ending}": pixels(i + start) for i in range(count)}, **options)


def said(result):
    return " ".join(json.loads(result.attrs["warnings"]))


def test_images_are_read_as_image_sets_read_them(tmp_path):
    folder = numbered(tmp_path / "ref")
    model = cl.load_folder_model(folder, name="mine")
    assert (model.name, model.noise_shape, model.names) == ("mine", (3, 16, 16), tuple(f"{i:03d}" for i in range(6)))
    images = cl.load_images(folder)
    assert torch.equal(model.generate(NOISE, [4, 1]), images.batch([4, 1]))
    assert model.generate(NOISE, []).shape == (0, 3, 16, 16)
    assert open_foreign(f"images:{folder}?name=x").name == "x"
    assert "images" in OPENERS.names()
    with pytest.raises(UserError, match="no image 6; lower count"):
        model.generate(NOISE, [6])


@pytest.mark.parametrize(
    ("ending", "options", "kind"),
    [
        ("png", {}, ""),
        ("bmp", {}, ""),
        ("tiff", {}, ""),
        ("tiff", {"compression": "tiff_lzw"}, ""),
        ("tiff", {"compression": "jpeg"}, "TIFF"),
        ("jpg", {}, "JPEG"),
        ("webp", {"lossless": True}, ""),
        ("webp", {"lossless": True, "exif": EXIF}, ""),
        ("webp", {"quality": 100}, "WebP"),
        ("webp", {"quality": 50, "exif": EXIF}, "WebP"),
    ],
)
def test_kinds_of_files(tmp_path, ending, options, kind):
    """What a file is called lossy for is in the file, and so is what came back of the pixels."""
    plain, other = numbered(tmp_path / "ref"), numbered(tmp_path / "cand", ending=ending, **options)
    result = cl.compare([cl.load_folder_model(plain), cl.load_folder_model(other)], metrics=["mse"])
    sentence = f"cand: 6 of its 6 images are compressed lossily ({kind}): what that changed is part of every distance"
    assert (sentence in said(result)) == bool(kind)
    assert ("lossily" in said(result)) == bool(kind)
    assert (float(result["distance"].max()) == 0) == (not kind)


@pytest.mark.parametrize("lossless", [True, False])
def test_animated_webp_is_lossy_by_its_first_frame(tmp_path, lossless):
    write(tmp_path / "a", {"1.png": pixels(1)})
    frames = [Image.fromarray(pixels(i)) for i in range(2)]
    frames[0].save(tmp_path / "a" / "2.webp", save_all=True, append_images=frames[1:], lossless=lossless)
    notes = cl.load_folder_model(tmp_path / "a").notes
    assert notes[0] == "a: only the first frame or page of 1 of its files is used."
    assert ["a: 1 of its 2 images are compressed lossily (WebP)" in each for each in notes[1:]] == [True] * (
        not lossless
    )


def test_warnings_count_what_is_used_alone(tmp_path):
    """JPEG named PNG is JPEG; what is left out for its size or name is no part of any count."""
    folder = numbered(tmp_path / "a", 4)
    Image.fromarray(pixels(9)).save(folder / "named.png", format="JPEG")
    Image.fromarray(pixels(9, (8, 8))).save(folder / "small.jpg")
    Image.fromarray(pixels(9)).save(folder / "000.jpg")
    model = cl.load_folder_model(folder)
    assert model.names == ("001", "002", "003", "named")
    assert model.notes[0].startswith("a: 1 of its 4 images are compressed lossily (JPEG)")
    assert len(model.notes) == 2
    assert model.notes[1].startswith("a: 3 files left out")


def test_links_that_lead_nowhere_are_left_out_and_counted(tmp_path):
    folder = numbered(tmp_path / "a", 3)
    for name in ("lost.png", "lost.npy", "lost.txt"):
        (folder / name).symlink_to(tmp_path / "nowhere")
    model = cl.load_folder_model(folder)
    assert model.names == ("000", "001", "002")
    assert "2 files left out: lost.npy is a link that leads nowhere; lost.png is a link" in " ".join(model.notes)
    assert model.facts["left_out"] == 2
    with pytest.raises(UserError, match="which is not there; mend or remove it"):
        cl.load_images(folder)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_are_read_by_row_in_a_folder_and_by_themselves(tmp_path, ending):
    stack = np.stack([pixels(i) for i in range(5)])
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / f"part.{ending}"
    np.save(file, stack) if ending == "npy" else np.savez(file, images=stack)
    alone, inside = cl.load_folder_model(file), cl.load_folder_model(tmp_path / "in")
    assert alone.names == inside.names == ("0", "1", "2", "3", "4")
    wanted = torch.from_numpy(stack).movedim(3, 1).float() / 127.5 - 1
    for model in (alone, inside):
        assert torch.equal(model.generate(NOISE, range(5)), wanted)
    floats = tmp_path / "floats.npy"
    np.save(floats, stack / 255)
    with pytest.raises(UserError, match="say which are black and white"):
        cl.load_folder_model(floats)
    scaled = open_foreign(f"images:{floats}?range=0,1")
    assert torch.allclose(scaled.generate(NOISE, range(5)), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((0, 16, 16, 3)), r"holds no images: its array \(0, 16, 16, 3\) is empty"),
        (np.zeros((4, 0, 16, 3), np.uint8), "is empty"),
        (np.full((4, 8, 8, 3), np.nan), "every value in it is NaN"),
        (np.zeros((4, 3, 8, 8)), "images are \\(N, height, width, channels"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_arrays_without_images_are_refused_for_what_they_lack(tmp_path, array, reason):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=reason):
        cl.load_folder_model(tmp_path / "a.npy")


@pytest.mark.filterwarnings("error")
def test_an_image_of_nan_among_others_is_read(tmp_path):
    array = np.stack([pixels(i) for i in range(4)]) / 127.5 - 1
    array[2] = np.nan
    np.save(tmp_path / "a.npy", array)
    assert torch.isnan(cl.load_folder_model(tmp_path / "a.npy").generate(NOISE, range(4))).flatten(1).all(1).tolist() == [
        False, False, True, False,
    ]  # fmt: skip


def test_numbers_in_names_are_sorted_by_value():
    assert sorted(["a10", "a9", "b1", "a010b"], key=natural) == ["a9", "a10", "a010b", "b1"]


def test_pairs_are_agreed_by_name_whatever_the_order_and_the_rest_is_named(tmp_path):
    first = cl.load_folder_model(numbered(tmp_path / "ref", 8))
    second = cl.load_folder_model(write(tmp_path / "cand", {f"{i:03d}.png": pixels(i) for i in (9, 2, 5, 0, 7, 1)}))
    found = agreed([first, second], NOISE)
    assert sorted(found.names) == ["000", "001", "002", "005", "007"]
    a, b = (model.generate(NOISE, range(5)) for model in found.models)
    assert torch.equal(a, b)
    other = agreed([second, first], NOISE)
    assert other.names == found.names
    assert agreed([first, second], NOISE, 3).names == found.names[:3]
    assert agreed([first, second], cl.SharedNoise(1)).names != found.names
    result = cl.compare([first, second], metrics=["mse"])
    assert result["sample_name"].values.tolist() == list(found.names)
    assert "ref: 3 of its 8 images have no partner" in said(result)
    assert "cand: 1 of its 6 images have no partner of their name in every folder and are left out: 009." in said(
        result
    )


def test_folders_that_share_no_name_are_paired_by_order_and_say_so(tmp_path):
    first = cl.load_folder_model(write(tmp_path / "ref", {f"a{i}.png": pixels(i) for i in range(12)}))
    second = cl.load_folder_model(write(tmp_path / "cand", {f"b_{i}.png": pixels(i) for i in range(12)}))
    result = cl.compare([first, second], metrics=["mse"])
    assert float(result["distance"].max()) == 0
    assert "were paired by the sorted order of their names, of which they share none: a0, b_0 first" in said(result)
    fewer = cl.load_folder_model(write(tmp_path / "fewer", {f"c{i}.png": pixels(i) for i in range(11)}))
    with pytest.raises(UserError, match="hold unequally many images"):
        cl.compare([first, fewer])
    shifted = write(tmp_path / "shifted", {f"a{i + 1}.png": pixels(i) for i in range(12)})
    by_order = [cl.load_folder_model(each, order="sorted") for each in (tmp_path / "ref", shifted)]
    assert float(cl.compare(by_order, metrics=["mse"])["distance"].max()) == 0


def test_folders_that_all_names_lie_in_do_not_count(tmp_path):
    deep = write(tmp_path / "cand", {f"out/final/{i:03d}.png": pixels(i) for i in range(6)})
    found = agreed([cl.load_folder_model(numbered(tmp_path / "ref")), cl.load_folder_model(deep)], NOISE)
    assert len(found.names) == 6


def test_what_cannot_be_used_is_left_out_by_name(tmp_path):
    folder = numbered(tmp_path / "ref", 12)
    (folder / "000.png").write_bytes(b"")
    (folder / "001.png").write_bytes((folder / "002.png").read_bytes()[:200])
    Image.fromarray(np.dstack([pixels(3), np.full((16, 16), 9, np.uint8)])).save(folder / "003.png")
    Image.fromarray(np.full((16, 16), 9000, np.uint16)).save(folder / "004.png")
    Image.fromarray(pixels(5, (8, 16))).save(folder / "005.png")
    Image.fromarray(pixels(6)).save(folder / "006.jpg")
    Image.fromarray(np.dstack([pixels(7), np.full((16, 16), 255, np.uint8)])).save(folder / "007.png")  # opaque: used
    (folder / "notes.txt").write_text("of mine")
    model = cl.load_folder_model(folder)
    assert dict(model.contents.dropped).keys() == {
        "000.png",
        "001.png",
        "003.png",
        "004.png",
        "005.png",
        "006.jpg",
        "006.png",
    }
    reasons = dict(model.contents.dropped)
    for name, reason in {
        "000": "empty",
        "001": "damaged",
        "003": "transparent",
        "004": "16 bits",
        "005": "8x16",
    }.items():
        assert reason in reasons[f"{name}.png"]
    assert model.names == ("002", "007", "008", "009", "010", "011")
    assert torch.equal(model.generate(NOISE, [1])[0], torch.from_numpy(pixels(7)).movedim(2, 0).float() / 127.5 - 1)
    result = cl.compare([model, cl.load_folder_model(numbered(tmp_path / "cand", 12))], metrics=["mse"])
    assert result.sizes["sample"] == 6
    assert "ref: 7 files left out: 000.png" in said(result)
    assert "ref: left out 1 file (first notes.txt) of other kinds: 1 .txt." in said(result)
    assert provenance(result)["models"][0]["left_out"] == 7


def test_folders_of_other_sizes_are_refused_and_grey_ones_meet_colour(tmp_path):
    small = cl.load_folder_model(numbered(tmp_path / "ref"))
    large = cl.load_folder_model(write(tmp_path / "cand", {f"{i:03d}.png": pixels(i, (32, 16)) for i in range(6)}))
    with pytest.raises(UserError, match="'ref' are 16x16 and those of 'cand' 32x16"):
        cl.compare([small, large])
    grey = write(tmp_path / "grey", {f"{i:03d}.png": pixels(i, channels=1) for i in range(6)})
    coloured = write(tmp_path / "rgb", {f"{i:03d}.png": np.dstack([pixels(i, channels=1)] * 3) for i in range(6)})
    result = cl.compare([cl.load_folder_model(grey), cl.load_folder_model(coloured)], metrics=["mse"])
    assert float(result["distance"].max()) == 0
    assert "'grey': grey images beside those of 'rgb', which have 3 channels; they are read as 3 equal ones." in said(
        result
    )
    both = cl.compare([cl.load_folder_model(grey), cl.load_folder_model(grey, name="again")], metrics=["mse"])
    assert "equal ones" not in said(both)
    Image.fromarray(pixels(0, channels=1)).save(coloured / "000.png")
    mixed = cl.compare([cl.load_folder_model(coloured), cl.load_folder_model(coloured, name="again")], metrics=["mse"])
    assert "rgb: 1 of its 6 images are grey and are read as three equal channels" in said(mixed)


def test_folders_said_to_be_of_other_noise_are_not_compared(tmp_path):
    a, b = (cl.load_folder_model(numbered(tmp_path / name), noise_seed=k) for k, name in enumerate(("ref", "cand")))
    unknown = cl.load_folder_model(numbered(tmp_path / "unknown"))
    with pytest.raises(UserError, match=r"other noise are not compared \('ref' from seed 0 and 'cand' from seed 1\)"):
        cl.compare([a, unknown, b])
    assert cl.compare([a, unknown], cl.SharedNoise(5), metrics=["mse"]).sizes["sample"] == 6


def test_a_folder_meets_a_recording_of_the_same_noise_alone(tmp_path):
    """Either way round, and no reason speaks of a model that makes images."""
    pictures = np.stack([pixels(i) for i in range(6)])
    images = torch.from_numpy(pictures).movedim(3, 1)
    held = {"latents": torch.zeros(2, 6, 3, 16, 16), "images": images, "times": torch.tensor([1.0, 0.0])}
    for name, facts in (("told", {"noise_seed": 4}), ("other", {"noise_seed": 5}), ("silent", {})):
        save_recording(tmp_path / f"{name}.npz", held, {}, facts)
    told, other, silent = (
        cl.load_recording(tmp_path / f"{n}.npz", space="pixels") for n in ("told", "other", "silent")
    )
    folder = cl.load_folder_model(numbered(tmp_path / "ref"), noise_seed=4)
    result = cl.compare([folder, told], metrics=["mse"])
    assert float(result["distance"].max()) == 0  # bytes of a recording are bytes
    with pytest.raises(UserError, match=r"'ref' from seed 4 and 'other' from seed 5"):
        cl.compare([folder, other])
    with pytest.raises(
        UserError, match="'silent' is a recording: the noise of its images is not known, and 'ref' is a folder"
    ):
        cl.compare([folder, silent])
    nameless = cl.load_folder_model(tmp_path / "ref", name="nameless")
    with pytest.raises(
        UserError, match="'nameless' is a folder: the noise of its images is not known, and 'told' is a rec"
    ):
        cl.compare([told, nameless])


def test_one_folder_twice_is_no_finding(tmp_path):
    numbered(tmp_path / "ref"), numbered(tmp_path / "copy")
    models = [cl.load_folder_model(tmp_path / "ref", name=name) for name in "ab"]
    assert "'a' and 'b' are one and the same: what they agree in is no finding." in said(
        cl.compare(models, metrics=["mse"])
    )
    models[1] = cl.load_folder_model(tmp_path / "copy")  # of another's images: that they are equal is one
    assert "one and the same" not in said(cl.compare(models, metrics=["mse"]))


def test_sub_folders_are_labels_and_the_null_is_taken_within_them(tmp_path):
    def folder(name, noise):
        rng = np.random.default_rng(noise)
        pictures = {}
        for label, level in (("dark", 40), ("light", 200)):
            for i in range(6):
                own = np.random.default_rng(i).normal(0, 10, (16, 16, 3))
                pictures[f"{label}/{i}.png"] = np.clip(level + own + rng.normal(0, 3, own.shape), 0, 255).astype(
                    np.uint8
                )
        return cl.load_folder_model(write(tmp_path / name, pictures))

    result = cl.compare([folder("ref", 1), folder("cand", 2)], metrics=["mse"])
    names = [str(name).partition("/")[0] for name in result["sample_name"].values]
    assert [["dark", "light"][label] for label in result["label"].values] == names
    within, plain = (float(result[name].isel(pair=0, t=-1).mean()) for name in ("null", "plain_null"))
    assert plain > 10 * within
    a, b = (
        m.generate(NOISE, range(12)).double() for m in agreed([folder("ref2", 1), folder("cand2", 2)], NOISE).models
    )
    table = (a[:, None] - b[None]).pow(2).flatten(2).mean(2).numpy()
    same = np.equal.outer(names, names) & ~np.eye(12, dtype=bool)
    assert within == pytest.approx(table[same].mean(), rel=1e-5)


def test_a_label_with_one_image_gives_up_labels_with_a_word(tmp_path):
    pictures = {f"{'abc'[i // 3]}/{i}.png": pixels(i) for i in range(7)}
    models = [cl.load_folder_model(write(tmp_path / name, pictures)) for name in ("ref", "cand")]
    result = cl.compare(models, metrics=["mse"])
    assert "label" not in result.coords
    assert "1 of 3 sub-folders hold one image only (first c)" in said(result)


@pytest.fixture(scope="module")
def gaussian():
    return DiffusionModel("live", GaussianDenoiser.fit(cl.load_images("digits").all(), SCHEDULES.build("linear")))


def test_a_live_model_meets_a_folder_only_where_the_noise_is_said_to_be_the_same(tmp_path, gaussian):
    images = gaussian.generate(NOISE, range(8), "ddim(steps=5)")
    bytes_ = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()[:, 0]
    folder = write(tmp_path / "made", {f"sample_{i:04d}.png": each for i, each in enumerate(bytes_)})
    with pytest.raises(
        UserError, match="the noise of its images is not known, and 'live' makes its images from seed 0"
    ):
        cl.compare([gaussian, cl.load_folder_model(folder)], count=8)
    told = cl.load_folder_model(folder, noise_seed=0)
    result = cl.compare([gaussian, told], count=8, metrics=["mse"], sampler="ddim(steps=5)")
    clamped = (images.clamp(-1, 1) - images).pow(2).flatten(1).mean(1)
    assert float(result["distance"].max()) < float(clamped.max()) + 1e-4
    assert result["sample_name"].values[3] == "sample_0003"
    with pytest.raises(UserError, match="no image 8"):
        cl.compare([gaussian, told], count=9)
    with pytest.raises(UserError, match="said to be seed 0, and 'live' makes its images from seed 5"):
        cl.compare([gaussian, told], cl.SharedNoise(5), count=8)


def test_bad_folders_are_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"x")
    for text, match in {
        "images:nowhere": "there is no folder nowhere",
        f"images:{tmp_path / 'empty'}": "holds no images that can be used",
        f"images:{tmp_path / 'a.zip'}": "neither a folder of images nor",
        f"images:{numbered(tmp_path / 'x')}?order=random": "order='random' is not known",
        f"images:{tmp_path / 'x'}?clips=True": "lies in no sub-folder",
    }.items():
        with pytest.raises(UserError, match=match) as caught:
            open_foreign(text)
        assert len(str(caught.value).splitlines()) == 1


def test_the_command_line_compares_folders(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numbered(tmp_path / "ref", 10)
    numbered(tmp_path / "cand", 9)
    main(["compare", "images:ref", "images:cand", "--metrics", "mse", "--out", "out"])
    assert "consistency" in capsys.readouterr().out
    result = load_result(tmp_path / "out" / "results" / "comparison.nc")
    assert result.sizes["sample"] == 9
    assert (tmp_path / "out" / "report.html").is_file()
    main(["compare", "images:ref", "images:cand", "--dry-run"])
    assert "network_evaluations  0" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["compare", "gate"])
def test_two_folders_of_one_name_and_a_second_run_on_the_command_line(tmp_path, capsys, monkeypatch, command):
    """A dry run accepts what the run itself does, and refuses what it does not find."""
    monkeypatch.chdir(tmp_path)
    for place in ("run1", "run2", "run3"):
        numbered(tmp_path / place / "out", 16)
    for module in ("compare", "gate"):
        monkeypatch.setattr(f"consistency_lab.cli.{module}.write_results", lambda results, *_: made.append(results))
    made = []
    words = [command, "images:run1/out", "images:run2/out", "--again", "images:run3/out", "--device", "cpu", "--quiet"]
    assert main([*words, "--dry-run"]) == 0
    assert main(words) in (0, 1, 3)
    (result,) = made[0].values()
    named = [each["name"] for each in provenance(result)["models"]]
    if command == "compare":
        named.append(provenance(result)["again"]["name"])
    else:
        assert "out (run2) against out (run1)" in capsys.readouterr().out
    assert named == ["out (run1)", "out (run2)", "out (run3)"]
    for wrong, reason in {
        "images:run4/out": "there is no file or folder run4/out",
        "images:run1/out?foo=1": "unknown option of images 'foo'. Known: clips, noise_seed, order, range.",
        "images:run1/out?noise_seed=a": "noise_seed='a' of the kind of foreign model 'images' is not usable",
    }.items():
        words[1] = wrong
        assert main([*words, "--dry-run"]) == 2
        assert reason in capsys.readouterr().err
        assert main([*words, "--force"]) == 2


def test_copies_are_counted_between_pairs_of_one_name(tmp_path):
    first = cl.load_folder_model(numbered(tmp_path / "ref", 8))
    second = cl.load_folder_model(write(tmp_path / "cand", {f"{i:03d}.png": pixels(i) for i in (2, 5, 1, 0, 9)}))
    result = cl.measure_reproducibility([first, second], lambda images: images.flatten(1))
    assert result.sizes["sample"] == 4
    assert result["rp"].sel(threshold=0.6).item() == 1


# Clips, and what a page says


def clips(folder, seed, count=6, frames=3, spoil=0.0):
    """``clip_i/frame_0001.png``: a clip's frames are alike."""
    rng, pictures = np.random.default_rng(seed), {}
    for i in range(count):
        base = np.random.default_rng(i).normal(127, 40, (16, 16, 3))
        for frame in range(frames):
            moved = base + 10 * frame + spoil * rng.normal(size=base.shape)
            pictures[f"clip_{i}/frame_{frame + 1:04d}.png"] = np.clip(moved, 0, 255).astype(np.uint8)
    return write(folder, pictures)


@pytest.mark.parametrize("block", [None, 4])
def test_a_clip_is_one_sample_whose_distance_is_the_mean_over_its_frames(tmp_path, block):
    models = [
        cl.load_folder_model(clips(tmp_path / name, seed, 8, spoil=8)) for seed, name in enumerate(("ref", "cand"))
    ]
    assert repr(models[0]) == "FolderModel('ref', 8 clips of 3, 3x16x16)"
    result = cl.compare(models, metrics=["mse", "psnr"], block=block)
    assert result.sizes["sample"] == 8
    found = agreed(models, NOISE)
    a, b = (torch.stack([m.at(f).generate(NOISE, range(8)).double() for f in range(3)]) for m in found.models)
    table = (a[:, :, None] - b[:, None]).pow(2).flatten(3).mean(3).mean(0).numpy()  # same frame, averaged over frames
    last = result.isel(pair=0, t=0).sel(metric="mse")
    np.testing.assert_allclose(last["distance"], np.diag(table), rtol=1e-5)
    blocks = result["block"].values if block else np.zeros(8)
    other = np.equal.outer(blocks, blocks) & ~np.eye(8, dtype=bool)
    null = 0.5 * ((table * other).sum(1) + (table * other).sum(0)) / other.sum(1)
    np.testing.assert_allclose(last["null"], null, rtol=1e-5)
    assert provenance(result)["frames"] == 3
    # Taken for images of their own, frames of one clip would be each other's null, and more samples than there are.
    apart = [cl.load_folder_model(tmp_path / name, clips=False) for name in ("ref", "cand")]
    assert cl.compare(apart, metrics=["mse"]).sizes["sample"] == 24


def test_clips_of_other_lengths_are_compared_as_far_as_all_go(tmp_path):
    folder = clips(tmp_path / "ref", 0)
    for path in (folder / "clip_2" / "frame_0003.png", folder / "clip_0" / "frame_0003.png"):
        path.unlink()
    model, other = cl.load_folder_model(folder), cl.load_folder_model(clips(tmp_path / "cand", 1))
    assert model.frames == 2
    result = cl.compare([model, other], metrics=["mse"])
    assert provenance(result)["frames"] == 2
    assert "its clips have 2 to 3 frames; the first 2 of each are compared" in said(result)
    images = cl.load_folder_model(numbered(tmp_path / "images"))
    with pytest.raises(UserError, match="'ref' holds clips and 'images' images"):
        cl.compare([model, images])


def test_clips_do_not_meet_a_model_that_makes_images(tmp_path, gaussian):
    model = cl.load_folder_model(clips(tmp_path / "ref", 0), noise_seed=0)
    with pytest.raises(UserError, match="'ref' holds clips and 'live' makes images"):
        cl.compare([gaussian, model])


@pytest.mark.slow
def test_a_second_run_is_the_ceiling_on_the_command_line_and_on_the_page(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, spoil in (("ref", 0), ("cand", 20), ("again", 5)):
        rng = np.random.default_rng(spoil)
        write(
            tmp_path / name,
            {
                f"{i}.png": np.clip(pixels(i).astype(float) + spoil * rng.normal(size=(16, 16, 3)), 0, 255).astype(
                    np.uint8
                )
                for i in range(10)
            },
        )
    main(["compare", "images:ref", "images:cand", "--again", "images:again", "--metrics", "mse", "--out", "out"])
    assert "the first and its own second run (ceiling)" in capsys.readouterr().out
    result = load_result(tmp_path / "out" / "results" / "comparison.nc")
    assert float(result["ceiling_score"][0]) > float(result["family_score"].isel(t=-1, metric=0))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The ceiling is the first model against its own second run, again" in page
    assert "10 images of each of 2 folders were read" in page
    assert "nan" not in (tmp_path / "out" / "report.md").read_text()
