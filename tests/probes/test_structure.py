import numpy as np
import pytest
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.log_snr import align_pair, kept_points
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import ConstantDenoiser, GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.probes.explained_variance import Statistic, correlation, crossing, fixed_share
from consistency_lab.probes.handoff import course, handed_over, noise_swapped
from consistency_lab.probes.structure import probe_structure
from consistency_lab.store.results import load_result, save_result

SHAPE, FINE = (1, 4, 4), Sampler("heun", 300)
VARIANCES = torch.linspace(0.05, 0.8, 16, dtype=torch.float64)


def gaussian(name, variances, schedule="linear"):
    schedule = SCHEDULES.build(schedule)
    return DiffusionModel(name, GaussianDenoiser(torch.zeros(SHAPE), torch.diag(variances), schedule))


def white(variance, name="white", schedule="linear"):
    return gaussian(name, torch.full((16,), variance, dtype=torch.float64), schedule)


def pictures(count=50):
    values = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return ImageSet("pictures", values)


def walked(model, other, numbers, sampler=FINE, levels=6):
    """The course of ``model`` on the alignment that it shares with ``other``, and that alignment."""
    alignment, kept = (
        align_pair(model.denoiser.schedule, other.denoiser.schedule, sampler.steps),
        kept_points(sampler.steps, levels),
    )
    grids = (alignment.first, alignment.second)
    return course(model, SharedNoise(0).initial(numbers, SHAPE), numbers, sampler, grids[0], kept), grids, kept


