"""Ctrl-C while training: the step in progress is ended first, so that what is saved is a whole step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class Stopped(KeyboardInterrupt):
    """Training was stopped by the user between two steps; says where, and how to resume."""


@contextlib.contextmanager
def stop_between_steps() -> Iterator[Callable[[], None]]:
    """Yield a function that raises `Stopped` once Ctrl-C has been pressed; a second Ctrl-C stops at once.

    An interrupt within a step would leave weights of one step beside optimizer moments of another. Outside the main thread, where
    Python delivers no signals, and under a caller's own handler nothing is changed.
    """
    pressed = threading.Event()

    def note(number: int, frame: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    def check() -> None:
        if pressed.is_set():
            raise Stopped("stopped; what was finished is kept.")

    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    check()  # pressed after the last step: everything is finished, and the user still wants to stop
