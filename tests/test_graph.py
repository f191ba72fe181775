"""The computation graph: order, both passes, modules, and what is refused."""

import ast
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax.cases import make_case
from mlpjax.graph import Function, Graph, Operation, Variable, apply
from mlpjax.graph_modules import Module, dense, logistic_regression, matmul, single_layer, total, two_layers
from mlpjax.graph_operations import CROSS_ENTROPY, OPERATIONS, SQUARED_ERROR
from mlpjax.graph_order import topological_order

TANH, MUL, SIN, ADD = (OPERATIONS[name] for name in ("tanh", "mul", "sin", "add"))
RNG = np.random.default_rng(0)


def named(**values):
    return [Variable(value, name) for name, value in values.items()]


def random_graph(rng, size):
    """A random graph over three vectors, and the same function in JAX."""
    names = ["sin", "tanh", "mul", "add", "sub", "logistic", "max"]
    steps = []
    for number in range(size):
        name = str(rng.choice(names))
        count = 1 if name in ("sin", "tanh", "logistic") else 2
        # the latest value always takes part, so that the last one depends on many
        sources = [number + 2, *rng.integers(0, number + 3, count - 1)]
        steps.append((name, [int(source) for source in rng.permutation(sources)]))

    def build(variables):
        for name, sources in steps:
            variables.append(apply(OPERATIONS[name], *(variables[source] for source in sources)))
        return total(variables[-1])

    functions = {"sin": jnp.sin, "tanh": jnp.tanh, "mul": jnp.multiply, "add": jnp.add, "sub": jnp.subtract,
                 "logistic": jax.nn.sigmoid, "max": jnp.maximum}  # fmt: skip

    def in_jax(values):
        values = list(values)
        for name, sources in steps:
            values.append(functions[name](*(values[source] for source in sources)))
        return jnp.sum(values[-1])

    return build, in_jax


@pytest.mark.parametrize("seed", range(6))
def test_backward_is_the_gradient_of_random_graphs(seed, x64):
    rng = np.random.default_rng(seed)
    build, in_jax = random_graph(rng, 12)
    values = rng.normal(size=(3, 4))
    inputs = [Variable(value) for value in values]
    graph = Graph(build(list(inputs)))
    value, gradient = jax.value_and_grad(in_jax)(jnp.asarray(values))
    np.testing.assert_allclose(graph.forward(), value, rtol=1e-13)
    graph.backward()
    got = [np.zeros(4) if variable.grad is None else variable.grad for variable in inputs]
    np.testing.assert_allclose(got, gradient, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_every_edge_goes_forward(seed):
    build, _ = random_graph(np.random.default_rng(seed), 40)
    order = topological_order([build([Variable(np.ones(2)) for _ in range(3)])])
    place = {function: number for number, function in enumerate(order)}
    assert len(place) == len(order)
    for function in order:
        for variable in function.inputs:
            assert variable.producer is None or place[variable.producer] < place[function]


def test_a_variable_used_many_times_gets_the_sum():
    # l = x y + sin x, the lecture's two-variable chain rule
    x, y = named(x=2.0, y=5.0)
    graph = Graph(apply(ADD, apply(MUL, x, y), apply(SIN, x)))
    graph.forward()
    graph.backward()
    assert (x.grad, y.grad) == (pytest.approx(5 + np.cos(2)), 2)
    first, second = graph.functions[0], graph.functions[1]
    assert x.grad == sum(function.gradients[0] for function in (first, second))
    graph.backward()  # a second pass starts anew
    assert x.grad == pytest.approx(5 + np.cos(2))


def test_a_long_chain_is_quick():
    x = Variable(1.0, "x")
    v = x
    for _ in range(10_000):
        v = apply(SIN, v)
    started = time.perf_counter()
    graph = Graph(v)
    graph.forward()
    graph.backward()
    assert time.perf_counter() - started < 5
    z, slope = 1.0, 1.0
    for _ in range(10_000):
        slope, z = slope * np.cos(z), np.sin(z)
    assert v.value == z
    assert x.grad == pytest.approx(slope, rel=1e-9)


def test_a_wide_fan_out():
    x = Variable(2.0, "x")
    parts = [apply(MUL, x, Variable(float(k))) for k in range(200)]
    while len(parts) > 1:
        parts.append(apply(ADD, parts.pop(0), parts.pop(0)))
    assert Graph(parts[0]).value_and_gradients() == (2.0 * 19900, {"x": 19900.0})


def test_new_values_are_followed():
    x, y = named(x=2.0, y=5.0)
    graph = Graph(apply(MUL, x, y, name="z"))
    assert graph.forward() == 10
    x.value = 3
    assert graph.value_and_gradients() == (15, {"x": 5, "y": 3})


def test_local_gradients_are_jacobians(x64):
    x, W = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 4))
    node = matmul(Variable(x), Variable(W)).producer
    for got, expected in zip(node.local_gradients(), jax.jacobian(jnp.matmul, (0, 1))(x, W), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-15)
    upstream = RNG.normal(size=(2, 4))
    contracted = [np.tensordot(upstream, jacobian, 2) for jacobian in node.local_gradients()]
    for got, expected in zip(node.backward(upstream), contracted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13)
    sign = Function(OPERATIONS["sign"], [Variable(np.ones(2))], Variable())
    assert sign.local_gradients() == (None,)


