"""Ctrl-C at a safe moment: while jax is imported, traces or compiles, an exception out of nowhere is not safe."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_active: threading.Event | None = None


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Turn a first Ctrl-C into an event, for the body to look at; a second one raises KeyboardInterrupt at once.

    Used inside itself, it yields the outer event. Outside the main thread, or where somebody else handles SIGINT,
    nothing is changed and the event is never set.

    >>> with deferred_interrupt() as interrupted:
    ...     signal.raise_signal(signal.SIGINT)
    ...     interrupted.is_set()
    True
    """
    global _active
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return
    if _active is not None:
        yield _active
        return
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield threading.Event()
        return
    interrupted = _active = threading.Event()

    def note(number: int, frame: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        _active = None
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def late_interrupt() -> Iterator[None]:
    """Let a first Ctrl-C raise KeyboardInterrupt only after the body; a second one raises at once.

    >>> try:
    ...     with late_interrupt():
    ...         signal.raise_signal(signal.SIGINT)
    ...         print("the body ends")
    ... except KeyboardInterrupt:
    ...     print("then it is raised")
    the body ends
    then it is raised
    """
    with deferred_interrupt() as interrupted:
        yield
    if interrupted.is_set():
        raise KeyboardInterrupt
