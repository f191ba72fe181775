"""Signals at a safe moment: while jax is imported, traces or compiles, an exception out of nowhere is not safe."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM ended."""
_active: _Interrupt | None = None


class _Interrupt(threading.Event):
    """Set by a signal, ``number``."""

    number: int | None = None


@contextlib.contextmanager
def deferred_interrupt(*, terminate: bool = False) -> Iterator[threading.Event]:
    """Turn a first Ctrl-C into an event, for the body to look at; a second one raises KeyboardInterrupt at once.

    With ``terminate`` SIGTERM sets the event too, and SystemExit with `TERMINATED` is raised after the body.
    Used inside itself, it yields the outer event. Outside the main thread, or where somebody else handles the
    signals, nothing is changed and the event is never set.

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
        with _handled(_active, terminate):
            yield _active
        return
    event = _active = _Interrupt()
    try:
        with _handled(event, terminate, interrupt=True):
            yield event
    finally:
        _active = None
    if event.number == signal.SIGTERM:
        raise SystemExit(TERMINATED)


@contextlib.contextmanager
def _handled(event: _Interrupt, terminate: bool, interrupt: bool = False) -> Iterator[None]:
    """Let the signals that nobody handles set an event, the first time."""
    asked: dict[int, Any] = {signal.SIGINT: signal.default_int_handler} if interrupt else {}
    if terminate:
        asked[signal.SIGTERM] = signal.SIG_DFL
    ours = {number: before for number, before in asked.items() if signal.getsignal(number) is before}

    def note(number: int, frame: object) -> None:
        event.number = number
        event.set()
        signal.signal(number, ours[number])

    for number in ours:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, before in ours.items():
            signal.signal(number, before)


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
