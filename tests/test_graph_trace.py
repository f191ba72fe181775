"""From a JAX function to its graph: what is followed, what is a constant, what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax.graph import Variable
from mlpjax.graph_trace import graph_gradient, graph_value_and_grad, trace_graph


def names(traced):
    return [function.operation.name for function in traced.graph.functions]


def test_inputs_and_outputs_have_the_trees_of_the_function(x64):
    def f(p, n):
        return {"sum": jnp.sum(p["w"]) * p["scale"], "n": n + 1, "pair": (p["w"] * 2, 7.0)}

    traced = trace_graph(f, {"w": jnp.ones(2), "scale": jnp.array(3.0)}, jnp.array(4))
    p, n = traced.inputs
    assert [p["scale"].name, p["w"].name] == ["args[0]['scale']", "args[0]['w']"]
    assert n == 4
    assert traced.graph.forward().tolist() == [2, 2]  # the first leaf of the result that is a node
    assert (traced.outputs["sum"].value, traced.outputs["n"], traced.outputs["pair"][1]) == (6, 5, 7)


def test_what_depends_on_no_input_is_a_constant():
    key, x = jax.random.key(0), jnp.arange(6.0).reshape(2, 3)

    def f(w):
        mask = jax.random.bernoulli(key, 0.5, (2,))
        data = jnp.cumsum(jnp.sin(x), axis=1) @ jax.lax.stop_gradient(jnp.ones(3))
        order = jnp.sort(data)  # not an operation of the graph, and need not be
        return jnp.sum(jnp.where(mask, order, 0.0) * w)

    w = jnp.array([2.0, 3.0])
    traced = trace_graph(f, w)
    assert names(traced) == ["mul", "reduce_sum"]
    constants = [variable for variable in traced.graph.inputs if variable.constant]
    assert len(constants) == 1
    np.testing.assert_allclose(traced.graph.forward(), f(w), rtol=1e-6)


@pytest.mark.parametrize("call", [
    jax.jit,
    lambda f: jax.jit(jax.jit(f)),
    jax.checkpoint,
    jax.custom_jvp,
    jax.custom_vjp,
    jax.named_call,
    jax.vmap,
])  # fmt: skip
def test_functions_that_are_called_stand_in_the_graph(call, x64):
    def inner(x):
        return jnp.tanh(x) * x

    f = call(inner)
    if isinstance(f, jax.custom_jvp):
        f.defjvp(lambda primals, tangents: (inner(*primals), 999 * tangents[0]))  # a rule that is not followed
    if isinstance(f, jax.custom_vjp):
        f.defvjp(lambda x: (inner(x), None), lambda _, g: (999 * g,))
    w = jnp.array([0.3, -1.2])
    value, gradient = graph_value_and_grad(lambda w: jnp.sum(f(w)))(w)
    expected = jax.value_and_grad(lambda w: jnp.sum(inner(w)))(w)
    np.testing.assert_allclose(value, expected[0], rtol=1e-14)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-14)


def test_a_function_of_many_parts(x64):
    def f(p, x):
        h = jax.nn.gelu(x @ p["w"] + p["b"][None, :])
        h = jnp.concatenate([h, h[:, :1], jnp.flip(h, 1)], axis=1)
        h = jax.nn.softmax(h, axis=1) + jax.nn.log_softmax(h, axis=1)
        h = jnp.clip(h, -2, 0.9) ** 3 / (1 + jnp.var(h, axis=0)[None, :])
        return jnp.mean(jax.nn.softplus(h) * jnp.linalg.norm(p["w"])) + jax.scipy.special.logsumexp(p["b"])

    rng = np.random.default_rng(0)
    p = {"w": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=4))}
    x = jnp.asarray(rng.normal(size=(5, 3)))
    for argnums in (0, 1):
        value, gradient = graph_value_and_grad(f, argnums)(p, x)
        expected_value, expected = jax.jit(jax.value_and_grad(f, argnums))(p, x)
        np.testing.assert_allclose(value, expected_value, rtol=1e-13)
        assert jax.tree.structure(gradient) == jax.tree.structure(expected)
        for got, right in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-11, atol=1e-14)


def test_constants_of_the_result_have_gradient_zero():
    (value, aux), gradient = graph_value_and_grad(lambda w: (jnp.array(3.0), w * 2), has_aux=True)(jnp.ones(2))
    assert (float(value), aux.tolist(), gradient.tolist()) == (3, [2, 2], [0, 0])


def test_keyword_arguments_pass_through():
    value, gradient = graph_value_and_grad(lambda w, *, power: jnp.sum(w**power))(jnp.array([2.0]), power=3)
    assert (float(value), gradient.tolist()) == (8, [12])


def test_what_it_returns_is_what_backward_returns():
    config = mlpjax.Config(sizes=(2, 3, 1), head="binary", dropout=0.5)
    params, state = mlpjax.init(config, jax.random.key(0))
    batch = mlpjax.Batch(np.ones((4, 2), np.float32), np.array([0, 1, 1, 0]))
    got = graph_gradient(config, params, state, batch, jax.random.key(1))
    expected = jax.jit(mlpjax.backward)(config, params, state, batch, jax.random.key(1))
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
    with pytest.raises(ValueError, match="training with dropout draws masks"):
        graph_gradient(config, params, state, batch)


def test_products_in_bfloat16():
    config = mlpjax.Config(sizes=(2, 3, 1), head="binary", compute_dtype="bfloat16")
    params, state = mlpjax.init(config, jax.random.key(0))
    batch = mlpjax.Batch(np.float32([[0.1, -0.7], [0.3, 0.9]]), np.array([0, 1]))
    got, expected = (f(config, params, state, batch) for f in (graph_gradient, jax.jit(mlpjax.autodiff)))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-5)  # a product may round the other way


def test_a_primitive_without_an_operation_is_named():
    with pytest.raises(mlpjax.InputError, match=r"no operation for the primitive 'sort'.*enter an Operation"):
        trace_graph(lambda w: jnp.sum(jnp.sort(w)), jnp.ones(3))
    with pytest.raises(mlpjax.InputError, match="primitive 'while'"):
        trace_graph(lambda w: jax.lax.while_loop(lambda v: v[0] < 3, lambda v: v * 2, w), jnp.ones(3))


def test_what_is_refused():
    w = jnp.ones(2)
    with pytest.raises(mlpjax.InputError, match=r"call it outside jax\.jit"):
        jax.jit(graph_value_and_grad(jnp.sum))(w)
    with pytest.raises(mlpjax.InputError, match=r"call it outside jax\.jit"):
        jax.jit(lambda v: graph_value_and_grad(lambda w: jnp.sum(w * v))(w))(w)
    with pytest.raises(mlpjax.InputError, match=r"an array of shape \(2,\): a gradient needs a scalar"):
        graph_value_and_grad(jnp.sin)(w)
    with pytest.raises(mlpjax.InputError, match="argument 1 has a leaf that is not of floating point"):
        graph_value_and_grad(lambda w, n: jnp.sum(w) * n["n"] * n["x"], 1)(w, {"n": 3, "x": 1.0})
    with pytest.raises(mlpjax.InputError, match="depends on no argument"):
        trace_graph(lambda w: jnp.ones(2), w)


def test_a_gradient_function_of_many_steps_trains(x64):
    """The graph takes the place of backward in a training loop, and ends where backward does."""
    config = mlpjax.Config(sizes=(2, 3, 1), activation="tanh", head="binary")
    batch = mlpjax.Batch(np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0]))
    ends = []
    for grad_fn in (graph_gradient, jax.jit(mlpjax.backward)):
        params, state = mlpjax.init(config, jax.random.key(0))
        for _ in range(20):
            _, grads = grad_fn(config, params, state, batch)
            params = jax.tree.map(lambda v, g: v - 0.5 * g, params, grads)
        ends.append(params)
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_the_graph_runs_again_on_new_values(x64):
    f = partial(mlpjax.gated.gelu)
    traced = trace_graph(lambda x: jnp.sum(f(x)), jnp.array([0.1, 0.2]))
    (x,) = traced.inputs
    assert isinstance(x, Variable)
    for value in (np.array([0.1, 0.2]), np.array([-3.0, 1.0])):
        x.value = value
        np.testing.assert_allclose(traced.graph.forward(), jnp.sum(f(value)), rtol=1e-14)
        traced.graph.backward()
        np.testing.assert_allclose(x.grad, mlpjax.gated.gelu_derivative(value), rtol=1e-13)
