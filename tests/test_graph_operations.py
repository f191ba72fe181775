"""Every operation of the computation graph: its value and its vjp against JAX's, and against differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mlpjax.graph import Function, Operation, Variable
from mlpjax.graph_operations import CROSS_ENTROPY, OPERATIONS, SOFTPLUS, SQUARED_ERROR
from mlpjax.graph_trace import trace_graph

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape)


def positive(*shape):
    return RNG.uniform(0.2, 2, shape)


def inside(*shape):
    return RNG.uniform(-0.9, 0.9, shape)


def unary(f, draw=normal):
    return [(f, (draw(3, 2),))]


def binary(f, draw=normal):
    return [(f, (draw(3, 2), draw(3, 2))), (lambda x: f(x, 0.7), (draw(4),)), (lambda y: f(0.7, y), (draw(4),))]


WHICH = np.array([[True, False], [False, True], [True, True]])
PROGRAMS = {
    "add": binary(lax.add),
    "sub": binary(lax.sub),
    "mul": binary(lax.mul),
    "div": [*binary(lax.div, positive), (lambda x: x * lax.div(jnp.array(-7), jnp.array(2)), (normal(2),))],
    "rem": [(lax.rem, (np.array([3.5, -3.5, 7.2]), np.array([1.4, 2.0, -3.0])))],
    "neg": unary(lax.neg),
    "exp": unary(lax.exp),
    "exp2": unary(lax.exp2),
    "expm1": unary(lax.expm1),
    "log": unary(lax.log, positive),
    "log1p": unary(lax.log1p, positive),
    "logistic": unary(lax.logistic),
    "tanh": unary(lax.tanh),
    "sinh": unary(lax.sinh),
    "cosh": unary(lax.cosh),
    "sin": unary(lax.sin),
    "cos": unary(lax.cos),
    "tan": unary(lax.tan, inside),
    "asin": unary(lax.asin, inside),
    "acos": unary(lax.acos, inside),
    "atan": unary(lax.atan),
    "asinh": unary(lax.asinh),
    "acosh": unary(lambda x: lax.acosh(x + 1), positive),
    "atanh": unary(lax.atanh, inside),
    "atan2": binary(lax.atan2, positive),
    "erf": unary(lax.erf),
    "erfc": unary(lax.erfc),
    "sqrt": unary(lax.sqrt, positive),
    "rsqrt": unary(lax.rsqrt, positive),
    "cbrt": unary(lax.cbrt, positive),
    "square": unary(lax.square),
    "integer_pow": [(lambda x, n=n: lax.integer_pow(x, n), (normal(3, 2),)) for n in (-2, -1, 2, 3, 5)],
    "pow": [*binary(lax.pow, positive), (lambda x: lax.pow(x, jnp.array([2, 0, 3])), (normal(3),))],
    "max": binary(lax.max),
    "min": binary(lax.min),
    "abs": unary(lax.abs),
    "clamp": [
        (lambda x: lax.clamp(np.float64(-0.5), x, np.float64(0.4)), (normal(5, 2),)),
        (lax.clamp, (normal(6) - 1, normal(6), normal(6) + 1)),
    ],
    "dot_general": [
        (jnp.matmul, (normal(3, 4), normal(4, 2))),
        (jnp.dot, (normal(4), normal(4))),
        (jnp.dot, (normal(3, 4), normal(4))),
        (lambda x, y: jnp.einsum("bij,bkj->bik", x, y), (normal(2, 3, 4), normal(2, 5, 4))),
        (lambda x, y: jnp.einsum("ibj,kjbl->bilk", x, y), (normal(3, 2, 4), normal(5, 4, 2, 2))),
        (lambda x, y: jnp.matmul(x, y, preferred_element_type=jnp.float64), (np.float32(normal(3, 4)), normal(4, 2))),
    ],
    "select_n": [
        (lambda x, y: lax.select_n(WHICH, x, y), (normal(3, 2), normal(3, 2))),
        (lambda x, y, z: lax.select_n(np.array([0, 2, 1], np.int32), x, y, z), (normal(3), normal(3), normal(3))),
        (lambda x, y: lax.select_n(np.array(True), x, y), (normal(3), normal(3))),
    ],
    "broadcast_in_dim": [
        (lambda x: lax.broadcast_in_dim(x, (3, 2, 4), (1,)), (normal(2),)),
        (lambda x: lax.broadcast_in_dim(x, (3, 2), (0, 1)), (normal(3, 1),)),
        (lambda x: lax.broadcast_in_dim(x, (2, 2), ()), (normal(),)),
    ],
    "reshape": [(lambda x: lax.reshape(x, (2, 6)), (normal(3, 4),))],
    "squeeze": [(lambda x: lax.squeeze(x, (0, 2)), (normal(1, 3, 1),))],
    "transpose": [(lambda x: lax.transpose(x, (2, 0, 1)), (normal(2, 3, 4),))],
    "rev": [(lambda x: lax.rev(x, (0, 2)), (normal(2, 3, 4),))],
    "slice": [
        (lambda x: lax.slice(x, (1, 0), (4, 2)), (normal(5, 3),)),
        (lambda x: lax.slice(x, (0,), (7,), (3,)), (normal(8),)),
    ],
    "concatenate": [(lambda x, y, z: lax.concatenate((x, y, z), 1), (normal(2, 1), normal(2, 3), normal(2, 2)))],
    "reduce_sum": [(lambda x: jnp.sum(x, 1), (normal(3, 4),)), (lambda x: jnp.sum(x, (0, 2)), (normal(2, 3, 4),))],
    "reduce_max": [
        (lambda x: jnp.max(x, (0, 2)), (normal(2, 3, 4),)),
        (lambda x: jnp.max(x, 1), (np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]),)),
    ],
    "reduce_min": [(lambda x: jnp.min(x, 1), (np.array([[1.0, 3.0, 1.0], [0.0, 2.0, 5.0]]),))],
    "cumsum": [(lambda x, r=r: lax.cumsum(x, 1, reverse=r), (normal(2, 4),)) for r in (False, True)],
    "convert_element_type": [
        (lambda x: x.astype(jnp.float32), (normal(3),)),
        (lambda x: x * x.astype(jnp.int32), (3 * normal(4),)),
        (lambda x: x.astype(jnp.bfloat16).astype(jnp.float64) * x, (normal(3),)),
    ],
    "copy": [(jnp.copy, (normal(3),))],
}
"""Programs by the primitive that each uses, on inputs where it is smooth (ties of max and min included)."""
STILL = {
    "stop_gradient": lambda x: lax.stop_gradient(x) * x,
    "sign": lambda x: lax.sign(x) * x,
    "floor": lambda x: lax.floor(x) * x,
    "ceil": lambda x: lax.ceil(x) * x,
    "round": lambda x: jnp.round(2 * x) + lax.round(2 * x, lax.RoundingMethod.AWAY_FROM_ZERO) * x,
    "is_finite": lambda x: lax.is_finite(x) * x,
    "eq": lambda x: (x == 0.5) * x,
    "ne": lambda x: (x != 0.5) * x,
    "lt": lambda x: (x < 0.5) * x,
    "le": lambda x: (x <= 0.5) * x,
    "gt": lambda x: (x > 0.5) * x,
    "ge": lambda x: (x >= 0.5) * x,
    "and": lambda x: ((x > 0) & (x < 0.5)) * x,
    "or": lambda x: ((x < 0) | (x > 0.5)) * x,
    "xor": lambda x: ((x < 0.5) ^ (x > 0)) * x,
    "not": lambda x: ~(x > 0) * x,
    "shift_left": lambda x: (x.astype(jnp.int32) << 2) * x,
    "shift_right_logical": lambda x: lax.shift_right_logical((4 * x).astype(jnp.int32), jnp.int32(1)) * x,
    "bitcast_convert_type": lambda x: lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32) * x,
    "reduce_and": lambda x: jnp.all(x > -9) * x,
    "reduce_or": lambda x: jnp.any(x > 1) * x,
    "argmax": lambda x: jnp.argmax(x, axis=1)[:, None] * x,
    "argmin": lambda x: jnp.argmin(x, axis=1)[:, None] * x,
    "iota": lambda x: lax.iota(jnp.float64, 4)[None, :] * x,
}
"""Programs with a factor that no gradient flows through."""
AROUND_ZERO = np.array([[0.5, -1.2, 0.0, 2.7], [1.5, -0.5, 2.5, -3.0]])


def by_jax(f, inputs, upstream):
    """Value and vjp, by JAX."""
    value, vjp = jax.vjp(f, *inputs)
    return value, vjp(upstream)


def upstream_of(f, inputs):
    z = jax.eval_shape(f, *inputs)
    return np.random.default_rng(1).normal(size=z.shape).astype(z.dtype)


def compare(f, inputs, expected, tol):
    """Value and vjp of the graph of f with those of JAX; returns the operations of the graph."""
    value, gradients = expected
    traced = trace_graph(f, *inputs)
    got = traced.graph.forward()
    assert got.dtype == value.dtype
    np.testing.assert_allclose(np.float64(got), np.float64(value), rtol=tol, atol=tol)
    traced.graph.backward(upstream_of(f, inputs))
    for variable, gradient in zip(traced.inputs, gradients, strict=True):
        got = np.zeros_like(variable.value) if variable.grad is None else variable.grad
        assert got.dtype == gradient.dtype
        np.testing.assert_allclose(got, gradient, rtol=tol, atol=tol)
    return {function.operation.name for function in traced.graph.functions}


def check_against_jax(f, inputs, tol=1e-13):
    return compare(f, inputs, by_jax(f, inputs, upstream_of(f, inputs)), tol)


ALL = {**PROGRAMS, **{name: [(f, (AROUND_ZERO,))] for name, f in STILL.items()}}


@pytest.fixture(scope="module")
def expected():
    """What JAX says of every program, compiled at once."""
    with jax.enable_x64(True):
        arguments = {name: [(i, upstream_of(f, i)) for f, i in programs] for name, programs in ALL.items()}

        def run(arguments):
            return {
                name: [by_jax(f, *given) for (f, _), given in zip(ALL[name], arguments[name], strict=True)]
                for name in arguments
            }

        return jax.jit(run)(arguments)


@pytest.mark.parametrize("name", ALL)
def test_value_and_vjp_are_those_of_jax(name, expected, x64):
    for (f, inputs), right in zip(ALL[name], expected[name], strict=True):
        used = compare(f, inputs, right, 1e-12)
        assert name in used or name in ("div", "iota")  # which are constants in these


def test_every_operation_has_a_program():
    assert {*PROGRAMS, *STILL} == set(OPERATIONS)


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"convert_element_type", "reduce_max", "reduce_min"}))
def test_vjp_is_the_limit_of_differences(name, x64):
    """Along random directions: ⟨upstream, f(x + hv) − f(x − hv)⟩/2h against ⟨vjp(upstream), v⟩."""
    h = 1e-6
    for f, inputs in PROGRAMS[name][:1]:
        traced = trace_graph(f, *inputs)
        upstream = RNG.normal(size=traced.graph.forward().shape)
        traced.graph.backward(upstream)
        directions = [RNG.normal(size=np.shape(value)) for value in inputs]
        slope = sum(np.sum(v.grad * d) for v, d in zip(traced.inputs, directions, strict=True))
        ends = []
        for sign in (1, -1):
            for variable, value, direction in zip(traced.inputs, inputs, directions, strict=True):
                variable.value = value + sign * h * direction
            ends.append(traced.graph.forward())
        assert np.sum(upstream * (ends[0] - ends[1])) / (2 * h) == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("f", [jnp.maximum, jnp.minimum])
def test_ties_are_halved(f, x64):
    check_against_jax(f, (np.array([1.0, 2.0, np.nan]), np.array([1.0, 3.0, 0.0])))


def test_special_points(x64):
    check_against_jax(lambda x: lax.pow(x, 3.0) + lax.pow(x, jnp.array(0)), (np.array([0.0, -0.0]),))
    check_against_jax(lambda x, y: lax.pow(x, y), (np.array([0.0, 1.0]), np.array([2.0, 0.0])))
    check_against_jax(lambda z: lax.logistic(z), (np.array([-800.0, 800.0, 0.0]),))
    # x⁰ is constant, where JAX has NaN for the exponent 0.0
    assert OPERATIONS["pow"].vjp(np.float64(1), np.float64(1), np.array(0.0), np.array(0.0))[0] == 0
    # the package's convention for |w|, where jnp.abs has 1
    assert OPERATIONS["abs"].vjp(np.float64(1), np.float64(0), np.array(0.0)) == (0.0,)


@pytest.mark.parametrize(("operation", "f"), [
    (SQUARED_ERROR, lambda yhat, y: (yhat - y) ** 2 / 2),
    (CROSS_ENTROPY, lambda yhat, y: -(y * jnp.log(yhat) + (1 - y) * jnp.log(1 - yhat))),
    (SOFTPLUS, lambda x: jnp.log(1 + jnp.exp(x))),
])  # fmt: skip
def test_the_lectures_own_nodes(operation, f, x64):
    count = f.__code__.co_argcount
    values = [RNG.uniform(0.1, 0.9, (3, 2)) for _ in range(count)]
    node = Function(operation, map(Variable, values), Variable())
    expected, vjp = jax.vjp(f, *values)
    np.testing.assert_allclose(node.forward(), expected, rtol=1e-13)
    upstream = RNG.normal(size=(3, 2))
    for got, gradient in zip(node.backward(upstream), vjp(upstream), strict=True):
        np.testing.assert_allclose(got, gradient, rtol=1e-12)


def test_softplus_keeps_its_tails():
    z = np.array([-700.0, 0.0, 1e4])
    node = Function(SOFTPLUS, [Variable(z)], Variable())
    assert node.forward().tolist() == [np.exp(-700.0), np.log(2), 1e4]
    assert node.backward(np.ones(3))[0].tolist() == [np.exp(-700.0), 0.5, 1.0]


def test_the_table_is_open(x64, monkeypatch):
    lgamma = np.vectorize(math.lgamma)
    with pytest.raises(ValueError, match="no operation for the primitive 'lgamma'"):
        trace_graph(lax.lgamma, np.array(2.5))
    entry = Operation("lgamma", lgamma, lambda g, z, x: (g * (lgamma(x + 1e-6) - lgamma(x - 1e-6)) / 2e-6,))
    monkeypatch.setitem(OPERATIONS, "lgamma", entry)
    check_against_jax(lax.lgamma, (np.array([2.5, 0.7]),), 1e-8)
