"""From a JAX function to its computation graph, and the graph as a third provider of the network's gradients.

`jax.make_jaxpr` says which primitives a function applies to what; each becomes a node of `mlpjax.graph` with the
operation of that name in `mlpjax.graph_operations`. What does not depend on an input that gradients flow to (data,
labels, random masks) is computed on the way and stands in the graph as a constant.

JAX differentiates nothing here: the values are NumPy's and the derivatives are those beside each operation. A
function with a derivative rule of its own (``jax.custom_jvp``, ``jax.custom_vjp``) is differentiated as it is
computed, without the rule: at 0 ``jax.nn.relu``, a maximum, gives ½ here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from mlpjax.config import Config
from mlpjax.errors import InputError, listed
from mlpjax.graph import Graph, Variable, apply
from mlpjax.graph_operations import OPERATIONS
from mlpjax.mlp import loss
from mlpjax.parameters import Aux, Batch, Params, State

_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Where an equation keeps the function that it calls."""
_CALLS = ("jit", "closed_call", "eval_jaxpr", "custom_jvp_call", "custom_vjp_call", "remat2")
"""The primitives that call a function once, as it is."""


class Traced(NamedTuple):
    """A function's graph: ``inputs`` and ``outputs`` have the trees of its arguments and of its result.

    The leaves are variables, but for what takes no part in the graph: arguments that are no floating point numbers,
    and results that depend on none that are. Those are values.
    """

    graph: Graph
    inputs: Any
    outputs: Any


def trace_graph(f: Callable[..., Any], *args: Any) -> Traced:
    """Turn ``f(*args)``, any JAX function of the supported primitives, into a graph.

    Every leaf of ``args`` of floating point becomes an input variable that has its value and is named by its place.
    The graph is that of these shapes and of the values of everything else; it has not been run yet.

    Raises:
        InputError: f uses a primitive without an operation on something that depends on an input (the message names
            it), nothing that f returns depends on an input, or JAX is tracing the arguments.

    Source: ``graph-passes``, ``fw-colab-sum``, ``err-colab-cut``.

    >>> traced = trace_graph(lambda w: jnp.sum(w * jnp.sin(w)), jnp.array([0.0, 1.0]))
    >>> [function.operation.name for function in traced.graph.functions]
    ['sin', 'mul', 'reduce_sum']
    >>> print(traced.graph.forward().round(3))
    0.841
    """
    closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    paths, tree = jax.tree_util.tree_flatten_with_path(args)
    inputs = []
    for path, leaf in paths:
        value = _plain(leaf)
        real = jnp.issubdtype(value.dtype, jnp.floating)
        inputs.append(Variable(value, f"args{jax.tree_util.keystr(path)}") if real else value)
    found = _follow(closed.jaxpr, [_plain(constant) for constant in closed.consts], inputs)
    results = [value for value in found if isinstance(value, Variable)]
    if not results:
        raise InputError("what the function returns depends on no argument of floating point: there is no graph of it")
    return Traced(
        Graph(*results), jax.tree.unflatten(tree, inputs), jax.tree.unflatten(jax.tree.structure(shapes), found)
    )