def test_upstream_continues_a_graph():
    x, W = Variable(RNG.normal(size=(2, 3)), "x"), Variable(RNG.normal(size=(3, 4)), "W")
    graph = Graph(matmul(x, W))
    graph.forward()
    graph.backward(np.ones((2, 4)))
    np.testing.assert_allclose(W.grad, x.value.T @ np.ones((2, 4)))


def test_data_and_what_l_does_not_depend_on_get_no_gradient():
    x, step = Variable(2.0, "x"), Variable(3.0, "step")
    data = Variable(4.0, "data", constant=True)
    graph = Graph(apply(ADD, apply(MUL, x, data), apply(OPERATIONS["sign"], step)))
    graph.forward()
    graph.backward()
    assert (x.grad, step.grad, data.grad) == (4, None, None)


def test_a_graph_of_one_variable():
    x = Variable(3.0, "x")
    assert Graph(x).value_and_gradients() == (3.0, {"x": 1.0})


def test_single_layer_in_columns_is_the_transpose(x64):
    x, W, c = RNG.normal(size=(5, 3)), RNG.normal(size=(3, 2)), RNG.normal(size=(5, 2))
    rows = Variable(W, "W")
    value, gradients = Graph(
        single_layer(Variable(x, constant=True), rows, Variable(c, constant=True), TANH).l
    ).value_and_gradients()
    columns = Variable(W.T, "W")
    slide = total(apply(SQUARED_ERROR, apply(TANH, matmul(columns, Variable(x.T))), Variable(c.T)))
    value_of_slide, of_slide = Graph(slide).value_and_gradients()
    np.testing.assert_allclose(value, value_of_slide, rtol=1e-14)
    np.testing.assert_allclose(gradients["W"], of_slide["W"].T, rtol=1e-13)


@pytest.mark.parametrize("folded", [False, True])
def test_two_layers_are_the_network_of_the_package(folded, x64):
    config = mlpjax.Config(sizes=(3, 4, 2), activation=("tanh",), head="regression")
    case = make_case(config)
    params = [(Variable(layer.W, f"W{l}"), Variable(layer.b, f"b{l}")) for l, layer in enumerate(case.params, 1)]
    identity = Operation("identity", lambda z: z, lambda g, a, z: (g,))
    one, two = dense(TANH, "one"), dense(identity, "two")
    x = Variable(case.batch.x, constant=True)
    yhat = (two.folded if folded else two.unfolded)((one.folded if folded else one.unfolded)(x, *params[0]), *params[1])
    l = total(apply(SQUARED_ERROR, yhat, Variable(case.batch.y, constant=True)))
    value, gradients = Graph(l).value_and_gradients()
    (J, _), grads = case.call(mlpjax.backward)
    m = len(case.batch.x)
    assert value / m == pytest.approx(float(J), rel=1e-14)
    for l, layer in enumerate(grads, 1):
        np.testing.assert_allclose(gradients[f"W{l}"] / m, layer.W, rtol=1e-12)
        np.testing.assert_allclose(gradients[f"b{l}"] / m, layer.b, rtol=1e-12)


def test_folded_modules_give_the_same():
    x, c = named(x=RNG.normal(size=(4, 3)), c=RNG.normal(size=(4, 3)))
    layers = [(Variable(RNG.normal(size=(3, 3)), f"W{l}"), Variable(RNG.normal(size=3), f"b{l}")) for l in (1, 2)]
    results = []
    for folded in (False, True):
        graph = Graph(two_layers(x, *layers, c, TANH, folded=folded))
        results.append(graph.value_and_gradients())
        groups = {function.group and function.group[0] for function in graph.functions}
        assert groups == ({None} if folded else {None, "layer 1", "layer 2"})
    assert results[0][0] == results[1][0]
    for name, gradient in results[0][1].items():
        np.testing.assert_array_equal(gradient, results[1][1][name])


def test_modules_within_modules():
    inner = dense(TANH, "inner")
    outer = Module("outer", lambda x, W, b: apply(SIN, inner.unfolded(inner.folded(x, W, b), W, b)))
    x, W, b = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 3)), RNG.normal(size=3)
    results = []
    for make in (outer.folded, outer.unfolded):
        graph = Graph(total(make(*named(x=x, W=W, b=b))))
        results.append(graph.value_and_gradients()[1])
    assert [function.group and function.group[0] for function in graph.functions] == [
        "outer", "inner", "inner", "inner", "outer", None,
    ]  # fmt: skip
    for name, gradient in results[0].items():
        np.testing.assert_allclose(gradient, results[1][name], rtol=1e-13)


