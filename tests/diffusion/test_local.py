import pytest
import torch

from consistency_lab.diffusion.local import LocalDenoiser
from consistency_lab.diffusion.optimal import OptimalDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError

SHAPE = (2, 5, 4)


def images(n=13):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def states(schedule, n=3):
    x = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.linspace(0.3, 0.9, n, dtype=torch.float64)


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("side", [1, 3, 5])
def test_it_equals_brute_force_at_every_pixel(name, side, monkeypatch):
    schedule, data = SCHEDULES.build(name), images()
    x, t = states(schedule)
    answer = LocalDenoiser(data, schedule, window=side)(x, t).x0
    reach = side // 2
    for b in range(len(x)):
        y, s = x[b] / schedule.alpha(t[b]), schedule.noise_to_signal(t[b])
        for i in range(SHAPE[1]):
            for j in range(SHAPE[2]):
                window = (slice(None), slice(max(0, i - reach), i + reach + 1), slice(max(0, j - reach), j + reach + 1))
                fit = torch.stack([(y[window] - image[window].double()).pow(2).sum() for image in data])
                weights = torch.softmax(-fit / (2 * s**2), 0)
                assert torch.allclose(
                    answer[b, :, i, j], (weights[:, None] * data[:, :, i, j].double()).sum(0), atol=1e-9
                )
    monkeypatch.setattr("consistency_lab.diffusion.local._CACHED", 3 * 20 * 4)
    monkeypatch.setattr("consistency_lab.diffusion.local._STATES", 2)
    assert torch.allclose(LocalDenoiser(data, schedule, window=side)(x, t).x0, answer, atol=1e-12)


def test_a_window_of_the_whole_image_is_the_optimal_denoiser():
    schedule = SCHEDULES.build("linear")
    x, t = states(schedule)
    assert torch.allclose(
        LocalDenoiser(images(), schedule, window=11)(x, t).x0, OptimalDenoiser(images(), schedule)(x, t).x0, atol=1e-9
    )


def test_windows_may_follow_the_noise_level():
    schedule = SCHEDULES.build("linear")
    x, t = states(schedule)
    levels = schedule.log_snr(t).tolist()
    mixed = LocalDenoiser(images(), schedule, window=[(-100.0, 5), (levels[1] - 0.1, 3)])
    assert [mixed.side(level) for level in levels] == [3, 3, 5]
    assert mixed.side(-1000.0) == 5
    answers = mixed(x, t).x0
    for row, side in enumerate((3, 3, 5)):
        assert torch.allclose(answers[row], LocalDenoiser(images(), schedule, window=side)(x, t).x0[row], atol=1e-12)


@pytest.mark.parametrize("window", [0, 2, -1, [], [(0.0, 4)]])
def test_impossible_windows_are_refused(window):
    with pytest.raises(UserError, match="odd side"):
        LocalDenoiser(images(), SCHEDULES.build("linear"), window=window)