def graph_value_and_grad(f: Callable[..., Any], argnums: int = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """Return the function that gives ``(f(…), ∂f/∂args[argnums])`` by the graph, as `jax.value_and_grad` does.

    Args:
        f: a JAX function whose result, or the first of ``(result, aux)``, is a scalar.
        argnums: the argument to differentiate; the leaves of it must be of floating point.
        has_aux: whether f returns ``(result, aux)``; the function then returns ``((result, aux), gradient)``.

    Raises:
        InputError: f does not return a scalar, or `trace_graph` refuses it.

    Source: ``graph-passes``, ``graph-backward-topo``.

    >>> graph_value_and_grad(lambda w: jnp.sum(w**3))(jnp.array([1.0, 2.0]))
    (Array(9., dtype=float32), Array([ 3., 12.], dtype=float32))
    """

    def value_and_grad(*args: Any, **options: Any) -> Any:
        def of_one(argument: Any) -> Any:
            return f(*args[:argnums], argument, *args[argnums + 1 :], **options)

        graph, (inputs,), outputs = trace_graph(of_one, args[argnums])
        if not all(isinstance(leaf, Variable) for leaf in jax.tree.leaves(inputs)):
            raise InputError(f"argument {argnums} has a leaf that is not of floating point: it has no gradient")
        graph.forward()
        result = outputs[0] if has_aux else outputs
        if np.shape(_value(result)) != ():
            raise InputError(
                f"the function returned an array of shape {np.shape(_value(result))}: a gradient needs a scalar"
            )
        if result is graph.outputs[0]:  # otherwise it is a constant
            graph.backward()
        gradient = jax.tree.map(lambda v: jnp.asarray(np.zeros_like(v.value) if v.grad is None else v.grad), inputs)
        return jax.tree.map(lambda leaf: jnp.asarray(_value(leaf)), outputs), gradient

    return value_and_grad


def graph_gradient(
    config: Config, params: Params, state: State, batch: Batch, key: jax.Array | None = None, *, train: bool = True
) -> tuple[tuple[jax.Array, Aux], Params]:
    """Return what `mlpjax.backward` returns, by the backward pass of the computation graph of `mlpjax.loss`.

    It needs values, so it is called outside ``jax.jit``. Source: ``graph-backward-topo``, ``graph-passes``.

    >>> config = Config(sizes=(2, 3), init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> (J, aux), grads = graph_gradient(config, params, state, Batch(jnp.ones((1, 2)), jnp.array([0])))
    >>> grads[0].b.round(4)  # ŷ − y, as backward and autodiff say
    Array([-0.6667,  0.3333,  0.3333], dtype=float32)
    """
    return graph_value_and_grad(loss, argnums=1, has_aux=True)(config, params, state, batch, key, train=train)


def _follow(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Follow a jaxpr's equations; its variables are graph variables, or values where nothing depends on an input."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def read(atom: Any) -> Any:
        aval: Any = atom.aval
        return np.asarray(atom.val, aval.dtype) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        known.update(zip(equation.outvars, _outputs(equation, inputs), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _outputs(equation: JaxprEqn, inputs: list[Any]) -> list[Any]:
    name = equation.primitive.name
    if name in _CALLS:
        body = next(equation.params[key] for key in _BODIES if key in equation.params)
        if isinstance(body, ClosedJaxpr):
            return _follow(body.jaxpr, [_plain(constant) for constant in body.consts], inputs)
        return _follow(body, [], inputs)
    depends = any(isinstance(value, Variable) for value in inputs)
    if name in OPERATIONS:
        operation = OPERATIONS[name]
        options = {option: equation.params[option] for option in operation.options}
        if depends:
            nodes = [value if isinstance(value, Variable) else Variable(value, constant=True) for value in inputs]
            return [apply(operation, *nodes, **options)]
        with np.errstate(all="ignore"):
            return [np.asarray(operation.forward(*inputs, **options))]
    if depends:
        raise InputError(
            f"the graph has no operation for the primitive {name!r}, which the function applies to what depends on its "
            "arguments: write it with others, or enter an Operation of that name into "
            f"mlpjax.graph_operations.OPERATIONS; known: {listed(sorted(OPERATIONS), most=100)}"
        )
    # whatever it is, it is a constant: JAX may compute it
    found = equation.primitive.bind(*inputs, **equation.params)
    return [_plain(value) for value in (found if equation.primitive.multiple_results else [found])]


def _plain(value: Any) -> Any:
    """A NumPy array of JAX's dtype; a random key, which has no values of its own, stays."""
    if isinstance(value, jax.core.Tracer):
        raise InputError("a graph is made of values, and JAX is tracing them: call it outside jax.jit, grad and vmap")
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    return np.asarray(value, jnp.result_type(value))


def _value(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, Variable) else leaf
