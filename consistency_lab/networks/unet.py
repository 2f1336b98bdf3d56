"""The U-Net of DDPM (Ho, Jain & Abbeel 2020, appendix B), from a few thousand parameters to the paper's 35.7 million.

Its parameters correspond one to one to those of ``diffusers.UNet2DModel`` made of down and up blocks with and without
attention; `consistency_lab.networks.diffusers_keys` holds the names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consistency_lab.choices import require_positive
from consistency_lab.errors import UserError
from consistency_lab.networks.blocks import (
    ImageNetwork,
    SelfAttention,
    TimeEmbedding,
    require_multiple,
    require_sequences,
    zeroed,
)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, plus the time; norm, SiLU, convolution; plus the input."""

    def __init__(self, inside: int, outside: int, vector: int, groups: int, eps: float):
        super().__init__()
        self.norm_1 = nn.GroupNorm(groups, inside, eps)
        self.conv_1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.time = nn.Linear(vector, outside)
        self.norm_2 = nn.GroupNorm(groups, outside, eps)
        self.conv_2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, h: Tensor, vector: Tensor) -> Tensor:
        hidden = self.conv_1(F.silu(self.norm_1(h))) + self.time(vector)[:, :, None, None]
        return self.shortcut(h) + self.conv_2(F.silu(self.norm_2(hidden)))