def levels_of(model, grid, kept):
    return model.denoiser.schedule.noise_to_signal(grid[kept]).reshape(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("schedules", [("linear", "linear"), ("linear", "edm"), ("flow", "cosine")])
def test_a_handoff_between_gaussians_is_the_product_of_their_maps(schedules):
    # Each component follows y(s) = sqrt(v + s^2) / sqrt(v + s_T^2) y(s_T), with the v of whoever walks.
    a, b = gaussian("a", VARIANCES, schedules[0]), gaussian("b", VARIANCES.flip(0), schedules[1])
    first, grids, kept = walked(a, b, range(5))
    mixed = handed_over(first, b, FINE, grids[1], kept)
    s, (va, vb) = levels_of(a, grids[0], kept), (v.reshape(SHAPE) for v in (VARIANCES, VARIANCES.flip(0)))
    state = torch.sqrt((va + s**2) / (va + s[0] ** 2)) * first.y[0]
    assert torch.allclose(first.y, state, rtol=1e-2, atol=2e-3)
    assert torch.allclose(mixed, torch.sqrt(vb / (vb + s**2)) * state, rtol=1e-2, atol=2e-3)
    assert torch.equal(mixed[-1], first.y[-1])


def test_swapped_noise_between_gaussians_mixes_the_images_by_the_wiener_gain():
    # x0 = v / (v + s^2) y, so that component by component the image is v / (v + s^2) of image 1 and s^2 / (v + s^2) of image 2.
    model = gaussian("a", VARIANCES)
    one, grids, kept = walked(model, model, range(4))
    two, _, _ = walked(model, model, range(4, 8))
    mixed = noise_swapped(one, two, model, FINE, grids[0], kept)
    gain = VARIANCES.reshape(SHAPE) / (VARIANCES.reshape(SHAPE) + levels_of(model, grids[0], kept) ** 2)
    assert torch.allclose(mixed, gain * one.y[-1] + (1 - gain) * two.y[-1], atol=2e-3)


def network(seed, schedule="linear"):
    net = build_network("mlp(width=16, depth=1)", SHAPE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return DiffusionModel(f"m{seed}", NetworkDenoiser(net, SCHEDULES.build(schedule), SHAPE).eval())


@pytest.mark.parametrize("method", ["ddim", "heun"])
def test_a_model_that_hands_over_to_itself_makes_its_own_images(method):
    model, sampler = network(0), Sampler(method, 20)
    first, grids, kept = walked(model, model, range(6), sampler)
    mixed = handed_over(first, model, sampler, grids[0], kept)
    own = model.generate(SharedNoise(0), range(6), sampler).double()
    assert torch.allclose(mixed, own.expand_as(mixed), atol=1e-5)


def test_identical_models_cannot_be_told_apart_and_the_result_says_so():
    a, b = network(0), network(0)
    ds = probe_structure(
        [a, DiffusionModel("twin", b.denoiser)], pictures(), count=8, sampler=Sampler("ddim", 10), levels=5
    )
    assert np.isnan(ds["handoff_nearer"]).all()
    assert (ds["handoff_apart"] == 0).all()
    assert (ds["handoff_to_first"] < 1e-5).all()
    assert np.isfinite(ds["swap_nearer"]).all()


def test_the_curve_runs_from_the_second_models_image_to_the_firsts():
    ds = probe_structure([network(0), network(1)], pictures(), count=24, sampler=Sampler("ddim", 12), levels=5)
    for end, share in ((0, 0.0), (-1, 1.0)):
        np.testing.assert_allclose(ds["handoff_nearer"].isel(t=end), share)
        np.testing.assert_allclose(ds["handoff_relative"].isel(t=end), 1 - share, atol=1e-4)
    assert (ds["handoff_nearer_low"] <= ds["handoff_nearer"]).all()
    assert (ds["handoff_relative_low"] <= ds["handoff_relative"]).all()
    inside = (ds["handoff_switch_t_low"] <= ds["handoff_switch_t"]) & (
        ds["handoff_switch_t"] <= ds["handoff_switch_t_high"]
    )
    assert inside.all()


def test_a_white_gaussians_structure_is_its_formula():
    # One gain g(s) = sqrt(v / (v + s^2)) for all pixels: the estimate is g times the image. Swapped: v / (v + s^2) of image 1.
    v, n = 0.3, 40
    ds = probe_structure(white(v), pictures(), count=n, sampler=FINE, levels=9)
    s2 = SCHEDULES.build("linear").noise_to_signal(torch.tensor(ds["t"].values)).numpy() ** 2
    gain = np.sqrt(v / (v + s2))
    for part in ds["part"].values[:3]:
        np.testing.assert_allclose(ds["correlation"].sel(part=part).values[0], 1.0, atol=1e-3)
    final = white(v).generate(SharedNoise(0), range(n), FINE).double().flatten(1)
    scale = final.pow(2).sum(1).mean() / final.var(0).sum()
    expected = 1 - (1 - gain) ** 2 * float(scale)
    np.testing.assert_allclose(ds["fixed"].sel(part="mse").values[0], expected, atol=5e-3)
    assert (ds["fixed_low"].values <= ds["fixed"].values + 1e-12).all()
    np.testing.assert_allclose(ds["swap_relative"].values[0], s2 / (v + s2), atol=5e-3)
    at = float(SCHEDULES.build("linear").time_from_log_snr(-np.log(v)))  # s^2 = v: half of each
    assert float(ds["swap_switch_t"].values[0]) == pytest.approx(at, abs=0.03)  # linear between two of nine levels


def test_bands_and_components_are_parts_of_the_whole(tmp_path):
    digits = load_images("digits")
    model = DiffusionModel("g", GaussianDenoiser.fit(digits.all(), SCHEDULES.build("linear")))
    ds = probe_structure(model, digits, count=12, sampler=Sampler("ddim", 10), levels=4)
    names = [str(name) for name in ds["part"].values]
    assert names[0] == "mse"
    assert [n for n in names if n.startswith("pc")] == ["pc-1-4", "pc-5-16", "pc-17-64"]
    assert len([n for n in names if n.startswith("band")]) == 4
    assert ds.sizes["model"] == 1
    assert "handoff" not in ds.coords
    save_result(ds, tmp_path / "s.nc")
    assert load_result(tmp_path / "s.nc").identical(ds)


def brute(function, estimates, final):
    keep = [np.delete(np.arange(len(final)), i) for i in range(len(final))]
    return np.stack([function(estimates[:, k], final[k]).estimate for k in keep])


@pytest.mark.parametrize("function", [fixed_share, correlation])
def test_leaving_one_sample_out_in_closed_form_is_leaving_it_out(function):
    generator = torch.Generator().manual_seed(0)
    final = torch.randn(9, 5, generator=generator, dtype=torch.float64) + 1
    estimates = 0.5 * final + torch.randn(3, 9, 5, generator=generator, dtype=torch.float64)
    np.testing.assert_allclose(function(estimates, final).without, brute(function, estimates, final), rtol=1e-10)


def test_shares_and_correlations_of_known_estimates():
    final = torch.randn(400, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = final.roll(1, 0)
    estimates = torch.stack([final, final.mean(0).expand_as(final), other, final + 10])
    share, alike = fixed_share(estimates, final).estimate, correlation(estimates, final).estimate
    np.testing.assert_allclose(share[:3], [1.0, 0.0, -1.0], atol=0.08)
    assert share[3] < -50
    np.testing.assert_allclose(alike[[0, 2, 3]], [1.0, 0.0, 1.0], atol=0.06)
    assert np.isnan(alike[1])
    assert np.isnan(fixed_share(torch.ones(1, 5, 2), torch.ones(5, 2)).estimate).all()


def test_a_crossing_is_found_where_it_was_planted():
    times = np.array([1.0, 0.8, 0.4, 0.0])
    curve = np.array([-3.0, 0.25, 0.75, 1.0])
    found = crossing(times, Statistic(curve, np.stack([curve] * 5)))
    assert found.estimate == pytest.approx(0.6)
    assert found.low == pytest.approx(0.6)
    assert np.isnan(crossing(times, Statistic(curve * 0.4, np.stack([curve * 0.4] * 5))).estimate)


def test_what_cannot_be_handed_over_is_refused():
    model = white(0.3)
    for sampler in ("ancestral", "dpm++2m"):
        with pytest.raises(UserError, match="use ddim or heun"):
            probe_structure(model, pictures(), sampler=Sampler(sampler, 10))
    with pytest.raises(UserError, match="name of its own"):
        probe_structure([model, model], pictures())
    with pytest.raises(UserError, match="makes images of"):
        probe_structure(model, load_images("digits"))
    with pytest.raises(UserError, match="at least 3 samples"):
        probe_structure(model, pictures(), count=2)
    labelled = DiffusionModel("labelled", model.denoiser, classes=10)
    with pytest.raises(UserError, match="different labels"):
        probe_structure([model, labelled], pictures())


def test_partners_of_a_labelled_model_ask_for_the_same_label():
    class Seen(ConstantDenoiser):
        labels = ()

        def predict(self, x_t, t, alpha, sigma, cond):
            Seen.labels += (tuple(cond.tolist()),)
            return super().predict(x_t, t, alpha, sigma, cond)

    model = DiffusionModel("labelled", Seen(torch.zeros(SHAPE), SCHEDULES.build("linear")), classes=10)
    probe_structure(model, pictures(), count=4, sampler=Sampler("ddim", 4), levels=3)
    assert set(Seen.labels) == {(0, 1, 2, 3)}


def test_the_interval_of_a_fixed_share_covers_the_truth():
    # estimate = g final + noise of variance q, final of variance 1: the share is 1 - (1 - g)^2 - q.
    generator, hits = torch.Generator().manual_seed(0), []
    for _ in range(400):
        final = torch.randn(48, 8, generator=generator, dtype=torch.float64)
        estimate = 0.7 * final + 0.2 * torch.randn(48, 8, generator=generator, dtype=torch.float64)
        ends = fixed_share(estimate[None], final).interval
        hits.append(float(ends.low[0]) <= 1 - 0.09 - 0.04 <= float(ends.high[0]))
    assert 0.92 < np.mean(hits) < 0.99


def test_models_on_other_schedules_hand_over_at_equal_noise():
    a, b = gaussian("a", VARIANCES, "linear"), gaussian("b", VARIANCES.flip(0), "edm")
    ds = probe_structure([a, b], pictures(), count=6, sampler=Sampler("heun", 40), levels=5)
    np.testing.assert_allclose(ds["handoff_relative"].isel(t=0), 1.0, atol=1e-3)
    np.testing.assert_allclose(ds["handoff_relative"].isel(t=-1), 0.0, atol=1e-3)
    assert list(ds["handoff"].values) == ["a > b", "b > a"]


def test_order_and_company_change_no_handoff():
    a, b, c = (
        gaussian(n, v, k)
        for n, v, k in (("a", VARIANCES, "linear"), ("b", VARIANCES.flip(0), "edm"), ("c", VARIANCES, "flow"))
    )
    options = {"count": 6, "sampler": Sampler("heun", 20), "levels": 5}
    alone = probe_structure([a, b], pictures(), **options)
    for models in ([b, a], [c, b, a]):
        other = probe_structure(models, pictures(), **options)
        for name, chosen in (
            ("handoff_relative", {"handoff": "a > b"}),
            ("handoff_switch_t", {"handoff": "a > b"}),
            ("handoff_log_snr", {"handoff": "a > b"}),
            ("fixed", {"model": "b"}),
            ("swap_switch_t", {"model": "a"}),
            ("model_log_snr", {"model": "b"}),
        ):
            np.testing.assert_array_equal(alone[name].sel(chosen), other[name].sel(chosen))
