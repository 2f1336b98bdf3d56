"""All models evaluated on the same states: do their functions agree, apart from where their own trajectories take them?

Along its own trajectory a model sees states that its earlier answers produced. Here every model is given x0 + s eps, the same for all,
rescaled by each schedule's alpha; what differs is the function alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring, plain_defaults
from consistency_lab.diffusion.denoiser import per_sample
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, chunks, described
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.metrics.distances import METRICS, Distance
from consistency_lab.similarity.labels import agreed_labels, labels_of
from consistency_lab.similarity.pairwise import add_pairs, coordinates, kinds_of_interval
from consistency_lab.similarity.robust import add_robust
from consistency_lab.similarity.trajectories import Trajectories, meetings
from consistency_lab.store.results import with_provenance


@plain_defaults()
def compare_frozen(
    models: Sequence[DiffusionModel],
    images: ImageSet,
    noise: SharedNoise | None = None,
    *,
    count: int = 256,
    metrics: Sequence[str | Distance] = ("mse", "cosine"),
    levels: int = 14,
) -> xr.Dataset:
    """How alike are the x0 estimates of models given the same noisy images?

    The null is the distance of one model's answer to another's answer about another noisy image, so that a score of 0 means no more
    alike than answers about different states. At high noise every good denoiser answers with the data mean, for every state: the
    null vanishes and the score says little there; the distances do.

    Args:
        models: two or more of one image shape. Two of different schedules are compared at equal log-SNR, on the alignment of their pair.
        images: whose first ``count`` are made noisy.
        noise: of the states, from its ``"probe"`` stream; ``SharedNoise(0)`` by default.
        count: states at each level.
        metrics: distances, by name or as objects.
        levels: noise levels, from high to low.

    Returns:
        ``distance``, ``null`` and scores as in a comparison, along ``t`` of the pairs' alignments; kind ``"frozen comparison"``.

    Raises:
        UserError: fewer than two models or states, too few images, shapes or schedules that share no noise level.
    """
    noise = noise or SharedNoise(0)
    if len(models) < 2 or any(m.noise_shape != images.shape for m in models):
        raise UserError(
            f"a frozen comparison needs two or more models of {images.shape} images, the shape of {images.name!r}."
        )
    if not 2 <= count <= len(images):
        raise UserError(
            f"{count} states were asked for and {images.name!r} has {len(images)} images; choose between 2 and that."
        )
    distances = [metric if isinstance(metric, Distance) else METRICS.build(metric) for metric in metrics]
    x0, eps = images.batch(torch.arange(count)), noise.draw(range(count), images.shape, stream="probe")
    asked = agreed_labels(models, count)

    def answers(model: GenerativeModel, grid: Tensor) -> Trajectories:
        assert isinstance(model, DiffusionModel)
        return Trajectories(model.name, _answers(model, x0, eps, grid[:-1], asked))

    walks = meetings(models, levels, torch.arange(levels), answers)
    result = xr.Dataset(coords=coordinates([m.name for m in models], distances))
    t, log_snr = walks.axis
    result.coords["t"], result.coords["log_snr"] = t, ("t", log_snr)
    add_pairs(result, walks, distances, None if asked is None else labels_of(range(count), asked))
    add_robust(result, distances)
    result.attrs.update(kinds_of_interval(len(models)))
    return with_provenance(
        result,
        "frozen comparison",
        choices=("metric", "t"),
        models=[described(model) for model in models],
        samples=count,
        noise_seed=noise.seed,
        images={"name": images.name, "fingerprint": images.fingerprint, "used": count},
        device=str(models[0].device),
    )


@torch.no_grad()
def _answers(model: DiffusionModel, x0: Tensor, eps: Tensor, times: Tensor, asked: tuple[int, ...] | None) -> Tensor:
    """The model's x0 estimates at ``x0 + s eps``: ``(T, N, C, H, W)``."""
    schedule, dtype = model.denoiser.schedule, next((p.dtype for p in model.denoiser.parameters()), torch.float64)
    rows = []
    with measuring():
        for t in times.tolist():
            state = x0.double() + per_sample(schedule.noise_to_signal(t), eps.double()) * eps.double()
            state = (per_sample(schedule.alpha(t), state) * state).to(model.device, dtype)
            parts = []
            for chunk in chunks(range(len(x0))):
                index = torch.tensor(list(chunk), device=model.device)
                parts.append(model.denoiser(state[index], t, model.labels(chunk, asked)).x0.float().cpu())
            rows.append(torch.cat(parts))
    return torch.stack(rows)


def drift(along: xr.Dataset, frozen: xr.Dataset, metric: str = "mse") -> xr.DataArray:
    """Share of the distance along own trajectories that the functions alone do not make: 1 - frozen / along, per pair and noise level.

    The frozen distances are interpolated in log-SNR to the levels at which the pair met in the comparison: NaN at levels outside theirs,
    and levels that are outside for every pair are left out.
    """
    own = along["distance"].sel(metric=metric).mean("sample").transpose("pair", "t")
    still = frozen["distance"].sel(metric=metric).mean("sample").transpose("pair", "t")
    met, shown = (x["pair_log_snr"].transpose("pair", "t").values for x in (along, frozen))
    rows = [
        np.interp(at, levels, row, left=np.nan, right=np.nan)  # log-SNR rises along t
        for at, levels, row in zip(met, shown, still.values, strict=True)
    ]
    share = 1 - xr.DataArray(np.array(rows), dims=("pair", "t"), coords=own.coords) / own
    return share.dropna("t", how="all")
