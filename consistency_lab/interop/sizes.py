"""How large a network a configuration may ask for: what the weights beside it can fill, which is known before anything is built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import safetensors

from consistency_lab.errors import UserError
from consistency_lab.interop.layout import CONFIG, Layout
from consistency_lab.store.checkpoint import check_tensors

# Settings of diffusers' networks: what is an extent of some tensor or a part of one, and of what each has tensors of its own.
_EXTENTS = (
    *("in_channels", "out_channels", "block_out_channels", "norm_num_groups", "time_embedding_dim", "num_class_embeds"),
    *("num_embeds_ada_norm", "num_attention_heads", "attention_head_dim"),
)
_LAYERS = ("layers_per_block", "num_layers")


def check_size(layout: Layout) -> None:
    """Raise `UserError` for a configuration that asks for more channels than the weights are wide, or more layers than they have tensors.

    Raises `StoreError` for weights that cannot be read.
    """
    check_tensors(layout.weights)
    with safetensors.safe_open(layout.weights, "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 (it is no dict)
    widest = max((extent for shape in shapes for extent in shape), default=0)
    for keys, most in ((_EXTENTS, widest), (_LAYERS, len(shapes))):
        for key in keys:
            if any(number > most for number in _numbers(layout.config.get(key))):
                asked = f"{layout.weights.parent / CONFIG} has {key}={layout.config[key]!r}"
                raise UserError(
                    f"{asked}, and the weights beside it allow no more than {most}; restore both from one source."
                )


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value
