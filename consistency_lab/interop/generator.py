"""Any function from noise to images, as a model to compare: a GAN, a flow, a one-step model, another package's pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from consistency_lab.devices import measuring, resolve_device
from consistency_lab.diffusion.model import as_image_tensor, chunks, model_table
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError, short
from consistency_lab.interop.units import OURS, Range, check_value_range, to_ours

_SAME = 1e-3  # of the image range: batched kernels round otherwise, and that is far below
_BEYOND = 8.0  # half-widths of the declared range; what overshoots by more is in other units


@dataclass(frozen=True, eq=False)
class Generator:
    """A `GenerativeModel` (see `consistency_lab.diffusion.model`) out of a function; `wrap_generator` makes it."""

    name: str
    make: Callable[[Tensor], Any]
    shape: tuple[int, int, int]
    noise_shape: tuple[int, ...]
    value_range: Range
    channels_last: bool
    device: torch.device
    facts: Mapping[str, Any] = field(default_factory=dict)

    def generate(self, noise: SharedNoise, indices: Sequence[int]) -> Tensor:
        """The images of those indices ``(N, C, H, W)``, float32 in [-1, 1] on the CPU, computed `CHUNK` at a time."""
        images = [self.of(noise.initial(chunk, self.noise_shape, self.device)) for chunk in chunks(indices)]
        return torch.cat(images) if images else torch.empty(0, *self.shape)

    def of(self, noise: Tensor) -> Tensor:
        """The images of that noise ``(B, *noise_shape)``. Raises `UserError` for others than were declared."""
        with measuring(), torch.no_grad():
            images = as_image_tensor(self.make(noise), self.name)
        count, (channels, height, width) = len(noise), self.shape
        wanted = (count, height, width, channels) if self.channels_last else (count, channels, height, width)
        if tuple(images.shape) != wanted:
            raise UserError(
                f"{self.name!r} made {tuple(images.shape)} from {count} noises where {wanted} was expected{self._other(images)}."
            )
        if not images.isfinite().all():
            bad = int((~images.isfinite().flatten(1).all(1)).nonzero()[0])
            raise UserError(
                f"{self.name!r} made values that are not finite, first in image {bad} of {count}; check its weights."
            )
        images = to_ours(images.movedim(3, 1) if self.channels_last else images, self.value_range)
        low, high = (float(x) for x in images.aminmax()) if images.numel() else (0.0, 0.0)
        if max(-low, high) > _BEYOND:
            own = [(x * (self.value_range[1] - self.value_range[0]) + sum(self.value_range)) / 2 for x in (low, high)]
            raise UserError(
                f"{self.name!r} made values from {own[0]:.4g} to {own[1]:.4g}, which are no images in {self.value_range}; give value_range="
                "(lo, hi), for example (0, 255)."
            )
        return images.contiguous()

    def _other(self, images: Tensor) -> str:
        """What to declare instead, where the other order of axes or the other number of images fits."""
        count, (channels, height, width) = len(images), self.shape
        if tuple(images.shape) == (count, height, width, channels):
            return "; declare channels_last=True"
        if tuple(images.shape) == (count, channels, height, width):
            return "; leave channels_last out" if self.channels_last else "; make one image of each noise"
        return "; check shape"

    def __repr__(self) -> str:
        return f"Generator({self.name!r}, {self.noise_shape} -> {'x'.join(map(str, self.shape))})"

    def _repr_html_(self) -> str:
        return model_table("Generator", self)


def wrap_generator(
    make: Callable[[Tensor], Any],
    *,
    shape: tuple[int, int, int],
    name: str,
    noise_shape: Sequence[int] | None = None,
    value_range: tuple[float, float] = OURS,
    channels_last: bool = False,
    device: str | torch.device | None = None,
    facts: dict[str, Any] | None = None,
) -> Generator:
    """A model out of any function from noise to images.

    >>> import torch
    >>> from consistency_lab.interop.generator import wrap_generator
    >>> def squash(noise):                                       # (B, 64) -> (B, 8, 8, 1), a numpy array in [0, 1]
    ...     return torch.sigmoid(noise).reshape(-1, 8, 8, 1).numpy()
    >>> wrap_generator(
    ...     squash, shape=(1, 8, 8), noise_shape=(64,), value_range=(0, 1), channels_last=True, name="squash"
    ... )
    Generator('squash', (64,) -> 1x8x8)

    It is asked once for two images, together and alone.

    Args:
        make: from standard normal noise ``(B, *noise_shape)``, float32, to B images: a tensor of any type on any device, or an
            array. A torch module is put in eval mode, and not copied. All its randomness must come from that noise.
        shape: (C, H, W) of the images.
        name: how tables call it.
        noise_shape: of one noise; that of the images by default.
        value_range: which of its values are black and white: (0, 1), or (0, 255) for uint8.
        channels_last: its images are ``(B, H, W, C)``.
        device: where it is given the noise; by default where the module's weights are, or the CPU.
        facts: more provenance for results; JSON types.

    Raises:
        UserError: something that cannot be called, or that makes images of another shape, number or range than was said, values
            that are not finite, other images each time, or an image that depends on the other noises.
    """
    if not callable(make):
        raise UserError(f"a {type(make).__name__} cannot be called; give a function from noise to images.")
    if not (isinstance(shape, tuple | list) and len(shape) == 3 and all(isinstance(size, int) for size in shape)):
        raise UserError(f"shape={short(shape)} is not usable; give (channels, height, width).")
    place = torch.device("cpu") if device is None else resolve_device(device)
    if isinstance(make, nn.Module):
        make.eval()
        tensors = [*make.parameters(), *make.buffers()]
        place = tensors[0].device if device is None and tensors else place
        make.to(place)
    known = {"kind": "generator", "network": getattr(make, "__name__", type(make).__name__), **(facts or {})}
    own = check_value_range(value_range)
    if own != OURS:
        known["value_range"] = list(own)
    made = (int(shape[0]), int(shape[1]), int(shape[2]))
    size = made if noise_shape is None else tuple(int(n) for n in noise_shape)
    model = Generator(name, make, made, size, own, channels_last, place, known)
    _ask(model)
    return model


def _ask(model: Generator) -> None:
    """Two images, together and alone."""
    noise = SharedNoise(0).initial(range(2), model.noise_shape, model.device)
    try:
        both, again = model.of(noise), model.of(noise)
        alone = torch.cat([model.of(noise[:1]), model.of(noise[1:])])
    except UserError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".;")
        raise UserError(
            f"{model.name!r} cannot make images of noise {tuple(noise.shape)}: {reason}; check noise_shape."
        ) from error
    if float((both - again).abs().max()) > _SAME:
        raise UserError(
            f"{model.name!r} makes other images of the same noise each time; all its randomness must come from the noise that it is given."
        )
    if float((both - alone).abs().max()) > _SAME:
        raise UserError(
            f"{model.name!r} makes another image of a noise where another noise is given with it; it must treat every one by itself."
        )
