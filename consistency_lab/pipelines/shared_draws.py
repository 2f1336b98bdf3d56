"""Our noise in a pipeline of diffusers that runs its own code: every draw of the pipeline and its scheduler is a function of (seed, image).

Their pipelines and schedulers draw with one function, ``randn_tensor``, whether they take ``latents=`` or not, and whether latents are
packed afterwards (Flux) or not. While a call runs, that function gives out ours: first the initial noise, to the bit what `SharedNoise`
says, in float32 and rounded to the pipeline's type; then, for schedulers that add noise, draws of a generator of each image. Schedulers
of stochastic differential equations draw Brownian paths of torchsde instead, from a seed of their own that ``generator=`` does not reach:
they are given one path for each image, the same whatever steps are taken on it.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError

_DRAWS, _PATHS = "randn_tensor", "BatchedBrownianTree"


class NoiseAskedFor(BaseException):
    """Raised inside a call that was made to learn the shape of its noise."""


def step_seed(seed: int, index: int) -> int:
    """The seed of the generator that image ``index`` has in a sampler that adds noise, a function of (seed, index) alone."""
    digest = hashlib.sha256(f"steps of image {index} of shared noise {seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def step_generators(noise: SharedNoise, indices: Sequence[int]) -> list[torch.Generator]:
    """One generator for each image, on the CPU: what ``generator=`` is given, and what later draws are made of."""
    return [torch.Generator().manual_seed(step_seed(noise.seed, index)) for index in indices]


class SharedDraws:
    """While it is entered, pipelines of diffusers draw shared noise.

    Args:
        noise: the shared noise.
        indices: the images of one call, in order.
        only_shape: stop the call at its first draw by `NoiseAskedFor`.

    Attributes:
        shape: of one image's initial noise; None before it was drawn.
        draws: how many draws followed the first.
        generators: of the images, for ``generator=``.
    """

    def __init__(self, noise: SharedNoise, indices: Sequence[int], *, only_shape: bool = False):
        self.noise, self.indices, self.only_shape = noise, list(indices), only_shape
        self.shape: tuple[int, ...] | None = None
        self.draws = 0
        self.generators = step_generators(noise, self.indices)
        self._replaced: list[tuple[Any, str, Any]] = []
        self._states: list[Tensor] = []

    def __enter__(self) -> Self:
        for name, module in list(sys.modules.items()):
            if not name.startswith("diffusers.") or name.endswith("utils.torch_utils"):
                continue
            for function in {_DRAWS, _PATHS} & vars(module).keys():
                original = vars(module)[function]
                self._replaced.append((module, function, original))
                ours = self._draw if function == _DRAWS else functools.partial(self._paths, original)
                setattr(module, function, ours)
        self._states = _global_states()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module, function, original in self._replaced:
            setattr(module, function, original)
        self._replaced.clear()
        if kind is not None:
            return
        if self.shape is None:
            raise UserError(
                "the pipeline drew no noise that could be shared: it makes its latents in a way of its own."
            )
        if any(not torch.equal(a, b) for a, b in zip(self._states, _global_states(), strict=True)):
            raise UserError(
                "the pipeline or its scheduler draws noise from torch's global generator, which cannot be shared between models; choose "
                "another scheduler."
            )

    def _draw(
        self, shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None
    ) -> Tensor:
        """In place of ``randn_tensor``, of the same arguments; the generator is ours."""
        count, rest = int(shape[0]), tuple(int(n) for n in shape[1:])
        if self.shape is None:
            self.shape = rest
            if self.only_shape:
                raise NoiseAskedFor
            if count != len(self.indices):
                raise UserError(
                    f"the pipeline asked for {count} noises to make {len(self.indices)} images; give other options."
                )
            drawn = self.noise.initial(self.indices, rest)
        else:
            halves = self._halves(count)
            self.draws += 1
            each = [
                torch.randn((1, *rest), generator=own, dtype=torch.float32, device="cpu") for own in self.generators
            ]
            drawn = torch.cat(each).repeat(halves, *(1 for _ in rest))
        return drawn.to(device or "cpu", dtype or torch.float32)

    def _paths(self, original: Any, x: Tensor, t0: Any, t1: Any, seed: Any = None, **options: Any) -> Any:
        """In place of diffusers' Brownian trees, of the same arguments: the seeds are those of the images, the type float32."""
        seeds = [step_seed(self.noise.seed, index) for index in self.indices] * self._halves(len(x))
        trees = original(x.to("cpu", torch.float32), t0, t1, seeds, **options)

        def drawn(start: Any, end: Any) -> Tensor:
            self.draws += 1
            return trees(start, end).to(x.device, x.dtype)

        return drawn

    def _halves(self, count: int) -> int:
        """How often each image is among ``count`` noises: guidance may double the batch, and both halves are of one image."""
        if count % len(self.indices):
            raise UserError(
                f"the scheduler asked for {count} noises for {len(self.indices)} images; choose another one."
            )
        return count // len(self.indices)


def _global_states() -> list[Tensor]:
    """Of every global generator: a draw from one changes it."""
    states = [torch.get_rng_state()]
    return states + (torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])
