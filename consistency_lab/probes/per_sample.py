"""The gradient of each sample's loss over all weights, of many samples in one pass.

A layer's weight gradient is a sum over samples of products of what comes into the layer and of the slope at what leaves it; both are there
for every sample after one backward pass (Goodfellow 1510.01799), so that the products are taken sample by sample instead of summed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from consistency_lab.networks.reentrant import checkpointing, differentiating
from consistency_lab.probes.frozen import SampleLoss
from consistency_lab.probes.twice import for_both_sides

PIXELS = 64  # of a convolution's output up to which its windows are written out


def gradient_of_one(module: nn.Module, loss: SampleLoss, tensors: Sequence[Tensor], parameters: list[Tensor]) -> Tensor:
    """The gradient of the summed loss: ``(P,)``, parameter after parameter."""
    with differentiating():
        value = loss(module, *tensors).sum()
        gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
    # Detached: where a parameter is not used, torch 2.8 gives zeros that ask for a gradient as the parameter does.
    return torch.cat([gradient.detach().flatten().float() for gradient in gradients])


def gradients_per_sample(
    module: nn.Module, loss: SampleLoss, tensors: Sequence[Tensor], parameters: list[Tensor]
) -> list[Tensor] | None:
    """The gradient of each sample's loss, ``(B, n)`` for each parameter, float32; None where it cannot be had in one pass.

    That is where a parameter enters through anything but a linear layer, a two-dimensional convolution, a group or layer norm or an
    embedding, or through one that is checkpointed, or where rows of a layer's input are not the samples. The former is seen by a gradient
    that reaches the parameter itself, the latter by the first sample, which is differentiated alone too.
    """
    watch = _Watch(parameters, len(tensors[0]))
    with differentiating():
        with watch:
            value = loss(module, *tensors).sum()
        if not value.requires_grad:
            return None
        _, *beside = torch.autograd.grad(value, [watch.anchor, *parameters], allow_unused=True)
    if any(gradient is not None for gradient in beside):
        return None
    found = [rows.reshape(watch.samples, -1).float() for rows in watch.rows()]
    first, alone = (
        torch.cat([rows[0] for rows in found]),
        gradient_of_one(module, loss, [x[:1] for x in tensors], parameters),
    )
    return found if torch.allclose(first, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max())) else None


class _Seen(Function):
    """What a layer returns, whose slope is shown to a function on the way back. The anchor is a leaf that every way back leads to."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, out: Tensor, show: Callable[[Tensor], None]) -> Tensor:
        ctx.show = show
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        ctx.show(slope)
        return slope.new_zeros(()), slope, None


