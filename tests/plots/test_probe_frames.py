"""Figures and frames of definitions, structure and connectivity, drawn from results that the probes made."""

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.kinds.registry import figures_of
from consistency_lab.networks.registry import build_network
from consistency_lab.plots import connectivity, definitions, probe_frames, structure
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.profiles import difficulty_correlations
from consistency_lab.probes.structure import probe_structure
from consistency_lab.studies.connectivity import probe_connectivity
from consistency_lab.training.train import train


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").split(1500, 200, seed=0)


def network(seed):
    net = build_network("mlp(width=16, depth=1)", (1, 8, 8), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return DiffusionModel(f"m{seed}", NetworkDenoiser(net, SCHEDULES.build("linear"), (1, 8, 8)).eval())


@pytest.fixture(scope="module")
def hard(digits):
    return probe_difficulty(network(0), digits[0], count=12, bins=6, detail=6)


@pytest.fixture(scope="module")
def levels(digits):
    return probe_structure([network(0), network(1)], digits[0], count=6, sampler=Sampler("ddim", 6), levels=5)


@pytest.fixture(scope="module")
def joined(digits):
    settings = {"network": "mlp(width=16, depth=1)", "batch": 32, "steps": 20, "device": "cpu", "progress": False}
    pair = [train(digits[0], seed=seed, **settings) for seed in (0, 1)]
    options = {"count": 6, "bins": 3, "points": 5, "samples": 6, "sampler": Sampler("ddim", 4)}
    return probe_connectivity(*pair, *digits, steps=5, **options)


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def test_every_definition_has_a_panel_with_its_curve_interval_and_peak(hard):
    figure, names = definitions.definitions([hard]), list(hard["definition"].values)
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in panels] == names
    for ax, name in zip(panels, names, strict=True):
        values = hard["profile"].sel(definition=name).values
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), values)
        assert len(ax.collections) == 1
        assert float(ax.lines[1].get_xdata()[0]) == float(hard["t"][int(np.argmax(values))])
    table = probe_frames.definitions(hard)
    assert len(table) == len(names) * hard.sizes["t"]
    assert list(table.columns) == ["definition", "unit", "t", "log_snr", "value", "low", "high"]


def test_agreement_writes_every_correlation(hard):
    table = difficulty_correlations(hard)
    texts = [text.get_text() for text in definitions.agreement(hard).axes[0].texts]
    shown = [float(text.replace("−", "-")) for text in texts[::2]]
    np.testing.assert_allclose(shown, table["rho"], atol=0.005001)


def test_structure_draws_what_is_known_and_whose_image_it_is(levels):
    figure = structure.structure(levels)
    bands, components, handoff, swap = figure.axes[:4]
    fixed = levels["fixed"].sel(model="m0")
    np.testing.assert_array_equal(lines(bands)["whole image"].get_ydata(), fixed.sel(part="mse"))
    np.testing.assert_array_equal(lines(components)["components 1 to 4"].get_ydata(), fixed.sel(part="pc-1-4"))
    drawn = lines(handoff)
    np.testing.assert_array_equal(drawn["m0 > m1: relative distance"].get_ydata(), levels["handoff_relative"][0])
    share = drawn["m1 > m0: share nearer to the second"].get_ydata()
    np.testing.assert_allclose(share, 1 - levels["handoff_nearer"][1])
    assert "m1: relative distance" in lines(swap)
    where = probe_frames.switches(levels)
    assert len(where) == 2 * levels.sizes["part"] + 2 + 2
    assert where["t"].iloc[-1] == float(levels["handoff_switch_t"][1])


def test_structure_of_one_model_says_what_a_handoff_needs(digits):
    ds = probe_structure(network(0), digits[0], count=4, sampler=Sampler("ddim", 4), levels=3)
    assert [text.get_text() for text in structure.structure(ds).axes[2].texts] == ["needs two models"]


def test_parts_of_the_image_say_what_they_are_whatever_they_are_called(levels):
    parts = probe_frames.parts(levels)
    assert parts["of"].value_counts().to_dict() == {"image": 1, "band": 4, "components": 3}
    assert parts["words"].tolist()[:2] == ["whole image", "band 0 to 0.125"]
    older = levels.drop_vars(["part_of", "part_first", "part_last"])
    older.attrs.pop("shape")
    assert probe_frames.parts(older).equals(parts)
    renamed = levels.assign_coords(part=[f"p{i}" for i in range(len(parts))])
    assert probe_frames.parts(renamed)[["of", "words"]].equals(parts[["of", "words"]])
    assert {"band 0 to 0.125", "whole image"} <= set(lines(structure.structure(renamed).axes[0]))


def test_connectivity_draws_each_path_and_its_barriers(joined):
    along, barriers = connectivity.connectivity(joined).axes[:2]
    for path in joined["path"].values:
        one = joined.sel(path=path)
        np.testing.assert_array_equal(lines(along)[path].get_ydata(), one["loss"])
        np.testing.assert_array_equal(lines(barriers)[path].get_ydata(), one["barrier_by_t"])
    assert probe_frames.barriers(joined)["value"].tolist() == joined["barrier"].values.tolist()


def test_results_of_these_kinds_are_drawn_by_name(hard, levels, joined):
    names = [name for ds in (hard, levels, joined) for name, _, _ in figures_of(ds)]
    assert names == ["curves", "definitions", "agreement", "levels", "paths"]
    with pytest.raises(UserError, match="kind 'structure', not 'connectivity'"):
        structure.structure(joined)