class AttentionBlock(nn.Module):
    """Group norm, self-attention over the pixels, plus the input: (B, width, H, W) -> the same."""

    def __init__(self, width: int, head_width: int | None, groups: int, eps: float):
        super().__init__()
        if head_width is not None and width % head_width:
            raise UserError(
                f"{width} channels cannot be split into heads of {head_width}; choose a head_width that divides them."
            )
        self.norm = nn.GroupNorm(groups, width, eps)
        self.attention = SelfAttention(width, width // (head_width or width))

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.attention(self.norm(h).flatten(2).transpose(1, 2))
        return h + tokens.transpose(1, 2).unflatten(2, h.shape[2:])


class Layer(nn.Module):
    """A residual block and, where asked for, attention after it."""

    def __init__(self, res: ResBlock, attention: AttentionBlock | None):
        super().__init__()
        self.res, self.attention = res, attention

    def forward(self, h: Tensor, vector: Tensor) -> Tensor:
        h = self.res(h, vector)
        return h if self.attention is None else self.attention(h)


class Downsample(nn.Module):
    """Halve height and width by a strided convolution, padded on both sides or, as in DDPM, right and below only."""

    def __init__(self, width: int, symmetric: bool):
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=int(symmetric))

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(h if self.symmetric else F.pad(h, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width by repetition, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The layers at one resolution and the step to the next one (None at the last)."""

    def __init__(self, layers: Sequence[Layer], resample: nn.Module | None):
        super().__init__()
        self.layers, self.resample = nn.ModuleList(layers), resample


class DownLevel(Level):
    """A level on the way down, which leaves its intermediate results on the stack ``skips``."""

    def forward(self, h: Tensor, vector: Tensor, skips: list[Tensor]) -> Tensor:
        for layer in self.layers:
            h = layer(h, vector)
            skips.append(h)
        if self.resample is not None:
            h = self.resample(h)
            skips.append(h)
        return h


class UpLevel(Level):
    """A level on the way up, each layer of which takes a result off the stack ``skips``."""

    def forward(self, h: Tensor, vector: Tensor, skips: list[Tensor]) -> Tensor:
        for layer in self.layers:
            h = layer(torch.cat([h, skips.pop()], dim=1), vector)
        return h if self.resample is None else self.resample(h)


class UNet(ImageNetwork):
    """A U-Net with group norm, SiLU, residual blocks that add the time, and attention at chosen levels.

    ``torch.func``'s vmap and jvp take it as it is in torch 2.14; in 2.8 to 2.11 they know nothing of its layout on the CPU, and want
    ``network.to(memory_format=torch.contiguous_format)`` first, which changes no number by more than rounding.

    Args:
        shape, classes: as in `ImageNetwork`. Height and width must be multiples of ``2 ** (levels - 1)``.
        width: channels at the first level; also the number of time features, and a quarter of the time vector.
        multipliers: channels of each level in units of ``width``, the first level at full resolution.
        blocks: residual blocks per level on the way down; one more on the way up.
        attention: levels (0 is full resolution) with attention after each block, on the way down.
        attention_up: the same on the way up; None means as on the way down.
        middle_attention: attention between the two blocks in the middle.
        groups: groups of every group norm; must divide every number of channels.
        head_width: channels an attention head; None means one head.
        norm_eps: epsilon of the norms.
        symmetric_padding: see `Downsample`.
        cos_first, shift: see `timestep_features`.
        null_label: see `TimeEmbedding`.

    Raises `UserError` for options or image sizes that do not fit together.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 0,
        *,
        width: int = 16,
        multipliers: Sequence[float] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        attention_up: Sequence[int] | None = None,
        middle_attention: bool = True,
        groups: int = 4,
        head_width: int | None = None,
        norm_eps: float = 1e-5,
        symmetric_padding: bool = True,
        cos_first: bool = False,
        shift: float = 0.0,
        null_label: bool = True,
    ):
        super().__init__(shape, classes)
        attention_up = attention if attention_up is None else attention_up
        require_sequences(multipliers=multipliers, attention=attention, attention_up=attention_up)
        require_positive(width=width, blocks=blocks, groups=groups)
        channels = [round(width * multiplier) for multiplier in multipliers]
        _check(channels, groups, {*attention, *attention_up})
        require_multiple(shape, 2 ** (len(channels) - 1), f"the U-Net halves them {len(channels) - 1} times")
        vector = 4 * channels[0]

        def layer(inside: int, outside: int, attend: bool) -> Layer:
            res = ResBlock(inside, outside, vector, groups, norm_eps)
            return Layer(res, AttentionBlock(outside, head_width, groups, norm_eps) if attend else None)

        self.embedding = TimeEmbedding(
            channels[0], vector, classes, null_label=null_label, cos_first=cos_first, shift=shift
        )
        self.conv_in = nn.Conv2d(shape[0], channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        current, skips = channels[0], [channels[0]]
        for level, outside in enumerate(channels):
            last = level == len(channels) - 1
            layers = [layer(current if i == 0 else outside, outside, level in attention) for i in range(blocks)]
            self.down.append(DownLevel(layers, None if last else Downsample(outside, symmetric_padding)))
            skips += [outside] * (blocks if last else blocks + 1)
            current = outside
        self.middle = nn.ModuleList([layer(current, current, middle_attention), layer(current, current, False)])
        for level in reversed(range(len(channels))):
            outside, layers = channels[level], []
            for _ in range(blocks + 1):
                layers.append(layer(current + skips.pop(), outside, level in attention_up))
                current = outside
            self.up.append(UpLevel(layers, None if level == 0 else Upsample(outside)))
        self.norm_out = nn.GroupNorm(groups, current, norm_eps)
        self.conv_out = zeroed(nn.Conv2d(current, shape[0], 3, padding=1))
        self.to(memory_format=_layout(self.conv_out.weight.device))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> UNet:
        """What moves a module moves its weights: those that come to another device take the layout that is best there (`_layout`)."""

        def moved(tensor: Tensor) -> Tensor:
            there = fn(tensor)
            if there.dim() != 4 or there.device == tensor.device:
                return there
            # Not contiguous(): the strides of a convolution of one pixel fit both layouts, and say which it is all the same.
            return there.clone(memory_format=_layout(there.device))

        super()._apply(moved, recurse)
        return self

    def body(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        vector = F.silu(self.embedding(t, cond))
        h = self.conv_in(x)
        skips = [h]
        for level in self.down:
            h = level(h, vector, skips)
        for layer in self.middle:
            h = layer(h, vector)
        for level in self.up:
            h = level(h, vector, skips)
        return self.conv_out(F.silu(self.norm_out(h)))


def _layout(device: torch.device) -> torch.memory_format:
    """The layout of the weights of convolutions, which take it on to what they return, and so to the whole network.

    On a CPU convolutions are faster where the channels of a pixel lie side by side. On a GPU group norm reads and writes whole channels
    alone: it would copy what it is given and hand the next convolution another layout.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def _check(channels: list[int], groups: int, attention: set[int]) -> None:
    if not channels:
        raise UserError("a U-Net needs at least one level; give multipliers=(1, 2), for example.")
    if uneven := [c for c in channels if c < 1 or c % groups]:
        raise UserError(
            f"{uneven[0]} channels cannot be split into {groups} groups; choose a divisor of every level's channels."
        )
    if outside := sorted(level for level in attention if not 0 <= level < len(channels)):
        raise UserError(f"attention was asked for at level {outside[0]}, but the levels are 0 to {len(channels) - 1}.")
