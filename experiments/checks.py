"""Test the checks of the lecture: each row's function is made wrong, and the row's check has to notice.

    uv run python experiments/checks.py [SECTION ...]

Every number that the function returns is changed by 0.1 % and 1e-4, every truth value and count to another; the change
reaches the modules, tables, default arguments and compiled copies that hold the function. A check that stays green is
listed: it claims a direction, a shape, or an identity that such a change keeps, and another row proves the values.
Classes, constants, and functions that return no numbers (graphs, texts) are left out. Claim: at least 80 % turn red.
JSON goes to experiments/results/checks.json; about 10 minutes on one CPU core, as whatever is compiled has to be
compiled again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import pkgutil
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
import mlpjax.lecture
from mlpjax.ledger import SECTIONS, Row, load_ledger
from mlpjax.proofs import check_of, run
from mlpjax.versions import versions


def wrong(value: Any) -> Any:
    """Change every number of a result, whatever tree it is in; a function that is returned, by what it returns."""
    return jax.tree.map(_wrong_leaf, value)


def _wrong_leaf(leaf: Any) -> Any:
    if isinstance(leaf, bool | np.bool_):
        return not leaf
    if isinstance(leaf, int | float | np.number):
        return leaf + 1 if isinstance(leaf, int | np.integer) else leaf * 1.001 + 1e-4
    if isinstance(leaf, np.ndarray | jax.Array):
        if leaf.dtype == bool:
            return ~leaf
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf * jnp.asarray(1.001, leaf.dtype) + jnp.asarray(1e-4, leaf.dtype)
        return leaf + 1 if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf
    if callable(leaf):
        return lambda *args, **options: wrong(leaf(*args, **options))
    return leaf


def modules() -> list[types.ModuleType]:
    """Import every module of the package, but for the one that runs it."""
    for package in (mlpjax, mlpjax.lecture):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not info.name.endswith("__main__"):
                importlib.import_module(info.name)
    return [module for name, module in sys.modules.items() if name.partition(".")[0] == "mlpjax"]


@contextlib.contextmanager
def replaced(function: Callable[..., Any], other: Callable[..., Any]) -> Iterator[None]:
    """Put another function in the place of one, in every module, table, record, default argument and compiled copy."""

    def new(value: Any) -> Any:
        if value is function:
            return other
        if getattr(value, "__wrapped__", None) is function and hasattr(value, "lower"):
            return jax.jit(other)
        if isinstance(value, tuple) and hasattr(value, "_replace") and any(part is function for part in value):
            return type(value)(*(other if part is function else part for part in value))
        return value

    undo: list[Callable[[], Any]] = []
    for module in modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, dict) and name[:2] != "__":
                for key, entry in list(value.items()):
                    if new(entry) is not entry:
                        undo.append(functools.partial(value.__setitem__, key, entry))
                        value[key] = new(entry)
            elif new(value) is not value:
                undo.append(functools.partial(setattr, module, name, value))
                setattr(module, name, new(value))
            if isinstance(value, types.FunctionType) and value.__defaults__:
                defaults = tuple(new(default) for default in value.__defaults__)
                if any(a is not b for a, b in zip(defaults, value.__defaults__, strict=True)):
                    undo.append(functools.partial(setattr, value, "__defaults__", value.__defaults__))
                    value.__defaults__ = defaults
    forget()
    try:
        yield
    finally:
        for step in reversed(undo):
            step()
        forget()


def forget() -> None:
    """Drop what is compiled or remembered."""
    jax.clear_caches()
    for module in modules():
        for value in list(vars(module).values()):
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()


def outcome(row: Row) -> str:
    """What a row's check makes of its function gone wrong: ``red``, ``green``, or ``left out``."""
    check = check_of(row.id)
    if check is None or row.function is None:
        return "left out"
    module, _, name = row.function.rpartition(".")
    function = getattr(importlib.import_module(f"mlpjax.{module}"), name)
    if not isinstance(function, types.FunctionType):
        return "left out"

    changed = []

    @functools.wraps(function)
    def other(*args: Any, **options: Any) -> Any:
        right = function(*args, **options)
        leaves = jax.tree.leaves(right)
        changed.append(any(_wrong_leaf(leaf) is not leaf for leaf in leaves))
        return wrong(right)

    with replaced(function, other):
        red = not all(claim.ok for claim in run(check))
    if changed and not any(changed):
        return "left out"
    return "red" if red else "green"


def main() -> int:
    """Print and write the outcomes; returns 1 when the claim is missed."""
    sections = sys.argv[1:] or list(SECTIONS)
    found = {}
    for row in load_ledger().rows.values():
        if row.section in sections:
            found[row.id] = outcome(row)
            if found[row.id] == "green":
                print(f"green: {row.id} with {row.function}", flush=True)
    counts = Counter(found.values())
    share = counts["red"] / (counts["red"] + counts["green"])
    print(f"{counts['red']} red, {counts['green']} green, {counts['left out']} left out: {share:.1%} notice")
    if not sys.argv[1:]:
        report = {
            "red": counts["red"],
            "left_out": counts["left out"],
            "green": [id for id, what in found.items() if what == "green"],
            "share": share,
            "versions": versions(),
        }
        target = Path(__file__).parent / "results" / "checks.json"
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if share >= 0.8 else 1


if __name__ == "__main__":
    sys.exit(main())
