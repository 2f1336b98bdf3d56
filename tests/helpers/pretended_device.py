"""A device for tests where there is none: its tensors lie in the CPU's memory and say that they lie elsewhere.

What a GPU refuses is refused here: operations on tensors of both devices, a generator of the other one, ``.numpy()``. And every point
at which the host would wait for a GPU is counted, by the line of the package that asked: copies from or to the device that block,
numbers read from it (``float``, ``bool``, ``tolist``), shapes that depend on values. How fast a GPU is and how it rounds is not seen here.

It has the name "meta", a device type whose tensors autograd lets be made anywhere.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import consistency_lab

DEVICE = torch.device("meta")
PACKAGE = str(Path(consistency_lab.__file__).parent)

_aten = torch.ops.aten
_READS = {_aten._local_scalar_dense: "a number read", _aten.equal: "equality read"}
_SHAPED = {
    _aten.nonzero,
    _aten.masked_select,
    _aten._unique2,
    _aten.unique_dim,
    _aten.unique_consecutive,
    _aten.bincount,
}
_INDEXED = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index}
_COPIES = {_aten._to_copy, _aten.copy_, _aten.copy}


class Waits(Counter[tuple[str, str]]):
    """How often the host waited, by kind and by the line ``folder/file.py:number`` of the package that asked."""

    def during(self, work: Callable[[], Any]) -> Waits:
        """Those of a piece of work alone."""
        before = Waits(self)
        work()
        return Waits({key: count - before[key] for key, count in self.items() if count > before[key]})

    def note(self, kind: str) -> None:
        self[kind, _asking_line()] += 1


def _asking_line() -> str:
    frame: Any = sys._getframe(1)
    while frame is not None:
        if (name := frame.f_code.co_filename).startswith(PACKAGE):
            return f"{Path(name).relative_to(PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside the package"


class Elsewhere(Tensor):
    """A tensor on the pretended device; ``held`` is what it holds, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        claims = {"dtype": held.dtype, "layout": held.layout, "device": DEVICE, "requires_grad": False}
        offset = held.storage_offset()
        made = Tensor._make_wrapper_subclass(cls, held.size(), strides=held.stride(), storage_offset=offset, **claims)
        made.held = held.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (mode := _ACTIVE[-1] if _ACTIVE else None) is None:
            raise RuntimeError("the pretended device has been left.")
        return mode.run(func, args, kwargs or {})

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a tensor on a device cannot be converted to numpy; use Tensor.cpu() first.")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        raise RuntimeError("the memory of a device is not the host's to read.")

    def __deepcopy__(self, memo: dict[int, Any]) -> Elsewhere:
        made = Elsewhere(self.held.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made._is_param = True
        memo[id(self)] = made
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("a tensor on a device is not to be saved; save Tensor.cpu().")

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"Elsewhere({tuple(self.shape)}, {self.dtype})"


class PretendedDevice(TorchDispatchMode):
    """Runs every operation on the CPU and keeps account of where its tensors are said to be."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits()
        self.generators: dict[int, torch.Generator] = {}  # those of the device; kept, so that no number is given twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        leaves = pytree.arg_tree_leaves(*args, **kwargs)
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        there = [x for x in tensors if isinstance(x, Elsewhere)]
        asked = kwargs.get("device")
        result_there = _is_ours(asked) if asked is not None else bool(there)
        operation = func.overloadpacket
        if operation in _COPIES:
            result_there = self._copied(operation, args, kwargs, result_there)
        elif there:
            self._check_one_device(operation, args, tensors, func)
        generator = next((x for x in leaves if isinstance(x, torch._C.Generator)), None)
        if generator is not None and (generator._cdata in self.generators) != result_there:
            want = "the device" if result_there else "cpu"
            raise RuntimeError(f"Expected a generator of {want} ({func})")
        if there and operation in _READS:
            self.waits.note(_READS[operation])
        if there and operation in _SHAPED:
            self.waits.note("a shape that depends on values")
        here, told = pytree.tree_map_only(Elsewhere, lambda x: x.held, (args, kwargs))
        if _is_ours(asked):
            told["device"] = torch.device("cpu")
        if asked is not None and there and not _is_ours(asked) and operation is _aten._to_copy:
            return func(*here, **told)
        found = func(*here, **told)
        if not result_there:
            return found
        wrapped = pytree.tree_map_only(Tensor, Elsewhere, found)
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if there else wrapped

    def _copied(self, operation: Any, args: Any, kwargs: dict[str, Any], to_device: bool) -> bool:
        """Count a copy between the devices; whether its result is on the device."""
        source = args[0] if operation is _aten._to_copy else args[1]
        if operation is not _aten._to_copy:
            to_device = isinstance(args[0], Elsewhere)
        if isinstance(source, Elsewhere) != to_device:
            late = kwargs.get("non_blocking", False) or (len(args) > 2 and args[2] is True)
            if not late:
                self.waits.note("a copy to the device" if to_device else "a copy from the device")
        return to_device

    def _check_one_device(self, operation: Any, args: Any, tensors: list[Tensor], func: Any) -> None:
        """CPU scalars may meet tensors of a device, and CPU indices too, after a copy; nothing else."""
        indices: list[Tensor] = []
        if operation in _INDEXED:
            indices = [x for x in args[1] if x is not None]
            if isinstance(args[0], Elsewhere):
                for index in indices:
                    if not isinstance(index, Elsewhere):
                        self.waits.note("a copy to the device")
                    if index.dtype in (torch.bool, torch.uint8):
                        self.waits.note("a shape that depends on values")
            else:
                indices = []
        for x in tensors:
            if not isinstance(x, Elsewhere) and x.dim() and not any(x is index for index in indices):
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found the device and cpu ({func})"
                )


_ACTIVE: list[PretendedDevice] = []


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _through_the_cpu(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor and torch.as_tensor leave out the numbers of tensors on "meta"."""

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if not _is_ours(device) or isinstance(data, Tensor):
            return make(data, *args, device=device, **kwargs)
        return make(data, *args, device="cpu", **kwargs).to(DEVICE)

    return made


@contextmanager
def pretended_device() -> Iterator[Waits]:
    """`DEVICE` can be used inside; gives what counts the waits."""
    mode, generator, autocast = PretendedDevice(), torch.Generator, torch.autocast

    class Generator(torch._C.Generator):
        def __new__(cls, device: Any = "cpu") -> Any:
            made = generator("cpu" if _is_ours(device) else device)
            if _is_ours(device):
                mode.generators[made._cdata] = made
            return made

    def no_autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == DEVICE.type else autocast(device_type, *args, **kwargs)

    parts = {"Generator": Generator, "autocast": no_autocast}
    parts |= {name: _through_the_cpu(getattr(torch, name)) for name in ("tensor", "as_tensor")}
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _ACTIVE.append(mode)
    try:
        # Attention in operations that autograd knows for any device.
        attention = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        with patch.multiple(torch, **parts), attention, mode:
            yield mode.waits
    finally:
        _ACTIVE.pop()
        torch.__future__.set_overwrite_module_params_on_conversion(before)