class _Watch(TorchFunctionMode):
    """A loss is computed inside: layers get their parameters without a gradient, and their gradients per sample are gathered here."""

    def __init__(self, parameters: Sequence[Tensor], samples: int):
        super().__init__()
        self.parameters, self.samples = parameters, samples
        self.anchor = parameters[0].new_zeros((), requires_grad=True)
        self._places = {id(parameter): place for place, parameter in enumerate(parameters)}
        self._rows: list[Tensor | None] = [None] * len(parameters)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        layer = _LAYERS.get(func)
        kwargs = kwargs or {}
        return func(*args, **kwargs) if layer is None or checkpointing() else layer(self, *args, **kwargs)

    def knows(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
        """Whether a layer's parameters are watched and the rows of its input are as many as there are samples."""
        given = [each for each in (weight, bias) if each is not None]
        return len(x) == self.samples and bool(given) and all(id(each) in self._places for each in given)

    def seen(self, out: Tensor, show: Callable[[Tensor], None]) -> Tensor:
        found: Tensor = _Seen.apply(self.anchor, out, show)
        return found

    def add(self, parameter: Tensor | None, rows: Callable[[], Tensor]) -> None:
        """Rows ``(B, *parameter.shape)`` of a parameter, which may occur in several layers."""
        if parameter is not None:
            place = self._places[id(parameter)]
            known, more = self._rows[place], rows()
            self._rows[place] = more if known is None else known + more

    def rows(self) -> list[Tensor]:
        return [
            parameter.new_zeros(self.samples, *parameter.shape) if rows is None else rows
            for rows, parameter in zip(self._rows, self.parameters, strict=True)
        ]


def _free(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach()


def _linear(watch: _Watch, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if input.dim() < 2 or not watch.knows(input, weight, bias):
        return F.linear(input, weight, bias)
    x = input.detach().reshape(len(input), -1, input.shape[-1])

    def show(slope: Tensor) -> None:
        rows = slope.reshape(len(x), -1, slope.shape[-1])
        watch.add(weight, lambda: rows.transpose(1, 2) @ x)
        watch.add(bias, lambda: rows.sum(1))

    return watch.seen(F.linear(input, weight.detach(), _free(bias)), show)


def _conv2d(
    watch: _Watch,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if isinstance(padding, str) or input.dim() != 4 or not watch.knows(input, weight, bias):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    steps, edges, holes = for_both_sides(stride, padding, dilation)
    x = input.detach()

    def show(slope: Tensor) -> None:
        watch.add(weight, lambda: _conv_rows(x, slope, weight, steps, edges, holes, groups))
        watch.add(bias, lambda: slope.sum((2, 3)))

    return watch.seen(torch.conv2d(input, weight.detach(), _free(bias), stride, padding, dilation, groups), show)


def _conv_rows(
    x: Tensor,
    slope: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The gradient of each sample's weights ``(B, *weight.shape)``: a matrix product over its windows where they are few, which is the
    quicker there; a convolution in which the samples are groups otherwise."""
    samples, out, (height, width) = len(x), slope.shape[1], weight.shape[2:]
    if groups == 1 and slope.shape[2] * slope.shape[3] <= PIXELS:
        (up, left), (down, right) = padding, dilation
        windows = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, up, up))
        windows = windows.unfold(1, (height - 1) * down + 1, stride[0])[..., ::down]
        windows = windows.unfold(2, (width - 1) * right + 1, stride[1])[..., ::right]  # (B, H, W, C, height, width)
        columns = windows.permute(0, 1, 2, 4, 5, 3).reshape(samples, -1, height * width * x.shape[1])
        rows = slope.permute(0, 2, 3, 1).reshape(samples, -1, out).transpose(1, 2) @ columns
        return rows.reshape(samples, out, height, width, -1).permute(0, 1, 4, 2, 3)
    images, slopes = (each.reshape(1, -1, *each.shape[2:]) for each in (x, slope))
    stacked = weight.detach().expand(samples, *weight.shape).flatten(0, 1)
    _, rows, _ = torch.ops.aten.convolution_backward(
        slopes,
        images,
        stacked,
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        samples * groups,
        [False, True, False],
    )
    return rows.unflatten(0, (samples, out))


def _group_norm(
    watch: _Watch,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    if not watch.knows(input, weight, bias):
        return F.group_norm(input, num_groups, weight, bias, eps)
    x = input.detach()

    def show(slope: Tensor) -> None:
        watch.add(weight, lambda: (slope * F.group_norm(x, num_groups, None, None, eps)).flatten(2).sum(2))
        watch.add(bias, lambda: slope.flatten(2).sum(2))

    return watch.seen(F.group_norm(input, num_groups, _free(weight), _free(bias), eps), show)


def _layer_norm(
    watch: _Watch,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    if input.dim() <= len(normalized_shape) or not watch.knows(input, weight, bias):
        return F.layer_norm(input, normalized_shape, weight, bias, eps)
    x, shape = input.detach(), list(normalized_shape)

    def summed(values: Tensor) -> Tensor:
        return values.reshape(len(x), -1, *shape).sum(1)

    def show(slope: Tensor) -> None:
        watch.add(weight, lambda: summed(slope * F.layer_norm(x, shape, None, None, eps)))
        watch.add(bias, lambda: summed(slope))

    return watch.seen(F.layer_norm(input, shape, _free(weight), _free(bias), eps), show)


def _embedding(
    watch: _Watch,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *others: bool,
    **named: bool,
) -> Tensor:
    chosen = padding_idx is not None or max_norm is not None or any((*others, *named.values()))
    if chosen or input.dim() < 1 or not watch.knows(input, weight, None):
        return F.embedding(input, weight, padding_idx, max_norm, norm_type, *others, **named)

    def rows(slope: Tensor) -> Tensor:
        found = slope.new_zeros(len(input), *weight.shape)
        places = input.reshape(len(input), -1, 1).expand(-1, -1, weight.shape[1])
        return found.scatter_add_(1, places, slope.reshape(places.shape))

    return watch.seen(F.embedding(input, weight.detach()), lambda slope: watch.add(weight, lambda: rows(slope)))


_LAYERS: dict[Any, Callable[..., Tensor]] = {
    F.linear: _linear,
    torch.conv2d: _conv2d,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    F.embedding: _embedding,
}
