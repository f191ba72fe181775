"""Checks of the section *Computation graph*: function nodes, the order in which they are visited, and modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.errors import InputError
from mlpjax.graph import Function, Graph, Variable, apply
from mlpjax.graph_modules import dense, matmul, total
from mlpjax.graph_operations import CROSS_ENTROPY, OPERATIONS, SOFTPLUS, SQUARED_ERROR
from mlpjax.graph_order import topological_order
from mlpjax.graph_trace import graph_value_and_grad

TANH, MUL, SIN = (OPERATIONS[name] for name in ("tanh", "mul", "sin"))


def _random_function(seed: int, steps: int = 15) -> Callable[[Sequence[Any], Callable[..., Any]], Any]:
    """A random composition of three arguments; ``call(name, …)`` says how an operation is applied."""
    rng = np.random.default_rng(seed)
    program = [(str(rng.choice(["mul", "add", "sub"])), int(rng.integers(0, n + 3))) for n in range(steps)]

    def run(inputs: Sequence[Any], call: Callable[..., Any]) -> Any:
        values = list(inputs)
        for name, other in program:
            values.append(call("sin", call(name, values[-1], values[other])))
        return values[-1]

    return run


def graph_passes() -> tuple[Claim, ...]:
    """The forward pass gives the output, the backward pass the gradient: as `jax.value_and_grad`, for any function."""

    def f(p: Any, x: Any) -> jax.Array:
        return jnp.mean(jnp.log1p(jnp.exp(x @ p["W"] + p["b"][None, :])) / (1 + p["b"] ** 2)[None, :])

    rng = np.random.default_rng(1)
    p, x = {"W": rng.normal(size=(3, 2)), "b": rng.normal(size=2)}, rng.normal(size=(4, 3))
    value, gradient = graph_value_and_grad(f)(p, x)
    expected, right = jax.jit(jax.value_and_grad(f))(p, x)
    return (
        agree("value", value, expected),
        agree("∂f/∂W", gradient["W"], right["W"]),
        agree("∂f/∂b", gradient["b"], right["b"]),
    )


def graph_node_forward() -> tuple[Claim, ...]:
    """A function node computes z = f(x, y) and keeps x, y and z."""
    x, y, z = Variable([1.0, 2.0]), Variable([3.0, -4.0]), Variable()
    node = Function(MUL, (x, y), z)
    before = z.value
    returned = node.forward()
    return (
        holds("before the pass there is no z", before is None, before),
        equal("z = x y", returned, [3.0, -8.0]),
        equal("z is stored", node.output.value, returned),
        equal("x and y are at hand", [variable.value for variable in node.inputs], [[1.0, 2.0], [3.0, -4.0]]),
    )


def _product_node() -> tuple[Function, np.ndarray]:
    """The node z = x W, and an upstream gradient ∂l/∂z."""
    rng = np.random.default_rng(2)
    node = matmul(Variable(rng.normal(size=(2, 3))), Variable(rng.normal(size=(3, 4)))).producer
    assert node is not None
    node.forward()
    return node, rng.normal(size=(2, 4))


def graph_node_local() -> tuple[Claim, ...]:
    """The local gradients of z = x W are ∂z_ij/∂x_kl = δ_ik W_lj and ∂z_ij/∂W_kl = x_ik δ_jl."""
    node, _ = _product_node()
    dx, dW = node.local_gradients()
    x, W = (variable.value for variable in node.inputs)
    jacobians = jax.jit(jax.jacrev(jnp.matmul, (0, 1)))(x, W)
    return (
        agree("∂z/∂x (2, 4, 2, 3)", dx, np.einsum("ik,lj->ijkl", np.eye(2), W)),
        agree("∂z/∂W (2, 4, 3, 4)", dW, np.einsum("ik,jl->ijkl", x, np.eye(4))),
        agree("∂z/∂x against jax.jacrev", dx, jacobians[0]),
        agree("∂z/∂W against jax.jacrev", dW, jacobians[1]),
    )


@printed("err-graph-jacobian", lambda upstream, local: upstream * local)
def graph_node_backward(
    form: Callable[..., Any] = lambda upstream, local: np.tensordot(upstream, local, upstream.ndim),
) -> tuple[Claim, ...]:
    """Back along each input goes Σ over the elements of z of upstream × local, which has the shape of the input."""
    node, upstream = _product_node()
    dx, dW = node.backward(upstream)
    x, W = (variable.value for variable in node.inputs)
    right = jax.jit(lambda x, W, g: jax.vjp(jnp.matmul, x, W)[1](g))(x, W, upstream)
    return (
        agree("dx against jax.vjp", dx, right[0]),
        agree("dW against jax.vjp", dW, right[1]),
        *(
            agree(f"{name} = upstream × local", form(upstream, local), gradient)
            for name, local, gradient in zip(("dx", "dW"), node.local_gradients(), (dx, dW), strict=True)
        ),
    )


def graph_node_summary() -> tuple[Claim, ...]:
    """Every operation keeps the contract: backward is upstream × local, and local is the limit of differences."""
    rng = np.random.default_rng(3)
    unary = [OPERATIONS[name] for name in ("neg", "exp", "log", "logistic", "tanh", "sqrt", "square")] + [SOFTPLUS]
    binary = [OPERATIONS[name] for name in ("add", "sub", "mul", "div", "max", "pow")] + [SQUARED_ERROR, CROSS_ENTROPY]
    claims = []
    for operation, count in [*((one, 1) for one in unary), *((two, 2) for two in binary)]:
        values = [rng.uniform(0.1, 0.9, (2, 3)) for _ in range(count)]
        node = Function(operation, [Variable(value) for value in values], Variable())
        upstream, h, differences = rng.normal(size=node.forward().shape), 1e-6, []
        for position, value in enumerate(values):
            ends = [[*values[:position], value + step, *values[position + 1 :]] for step in (h, -h)]
            above, below = (operation.forward(*end) for end in ends)
            differences.append(upstream * (above - below) / (2 * h))
        claims.append(agree(f"{operation.name}: backward", node.backward(upstream), differences, 1e-7))
        contracted = [np.tensordot(upstream, np.asarray(local), upstream.ndim) for local in node.local_gradients()]
        claims.append(agree(f"{operation.name}: upstream × local", contracted, node.backward(upstream)))
    return tuple(claims)


def graph_forward_topo() -> tuple[Claim, ...]:
    """The order visits each function once, after those it takes values from; a cycle has no order and is refused."""
    build = _random_function(4)
    order = topological_order([build([Variable(0.1) for _ in range(3)], lambda f, *v: apply(OPERATIONS[f], *v))])
    place = {function: number for number, function in enumerate(order)}
    forward = [place[v.producer] < place[function] for function in order for v in function.inputs if v.producer]
    a, b = Variable(name="a"), Variable(name="b")
    Function(SIN, [a], b)
    Function(TANH, [b], a)
    try:
        refused = f"an order of {len(topological_order([a]))} functions"
    except InputError as error:
        refused = str(error)
    return (
        equal("each function once", [len(order), len(place)], [30, 30]),
        holds("every edge goes forward", all(forward), f"{sum(forward)} of {len(forward)} edges"),
        holds("a cycle is named", "cycle: sin → tanh → sin" in refused or "tanh → sin → tanh" in refused, refused),
    )


def graph_backward_topo() -> tuple[Claim, ...]:
    """In reverse order every variable has its whole gradient before it is used: as `jax.grad` on a random graph."""
    build, values = _random_function(5), [0.3, -0.8, 1.1]
    functions: dict[str, Any] = {"sin": jnp.sin, "mul": jnp.multiply, "add": jnp.add, "sub": jnp.subtract}
    right = jax.jit(jax.grad(lambda inputs: build(inputs, lambda f, *v: functions[f](*v))))(values)
    inputs = [Variable(value) for value in values]
    graph = Graph(build(inputs, lambda f, *v: apply(OPERATIONS[f], *v)))
    graph.forward()
    graph.backward()
    uses = max(sum(v is variable for f in graph.functions for v in f.inputs) for variable in inputs)
    return (
        agree("the gradient against jax.grad", [variable.grad for variable in inputs], right),
        holds("a variable is used more than once", uses > 1, f"{uses} uses"),
    )


@printed("err-graph-fanout", lambda shares: shares[-1])
def graph_fanout(form: Callable[[list[Any]], Any] = sum) -> tuple[Claim, ...]:
    """A variable used k times receives the sum of the k gradients: x in (x y) sin x."""
    x, y = Variable(0.7, "x"), Variable(-1.3, "y")
    graph = Graph(apply(MUL, apply(MUL, x, y), apply(SIN, x)))
    graph.value_and_gradients()
    shares = [
        gradient
        for function in graph.functions
        for variable, gradient in zip(function.inputs, function.gradients, strict=True)
        if variable is x
    ]
    return (
        equal("two uses", len(shares), 2),
        agree("the sum of the shares", form(shares), x.grad),
        agree("dl/dx = y sin x + x y cos x", x.grad, -1.3 * np.sin(0.7) - 1.3 * 0.7 * np.cos(0.7)),
        agree("against jax.grad", x.grad, jax.jit(jax.grad(lambda x: (x * -1.3) * jnp.sin(x)))(0.7)),
    )


def graph_custom_node() -> tuple[Claim, ...]:
    """A node of one's own, softplus with f and its local gradient side by side, works in any graph."""
    x = Variable([-2.0, 0.5, 3.0], "x")
    _, gradients = Graph(total(apply(MUL, apply(SOFTPLUS, x), x))).value_and_gradients()
    right = jax.jit(jax.grad(lambda x: jnp.sum(jnp.logaddexp(x, 0) * x)))(x.value)
    far = Function(SOFTPLUS, [Variable([-1e4, 1e4])], Variable())
    return (
        agree("against jax.grad", gradients["x"], right),
        equal("softplus(±10⁴)", far.forward(), [0.0, 1e4]),
        equal("its slope there", far.backward(np.ones(2))[0], [0.0, 1.0]),
    )


def graph_module() -> tuple[Claim, ...]:
    """A dense layer as one node gives what its three nodes give."""
    rng = np.random.default_rng(6)
    inputs = [Variable(rng.normal(size=shape), name) for name, shape in (("x", (4, 3)), ("W", (3, 2)), ("b", (2,)))]
    layer = dense(TANH)
    results, counts = [], []
    for wrap in (layer.unfolded, layer.folded):
        graph = Graph(total(wrap(*inputs)))
        results.append(graph.value_and_gradients())
        counts.append(len(graph.functions))
    (value, gradients), (folded, of_folded) = results
    return (
        equal("functions in the graph", counts, [4, 2]),
        equal("value", folded, value),
        *(equal(f"d{name}", of_folded[name], gradients[name]) for name in ("x", "W", "b")),
    )
