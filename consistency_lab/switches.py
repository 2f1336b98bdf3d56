"""torch's switches of precision: all threads of a process have them in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch


@dataclass(eq=False)
class _Block:
    """One that is open: of which thread, and whether it wants TF32."""

    thread: threading.Thread
    tf32: bool


class _Switches:
    """torch's switches of precision, as the open blocks want them: all threads have them in common.

    Every block wants what `_repeatable` says, some also TF32, and a thread wants what the block says that it entered last. Threads that
    want the same are inside at once; one that wants the other waits until they have left or want it too. What was set before comes back
    when the last block is left, in whichever order and by whichever thread they are left.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._open: list[_Block] = []
        self._waiting: list[threading.Thread] = []
        self._repeatable, self._tf32, self._has_tf32 = ExitStack(), ExitStack(), False

    @contextmanager
    def block(self, tf32: bool = False) -> Iterator[None]:
        """Inside, the switches are as this block wants them."""
        mine = _Block(threading.current_thread(), tf32)
        with self._turn:
            if not self._open:
                self._repeatable.enter_context(_repeatable())
            self._open.append(mine)
            try:
                self._settle()
            except BaseException:  # Ctrl-C while it waits
                self._leave(mine)
                raise
        try:
            yield
        finally:
            with self._turn:
                self._leave(mine)

    def _wanted(self, thread: threading.Thread) -> bool | None:
        """What a thread wants; None: nothing."""
        return next((each.tf32 for each in reversed(self._open) if each.thread is thread), None)

    def _settle(self) -> None:
        """Wait until no thread that is at work wants other than this one, and set that."""
        me = threading.current_thread()
        if (wanted := self._wanted(me)) is None:
            return

        def agreed() -> bool:
            others = {each.thread for each in self._open} - {me, *self._waiting}
            return all(self._wanted(other) == wanted for other in others if other.is_alive())

        self._waiting.append(me)
        self._turn.notify_all()
        try:
            self._turn.wait_for(agreed)
        finally:
            self._waiting.remove(me)
        self._set(wanted)

    def _set(self, tf32: bool) -> None:
        if tf32 and not self._has_tf32:
            self._tf32.enter_context(_tf32())
        elif not tf32:
            self._tf32.close()
        self._has_tf32 = tf32

    def _leave(self, block: _Block) -> None:
        self._open.remove(block)
        self._turn.notify_all()
        if self._open:
            self._settle()
        else:
            self._set(False)
            self._repeatable.close()


SWITCHES = _Switches()


@contextmanager
def _repeatable() -> Iterator[None]:
    """Full float32, and cuDNN's deterministic kernels, none of which is chosen by its time."""
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with _full_float32():
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextmanager
def _tf32() -> Iterator[None]:
    """TF32 in a GPU's matrix products and convolutions; inside `_full_float32`, which says of the two interfaces what there is to say."""
    on: Any = torch.backends
    try:
        on.cudnn.allow_tf32, on.cuda.matmul.allow_tf32  # noqa: B018 (they raise where the newer interface is in use)
        told: list[tuple[Any, str, Any, Any]] = [(at, "allow_tf32", True, False) for at in (on.cudnn, on.cuda.matmul)]
    except RuntimeError:
        told = [(at, "fp32_precision", "tf32", "ieee") for at in (on.cuda.matmul, on.cudnn.conv, on.cudnn.rnn)]
    try:
        for at, name, new, _ in told:
            setattr(at, name, new)
        yield
    finally:
        for at, name, _, old in reversed(told):
            setattr(at, name, old)


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products of float32 in float32, through whichever of torch's two interfaces the caller has used.

    The older one is a flag for cuDNN and a word for matrix products. Once a caller has used the newer one (torch 2.9: a precision for all,
    for a backend, for one of its operations; "none" means that of the level above) so that the two disagree, the older one cannot be
    read any more, and raises. As long as it can be read it is kept right, because other code reads it (torch.compile does); what is
    not off after that is switched off in the newer one, from above, where alone a level that is "none" can be told from one that says
    the same as the level above it, and so can be put back as it was. One thing cannot: convolutions that nobody ever set use TF32, and
    say so themselves afterwards, so that a precision set later for the whole backend does not reach them.
    """
    cudnn, before = torch.backends.cudnn, _precisions()
    undo: list[Callable[[], None]] = []
    try:
        older: tuple[tuple[Callable[[], Any], Callable[[Any], None], Any], ...] = (
            (lambda: cudnn.allow_tf32, partial(setattr, cudnn, "allow_tf32"), False),
            (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        )
        for read, write, off in older:
            with suppress(RuntimeError):  # the newer interface is in use
                if (was := read()) != off:
                    write(off)
                    undo.append(partial(write, was))
        for place in _places():
            if (now := place.fp32_precision) != "ieee" and (now != "none" or place is torch.backends):
                place.fp32_precision = "ieee"
                undo.append(partial(setattr, place, "fp32_precision", now))
        yield
    finally:
        for step in reversed(undo):
            step()
        for place, precision in zip(_places(), before, strict=True):
            if place.fp32_precision != precision:  # the older interface wrote more than was asked of it
                place.fp32_precision = precision


@cache
def _places() -> tuple[Any, ...]:
    """What has a precision of its own in torch 2.9 and later, from above; nothing before that."""
    on: Any = torch.backends
    if not hasattr(on, "fp32_precision"):
        return ()
    # on.mkldnn itself is left out: what is written there goes to on (torch 2.14).
    return (on, on.cudnn, on.cuda.matmul, on.cudnn.conv, on.cudnn.rnn, on.mkldnn.matmul, on.mkldnn.conv, on.mkldnn.rnn)


def _precisions() -> list[str]:
    return [place.fp32_precision for place in _places()]
