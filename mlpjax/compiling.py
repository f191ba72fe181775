"""Options of the compiler, where its own choice costs time."""

from __future__ import annotations

import functools

import jax

QUICK = (("xla_backend_optimization_level", 1),)
"""For programs that run once: compiled in half the time. On some versions of JAX a last bit differs."""


@functools.cache
def compiler_options(options: tuple[tuple[str, bool | int], ...]) -> dict[str, bool | int]:
    """Those of some options of XLA that this version of it knows.

    >>> compiler_options((("xla_no_such_option", True),))
    {}
    """
    return {name: value for name, value in options if _known(name, value)}


def _known(name: str, value: bool | int) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