def test_logistic_regression(x64):
    case = make_case(mlpjax.Config(sizes=(3, 1), head="binary"))
    x, y = case.batch.x, case.batch.y[:, None].astype(float)
    W, b = named(W=np.asarray(case.params[0].W), b=np.asarray(case.params[0].b))
    graph = Graph(logistic_regression(Variable(x), W, b, Variable(y, "y", constant=True)))
    value, gradients = graph.value_and_gradients()
    (J, _), grads = case.call(mlpjax.backward)
    assert value / len(x) == pytest.approx(float(J), rel=1e-13)
    np.testing.assert_allclose(gradients["W"] / len(x), grads[0].W, rtol=1e-12)
    np.testing.assert_allclose(gradients["b"] / len(x), grads[0].b, rtol=1e-12)
    assert CROSS_ENTROPY.name in [function.operation.name for function in graph.functions]


def test_float32_stays_float32():
    x, W = np.ones((2, 3), np.float32), np.ones((3, 1), np.float32)
    variable = Variable(W, "W")
    graph = Graph(total(apply(TANH, matmul(Variable(x), variable))))
    assert graph.forward().dtype == np.float32
    graph.backward()
    assert variable.grad.dtype == np.float32


def test_a_cycle_is_named():
    """From each of its functions to the next, without what only hangs on it."""
    a, b, c, x = (Variable(name=name) for name in "abcx")
    x.value = 1.0
    Function(SIN, [c], a)
    Function(SIN, [a], b)
    Function(ADD, [b, x], c)
    with pytest.raises(mlpjax.InputError, match="a cycle: ") as raised:
        Graph(apply(MUL, c, x))
    found = str(raised.value).split("cycle: ")[1].split(";")[0].split(" → ")
    assert found in (["add", "sin", "sin", "add"], ["sin", "sin", "add", "sin"], ["sin", "add", "sin", "sin"])
    y = Variable()
    Function(TANH, [y], y)
    with pytest.raises(mlpjax.InputError, match="a cycle: tanh → tanh;"):
        Graph(y)


def test_what_is_refused():
    x, y = Variable(1.0, "x"), Variable(name="y")
    with pytest.raises(mlpjax.InputError, match=r"Variable\(y no value\) has no value; set its .value"):
        Graph(apply(MUL, x, y)).forward()
    with pytest.raises(mlpjax.InputError, match="run the forward pass before"):
        Graph(apply(MUL, x, x)).backward()
    with pytest.raises(mlpjax.InputError, match=r"add: v, w.*cannot take inputs of shapes \(2,\), \(3,\)"):
        Graph(apply(ADD, *named(v=np.ones(2), w=np.ones(3)))).forward()
    graph = Graph(apply(SIN, Variable(np.ones(2))))
    graph.forward()
    with pytest.raises(mlpjax.InputError, match=r"has shape \(2,\): a gradient is that of a scalar"):
        graph.backward()
    with pytest.raises(mlpjax.InputError, match=r"upstream has shape \(3,\): expected that of the output, \(2,\)"):
        graph.backward(np.ones(3))
    with pytest.raises(mlpjax.InputError, match="a graph needs an output"):
        Graph()
    with pytest.raises(mlpjax.InputError, match="'mul' was given float, ndarray: wrap it"):
        apply(MUL, 2.0, np.ones(2))
    for value in ("x", 1j, [None]):
        with pytest.raises(mlpjax.InputError, match="expected real numbers"):
            Variable(value)
    z = apply(SIN, x)
    with pytest.raises(mlpjax.InputError, match="already the output of 'sin': give 'tanh' an output of its own"):
        Function(TANH, [x], z)


@pytest.mark.parametrize(("vjp", "message"), [
    (lambda g, z, x, y: g, "expected a tuple of 2 gradients"),
    (lambda g, z, x, y: (g,), "expected a tuple of 2 gradients"),
    (lambda g, z, x, y: (g, np.ones(3)), r"input 1 a gradient of shape \(3,\): expected that of the input, \(2,\)"),
])  # fmt: skip
def test_a_wrong_node_is_named(vjp, message):
    graph = Graph(total(apply(Operation("mine", np.add, vjp), Variable(np.ones(2)), Variable(np.ones(2)))))
    graph.forward()
    with pytest.raises(mlpjax.InputError, match=message):
        graph.backward()


def test_the_graph_does_not_use_jaxs_derivatives():
    """No module of the graph calls, or names, a differentiating transformation of JAX; most do not import it."""
    forbidden = {"grad", "value_and_grad", "vjp", "jvp", "linearize", "jacobian", "jacfwd", "jacrev", "hessian",
                 "linear_transpose", "autodiff", "backward"}  # fmt: skip
    modules = sorted(Path(mlpjax.__file__).parent.glob("graph*.py"))
    assert len(modules) == 9
    for path in modules:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        named = {alias.name for node in imports for alias in node.names}
        assert not named & forbidden, path.name
        sources = {node.module for node in imports if isinstance(node, ast.ImportFrom)} | named
        if path.name != "graph_trace.py":
            assert not any(str(source).split(".")[0] == "jax" for source in sources), path.name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "jax":
                assert node.attr not in forbidden, path.name
