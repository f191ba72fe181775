"""The order in which a computation graph is run: each function after those whose outputs it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlpjax.errors import InputError

if TYPE_CHECKING:
    from mlpjax.graph import Function, Variable


def topological_order(outputs: Iterable[Variable]) -> list[Function]:
    """Order the functions on which the outputs depend so that each comes after those it takes values from (Kahn 1962).

    Raises:
        InputError: the graph has a cycle; the message names it.

    Source: ``graph-forward-topo``, ``graph-backward-topo``.

    >>> from mlpjax.graph import Operation, Variable, apply
    >>> halve = Operation("halve", lambda x: x / 2, lambda g, z, x: (g / 2,))
    >>> y = apply(halve, apply(halve, Variable(1.0, "x"), name="u"), name="y")
    >>> [function.output.name for function in topological_order([y])]
    ['u', 'y']
    """
    found: dict[Function, None] = {}
    stack = [variable.producer for variable in outputs]
    while stack:
        function = stack.pop()
        if function is not None and function not in found:
            found[function] = None
            stack.extend(variable.producer for variable in function.inputs)
    users: dict[Function, list[Function]] = {function: [] for function in found}
    waits_for = dict.fromkeys(found, 0)
    for function in reversed(found):
        for variable in function.inputs:
            if variable.producer is not None:
                users[variable.producer].append(function)
                waits_for[function] += 1
    ready = deque(function for function in reversed(found) if waits_for[function] == 0)
    order = []
    while ready:
        function = ready.popleft()
        order.append(function)
        for user in users[function]:
            waits_for[user] -= 1
            if waits_for[user] == 0:
                ready.append(user)
    if len(order) < len(found):
        waiting = {function: None for function in found if waits_for[function]}
        raise InputError(f"the graph has a cycle: {_cycle(waiting)}; a value cannot depend on itself")
    return order


def _cycle(waiting: dict[Function, None]) -> str:
    """Name a cycle among functions that wait for each other: follow their inputs until one comes again."""
    path: dict[Function, None] = {}
    function = next(iter(waiting))
    while function not in path:
        path[function] = None
        function = next(v.producer for v in function.inputs if v.producer in waiting)
    loop = list(path)[list(path).index(function) :]
    return " → ".join(step.operation.name for step in (function, *reversed(loop)))
