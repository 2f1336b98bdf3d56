"""What a probe looks at: a loss on data that never changes, of a model that is left as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from consistency_lab.choices import whole
from consistency_lab.data.imageset import ImageSet, check_set, check_shape
from consistency_lab.diffusion.loss import TwoStepLoss
from consistency_lab.diffusion.model import DiffusionModel, check_diffusion
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError

SampleLoss = Callable[..., Tensor]
"""``loss(model, *tensors) -> (B,)``."""


CHECKED = 64  # samples, at most, that are evaluated twice before a probe begins


class FrozenBatch:
    """Tensors that share their first dimension, fixed once and fingerprinted; for a diffusion model ``(x0, t, eps)``.

    Args:
        tensors: each ``(B, ...)``.
        chunk: samples that are evaluated together.
    """

    def __init__(self, tensors: Sequence[Tensor], chunk: int = 1024):
        if not tensors or not len(tensors[0]) or any(len(x) != len(tensors[0]) for x in tensors):
            raise UserError("a frozen batch needs tensors of one and the same length, at least 1.")
        self.tensors, self.chunk = tuple(tensors), chunk

    def __len__(self) -> int:
        return len(self.tensors[0])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over dtypes, shapes and contents."""
        digest = hashlib.sha256()
        for tensor in self.tensors:
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def losses(self, model: nn.Module, loss: SampleLoss) -> Tensor:
        """``(B,)``, evaluated chunk by chunk, always through the same chunks. Raises `UserError` for a loss that has been averaged."""
        return self._joined(loss(model, *parts) for parts in self._chunks())

    def asked(self, model: nn.Module, loss: SampleLoss) -> Callable[[], Tensor]:
        """`losses` as a function of the weights that the model then has: the first step of a `TwoStepLoss` is taken once, here."""
        if not isinstance(loss, TwoStepLoss):
            return partial(self.losses, model, loss)
        pieces = [loss.prepared(model, *parts) for parts in self._chunks()]
        return lambda: self._joined(piece() for piece in pieces)

    def _chunks(self) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(x.split(self.chunk) for x in self.tensors), strict=True)

    def _joined(self, found: Iterable[Tensor]) -> Tensor:
        pieces = list(found)
        if any(piece.dim() == 0 for piece in pieces) or sum(map(len, pieces)) != len(self):
            raise UserError(
                f"the loss of a probe must give one value per sample, ({len(self)},); do not average over the batch."
            )
        return torch.cat(pieces)


def frozen_grid(
    images: ImageSet, model: DiffusionModel, count: int, bins: int, seed: int = 0
) -> tuple[FrozenBatch, Tensor]:
    """The same images with the same noise at every time of a grid: ``(x0, t, eps)`` of ``bins * count`` samples, t major.

    For a class-conditional model the images' labels follow as a fourth tensor.

    Times are the centres of ``bins`` equal cells of ``[t_min, t_max]``. Noise comes from the ``"probe"`` stream, image i with noise i.

    Returns:
        the batch and its times ``(bins,)`` float64.

    Raises:
        UserError: something else than a diffusion model and an image set; images of another shape; more images than there are,
            or none; or a conditional model is probed on images without labels.
    """
    check_diffusion(model)
    check_set(images)
    check_shape(model.name, model.noise_shape, images)
    schedule, device = model.denoiser.schedule, model.device
    count, bins = whole("count", count), whole("bins", bins)
    if not 1 <= count <= len(images):
        raise UserError(
            f"a probe of {count} images was asked for, and {images.name!r} has {len(images)}; choose between 1 and that."
        )
    if bins < 1:
        raise UserError(f"a probe needs at least 1 noise level, not {bins}.")
    x0 = images.batch(range(count)).to(device)
    eps = SharedNoise(seed).draw(range(count), images.shape, stream="probe", device=device)
    width = (schedule.t_max - schedule.t_min) / bins
    times = schedule.t_min + (torch.arange(bins, dtype=torch.float64, device="cpu") + 0.5) * width
    repeated = [x0.repeat(bins, 1, 1, 1), times.repeat_interleave(count).to(device), eps.repeat(bins, 1, 1, 1)]
    if model.classes:
        if images.labels is None:
            raise UserError(
                f"{model.name!r} is class-conditional and {images.name!r} has no labels; probe it on a labelled set."
            )
        repeated.append(images.labels[:count].to(device).repeat(bins))
    # On the CPU what a network computes on the way should stay in the processor's cache; a GPU wants much at a time.
    chunk = min(512, max(64, 2**15 // x0[0].numel())) if device.type == "cpu" else 1024
    return FrozenBatch(repeated, chunk), times


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave the model bit-identical afterwards, whatever happens inside: weights, buffers, ``requires_grad``, gradients, mode."""
    tensors = [*model.parameters(), *model.buffers()]
    contents = [tensor.detach().clone() for tensor in tensors]
    flags = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, content in zip(tensors, contents, strict=True):
                tensor.copy_(content)
        for parameter, flag, grad in flags:
            parameter.requires_grad_(flag)
            parameter.grad = grad
        for module, mode in modes:
            module.training = mode


def check_deterministic(model: nn.Module, loss: SampleLoss, batch: FrozenBatch) -> None:
    """Refuse a loss that is not deterministic, before any time is spent on it.

    Some samples from all over the batch are evaluated twice, in the mode that the model is in. Dropout, and noise that the loss draws
    itself, show here.

    Raises:
        UserError: the two differ in any bit.
    """
    small = FrozenBatch([x[:: -(-len(batch) // CHECKED)] for x in batch.tensors], batch.chunk)
    with torch.no_grad():
        first, second = small.losses(model, loss), small.losses(model, loss)
    if not torch.equal(first, second):
        raise UserError(
            "the loss gives different values for the same model and batch: it draws random numbers (dropout, its own noise). "
            "Call model.eval(), and take noise from the frozen batch."
        )
