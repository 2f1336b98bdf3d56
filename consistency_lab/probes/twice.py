"""Layers whose gradients are differentiated again with few kernels: convolution, group norm and SiLU.

torch differentiates their backward passes through many elementary operations (group norm, SiLU) and through a convolution whose kernel is
as large as the image (the weights' gradient). In `twice_differentiable` these layers are replaced by the same functions with second
derivatives in closed form. What does not depend on the vector that is multiplied is kept with the graph, for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from consistency_lab.networks.reentrant import checkpointing

aten = torch.ops.aten


class _Conv(Function):
    """Two-dimensional convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias, ctx.options = None if bias is None else bias.shape, options
        return torch.conv2d(x, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            found = _ConvBackward.apply(slope, x, weight, ctx.bias, wanted, *ctx.options)
        else:
            found = _conv_gradients(slope, x, weight, ctx.bias, wanted, ctx.options)
        return (*found, *[None] * len(ctx.options))


class _ConvBackward(Function):
    @staticmethod
    def forward(
        ctx: Any, slope: Tensor, x: Tensor, weight: Tensor, bias: Any, wanted: Sequence[bool], *options: Any
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(slope, x, weight)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return _conv_gradients(slope, x, weight, bias, wanted, options)

    @staticmethod
    def backward(
        ctx: Any, x_: Tensor | None, weight_: Tensor | None, bias_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        # Each gradient is linear in the slope and in the other factor: x_, weight_, bias_ are tangents of the layer's inputs.
        slope, x, weight = ctx.saved_tensors
        to_slope, to_x, to_weight = ctx.needs_input_grad[:3]
        found: list[Tensor | None] = [None, None, None]
        if to_slope:
            found[0] = _sum(
                None if x_ is None else torch.conv2d(x_, weight, bias_, *ctx.options),
                None if weight_ is None else torch.conv2d(x, weight_, bias_ if x_ is None else None, *ctx.options),
            )
            if found[0] is None and bias_ is not None:
                found[0] = bias_.reshape(-1, 1, 1).expand_as(slope)
        if to_x and weight_ is not None:
            found[1] = _conv_gradients(slope, x, weight_, None, (True, False, False), ctx.options)[0]
        if to_weight and x_ is not None:
            found[2] = _conv_gradients(slope, x_, weight, None, (False, True, False), ctx.options)[1]
        return (*found, *[None] * (2 + len(ctx.options)))


def _conv_gradients(
    slope: Tensor, x: Tensor, weight: Tensor, bias: Any, wanted: Sequence[bool], options: tuple[Any, ...]
) -> tuple[Tensor | None, ...]:
    stride, padding, dilation, groups = options
    found: tuple[Tensor | None, ...] = aten.convolution_backward(
        slope, x, weight, bias, stride, padding, dilation, False, [0, 0], groups, list(wanted)
    )
    return found


class _SiLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kept = None
        return torch.nn.functional.silu(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if ctx.kept is None:
            with torch.no_grad():
                s = torch.sigmoid(x)
                rest = 1 - s
                first = s * (1 + x * rest)
                ctx.kept = first, s * rest * (1 + (1 + x * rest) - x * s)
        found: Tensor = _SiLUBackward.apply(slope, x, *ctx.kept) if torch.is_grad_enabled() else slope * ctx.kept[0]
        return found


class _SiLUBackward(Function):
    @staticmethod
    def forward(ctx: Any, slope: Tensor, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(first, slope * second)
        return slope * first

    @staticmethod
    def backward(ctx: Any, x_: Tensor) -> tuple[Tensor | None, ...]:
        first, bend = ctx.saved_tensors
        return x_ * first, x_ * bend if ctx.needs_input_grad[1] else None, None, None


class _GroupNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float) -> Tensor:
        y, mean, scale = torch.native_group_norm(x, weight, bias, *_sizes(x), groups, eps)
        ctx.save_for_backward(x, mean, scale, weight)
        ctx.groups = groups
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, weight = ctx.saved_tensors
        call: Callable[..., Any] = _GroupNormBackward.apply if torch.is_grad_enabled() else _group_norm_gradients
        return (*call(slope, x, mean, scale, weight, ctx.groups, ctx.needs_input_grad[:3]), None, None)


class _GroupNormBackward(Function):
    @staticmethod
    def forward(ctx: Any, slope: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        x, mean, scale, weight, groups, _ = rest
        slope = _like(slope, x)
        ctx.save_for_backward(slope, x, mean, scale, weight)
        ctx.groups, ctx.kept = groups, None
        ctx.set_materialize_grads(False)
        return _group_norm_gradients(slope, x, mean, scale, weight, groups, rest[-1])

    @staticmethod
    def backward(
        ctx: Any, x_: Tensor | None, weight_: Tensor | None, bias_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """With z = r (x - mean), P t = t - mean(t) - z mean(t z) and h = slope weight, all means over a group, the gradients are
        r P h, sum slope z and sum slope; and d z = r P dx, d r = - r^2 mean(z dx).

        So both that is returned for the slope and for x is a sum of 1, x_, z and the slope, with factors per sample and channel.
        """
        slope, x, mean, scale, weight = ctx.saved_tensors
        groups, (samples, channels) = ctx.groups, x.shape[:2]

        def wide(values: Tensor) -> Tensor:
            return values.reshape(*values.shape, *[1] * (x.dim() - 2))

        def means(sums: Sequence[Tensor]) -> Tensor:
            """Over groups of what was summed over pixels, for each of a group's channels: ``(len(sums), B, C)``."""
            parts = torch.stack(list(sums)).unflatten(2, (groups, -1))
            return (parts.sum(3, keepdim=True) * (samples * groups / x.numel())).expand_as(parts).flatten(2)

        if ctx.kept is None:
            r = scale.repeat_interleave(channels // groups, 1)
            w = torch.ones_like(r) if weight is None else weight.expand_as(r)
            z = (x - wide(mean.repeat_interleave(channels // groups, 1))) * wide(r)
            s, sz = slope.flatten(2).sum(2), (slope * z).flatten(2).sum(2)
            ctx.kept = z, s, sz, w, r, r * r, w * r, *means([s * w, sz * w])
        z, s, sz, w, r, square, scaled, h, hz = ctx.kept
        to_slope, to_x, _, _, to_weight = ctx.needs_input_grad[:5]
        # Factors of 1, z, x_ and the slope in what is returned for the slope, and in what is returned for x.
        one, of_z = (None if each is None else each.expand(1, -1) for each in (bias_, weight_))
        one_x, of_z_x, of_slope_x, weight_gradient = None, None, None, None
        if weight_ is not None and to_x:
            one_x, of_z_x = -r * means([weight_ * s, weight_ * sz])
            of_slope_x = r * weight_
        if x_ is not None:
            x_ = _like(x_, x)
            u, uz, us = x_.flatten(2).sum(2), (x_ * z).flatten(2).sum(2), (x_ * slope).flatten(2).sum(2)
            m, mz, mh = means([u, uz, us * w])
            one, of_z = _sum(one, -scaled * m), _sum(of_z, -scaled * mz)
            if to_weight:
                weight_gradient = (r * (us - m * s - mz * sz)).sum(0)
            if to_x:
                one_x = _sum(one_x, square * (mz * h + hz * m))
                of_z_x = _sum(of_z_x, square * (3 * mz * hz + h * m - mh))
                of_slope_x = _sum(of_slope_x, -scaled * r * mz)

        def weighted(constant: Tensor | None, *terms: tuple[Tensor | None, Tensor | None]) -> Tensor | None:
            total = None if constant is None else wide(constant)
            for factor, values in terms:
                if factor is not None and values is not None:
                    spread = wide(factor)
                    total = values * spread if total is None else torch.addcmul(total, values, spread)
            return None if total is None else total.expand_as(x)

        slope_gradient = weighted(one, (scaled, x_), (of_z, z)) if to_slope else None
        x_gradient = weighted(one_x, (-square * hz, x_), (of_z_x, z), (of_slope_x, slope)) if to_x else None
        return slope_gradient, x_gradient, None, None, weight_gradient, None, None


def _group_norm_gradients(
    slope: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None, groups: int, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    found: tuple[Tensor | None, ...] = aten.native_group_norm_backward(
        _like(slope, x), x, mean, scale, weight, *_sizes(x), groups, list(wanted)
    )
    return found


class _Cat(Function):
    """Joined tensors. torch differentiates the split of their gradient again through zeros of the whole size, in another layout."""

    @staticmethod
    def forward(ctx: Any, dim: int, *parts: Tensor) -> Tensor:
        ctx.dim, ctx.sizes = dim, [part.shape[dim] for part in parts]
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        return None, *slope.split(ctx.sizes, ctx.dim)


def _sizes(x: Tensor) -> tuple[int, int, int]:
    samples, channels = x.shape[:2]
    return samples, channels, x.numel() // (samples * channels)


def _layout(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.contiguous(memory_format=_layout(x))


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def for_both_sides(*options: int | Sequence[int]) -> list[list[int]]:
    """Options of a convolution for height and width, where one number may stand for both."""
    return [[each] * 2 if isinstance(each, int) else list(each) for each in options]


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if isinstance(padding, str) or input.dim() != 4:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    found: Tensor = _Conv.apply(input, weight, bias, *for_both_sides(stride, padding, dilation), groups)
    return found


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    if input.dim() < 3 or not input.numel():
        return torch.group_norm(input, num_groups, weight, bias, eps, cudnn_enabled)
    found: Tensor = _GroupNorm.apply(_like(input, input), weight, bias, num_groups, eps)
    return found


def _silu(input: Tensor, inplace: bool = False) -> Tensor:
    found: Tensor = _SiLU.apply(input)
    return found


def _cat(tensors: Sequence[Tensor], dim: int = 0, **options: Any) -> Tensor:
    if options or len({(part.dim(), part.dtype) for part in tensors}) > 1:
        return torch.cat(list(tensors), dim, **options)
    found: Tensor = _Cat.apply(dim, *tensors)
    return found


_OURS: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: _conv2d,
    torch.cat: _cat,
    torch.group_norm: _group_norm,
    torch.nn.functional.group_norm: _group_norm,
    torch.nn.functional.silu: _silu,
    torch._C._nn.silu: _silu,
}


class twice_differentiable(TorchFunctionMode):
    """A loss is computed inside: convolutions, group norms and SiLUs of its network are then those of this module.

    They are torch's under autocast, and in a checkpointed layer, which is computed again outside of this block.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        ours = _OURS.get(func)
        if ours is None or torch.is_autocast_enabled() or checkpointing():
            ours = func
        return ours(*args, **(kwargs or {}))
