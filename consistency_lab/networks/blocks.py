"""What every network here is made of: the time (and class) embedding, attention, and the checks of what comes in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consistency_lab.errors import UserError

M = TypeVar("M", bound=nn.Module)


def zeroed(module: M) -> M:
    """The module with every parameter set to zero, for the last layer of a network or of a residual branch.

    A network whose last layer is zero predicts zero whatever comes in. So every architecture and every seed starts
    at the same loss (1 for unit-variance targets), with outputs of no arbitrary scale; gradients reach the last layer
    at the first step and the others from the second on. A residual block whose last layer is zero is the identity at
    first (Goyal et al. 2017; DiT).
    """
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def timestep_features(t: Tensor, count: int, *, cos_first: bool = False, shift: float = 0.0) -> Tensor:
    """Sinusoidal features of the timestep index ``1000 t - 1`` (Ho et al. 2020, after Vaswani et al. 2017).

    The index is 0..999 at the 1000 discrete steps t = 1/1000, ..., 1 of DDPM, and it is what diffusers' networks are
    given; any real t is fine. Frequencies fall geometrically from 1 to about 1/10000 radians an index.

    Args:
        t: (B,) times in [0, 1].
        count: number of features, even.
        cos_first: cosines before sines (``flip_sin_to_cos`` of diffusers).
        shift: ``freq_shift`` of diffusers: 1 makes the lowest frequency exactly 1/10000.

    Returns:
        (B, count), float32 or the type of ``t`` if that is wider.
    """
    dtype = torch.promote_types(t.dtype, torch.float32)
    half = count // 2
    exponent = -math.log(10_000) * torch.arange(half, dtype=dtype, device=t.device) / (half - shift)
    angle = (1000 * t.to(dtype) - 1)[:, None] * exponent.exp()
    waves = (angle.cos(), angle.sin()) if cos_first else (angle.sin(), angle.cos())
    return torch.cat(waves, dim=1)


class TimeEmbedding(nn.Module):
    """Time, and the label where there are classes, as one vector: sinusoids through an MLP, plus a learned row per label.

    Args:
        features: number of sinusoidal features, even.
        width: length of the vector.
        classes: number of labels; 0 makes an unconditional embedding.
        null_label: add a last row, index ``classes``, that stands for "no label": what ``cond=None`` uses, and what
            training may put in place of some labels for classifier-free guidance (Ho & Salimans 2022).
        cos_first, shift: as in `timestep_features`.

    Raises `UserError` for an odd or too small number of features.
    """

    def __init__(
        self,
        features: int,
        width: int,
        classes: int = 0,
        *,
        null_label: bool = True,
        cos_first: bool = False,
        shift: float = 0.0,
    ):
        super().__init__()
        if features % 2 or features // 2 <= shift:
            raise UserError(f"{features} time features cannot be made; use a width that is even and at least 4.")
        self.features, self.classes, self.null_label = features, classes, null_label
        self.cos_first, self.shift = cos_first, shift
        self.linear_1 = nn.Linear(features, width)
        self.linear_2 = nn.Linear(width, width)
        self.label = nn.Embedding(classes + null_label, width) if classes else None

    def parts(self, t: Tensor, cond: Tensor | None = None) -> list[Tensor]:
        """(B,) times in [0, 1] and (B,) labels or None -> [time (B, width)] or [time, label], before any activation."""
        waves = timestep_features(t, self.features, cos_first=self.cos_first, shift=self.shift)
        time = self.linear_2(F.silu(self.linear_1(waves.to(self.linear_1.weight.dtype))))
        if self.label is None:
            return [time]
        if cond is None:
            if not self.null_label:
                raise UserError("this network has no row for 'no label'; give cond, one label per image.")
            cond = torch.full_like(t, self.classes, dtype=torch.long)
        return [time, self.label(cond)]

    def forward(self, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The sum of `parts`: (B, width)."""
        time, *label = self.parts(t, cond)
        return time + label[0] if label else time


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens (B, N, width) -> (B, N, width), with biases and without dropout.

    `torch.nn.functional.scaled_dot_product_attention` picks the kernel. Second derivatives and forward-mode derivatives
    need the MATH kernel: ``with torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if heads < 1 or width % heads:
            raise UserError(
                f"a width of {width} cannot be split over {heads} heads; choose heads that divide the width."
            )
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        def split(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            split(self.query(tokens)), split(self.key(tokens)), split(self.value(tokens))
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class ImageNetwork(nn.Module):
    """The base of every network here: ``network(x, t, cond)`` -> a tensor shaped as x. It knows no noise schedule.

    Args:
        shape: (C, H, W) of the images.
        classes: number of labels; 0 for an unconditional network.

    Subclasses write `body`. Results for one image do not depend on the other images of the batch.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int = 0):
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(f"the image shape {tuple(shape)} is not usable; give (channels, height, width).")
        if classes < 0:
            raise UserError(f"{classes} classes were asked for; give 0 for a network without labels, or their number.")
        self.shape, self.classes = (int(shape[0]), int(shape[1]), int(shape[2])), int(classes)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, C, H, W) noisy images.
            t: (B,) times in [0, 1]; 0 is data, 1 is noise.
            cond: (B,) int64 labels, or None for "no label". The label ``classes`` means "no label" too.

        Returns:
            (B, C, H, W), whatever the network was trained to predict.

        Raises:
            UserError: images of another shape, times not (B,), labels for a network without classes, or a `body` that gives another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(
                f"this network takes images of shape {self.shape}, not {tuple(x.shape[1:])}; build one for that shape."
            )
        if t.shape != x.shape[:1]:
            raise UserError(f"t has shape {tuple(t.shape)} for {len(x)} images; give one time per image.")
        if cond is not None and not self.classes:
            raise UserError("labels were given to a network without classes; build it with classes, or give cond=None.")
        out = self.body(x, t, cond)
        if not isinstance(out, Tensor) or out.shape != x.shape:
            given = tuple(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise UserError(
                f"{type(self).__name__} was given images {tuple(x.shape)} and returned {given}; return a tensor shaped as they."
            )
        return out

    def body(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """The network itself; what comes in has been checked."""
        raise NotImplementedError


def require_multiple(shape: tuple[int, int, int], multiple: int, reason: str) -> None:
    """Raise a `UserError` that names the nearest sizes unless height and width are multiples of ``multiple``."""
    height, width = shape[1:]
    if height % multiple or width % multiple:
        low = max(multiple, min(height, width) // multiple * multiple)
        raise UserError(
            f"images of {height}x{width} do not fit: {reason}, so height and width must be multiples of {multiple} "
            f"(such as {low} or {low + multiple}); resize the images or choose other options."
        )


def require_sequences(**options: Sequence[float]) -> None:
    """Raise a `UserError` that names the first option that is not a list or tuple; note that ``(1)`` is a number."""
    for name, value in options.items():
        if not isinstance(value, list | tuple):
            raise UserError(f"{name}={value!r} is not a list; write {name}=({value!r},).")
