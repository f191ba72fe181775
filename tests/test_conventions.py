"""``convention=`` and ``batch_norm_convention``: the numbers of torch, keras, optax and scikit-learn, frozen.

tests/references/conventions.json is written by experiments/conventions.py, which runs the libraries.
"""

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, make_case

import mlpjax
from mlpjax import Batch, Config, InputError
from mlpjax.graph_trace import graph_gradient
from mlpjax.layers import BATCH_NORM_FORMS, BatchNormState, batch_norm_update
from mlpjax.networks import audit_network
from mlpjax.optim import OPTIMIZERS, adadelta
from mlpjax.optim_conventions import CONVENTIONS

FROZEN = json.loads((Path(__file__).parent / "references" / "conventions.json").read_text(encoding="utf-8"))
STEPS = np.array(FROZEN["steps"])
CASES = [(library, rule) for library, rules in FROZEN["optimizers"].items() for rule in rules]
NORMS = list(FROZEN["batch_norm"])
FORMS = [None, *NORMS]
# the cases in which two libraries (or a library and the package) are one and the same
SAME = [
    ("sgd", {None, "torch", "keras", "optax", "sklearn"}),
    ("momentum", {"torch", "optax"}), ("momentum", {"keras", "sklearn"}),
    ("nesterov", {"torch", "optax"}), ("nesterov", {"keras", "sklearn"}),
    ("adagrad", {"keras", "optax"}), ("adadelta", {"torch", "optax"}), ("rmsprop", {None, "optax"}),
    ("adam", {None, "torch", "optax"}),
]  # fmt: skip


# --- optimisers ------------------------------------------------------------------------------------------------


@functools.cache
def walks():
    """100 steps of every rule by every convention, and by none: (θ after the stored steps) of each, in float64."""
    problem = {name: jnp.array(value) for name, value in FROZEN["problem"].items()}
    rates = {rule: peak * problem["rate_factors"] for rule, peak in FROZEN["rates"].items()}
    forms = [(library, rule) for rule, forms in CONVENTIONS.items() if rule in rates for library in forms]
    optimizers = [
        OPTIMIZERS[rule](lambda count, rule=rule: rates[rule][count], convention=library) for library, rule in forms
    ]

    def step(walkers, noise):
        moved = []
        for optimizer, (theta, state) in zip(optimizers, walkers, strict=True):
            dtheta = problem["curvature"] * (theta - problem["minimum"]) + noise
            update, state = optimizer.update(dtheta, state, theta)
            moved.append((theta + update, state))
        return moved, [theta for theta, _ in moved]

    @jax.jit
    def run(start):
        return jax.lax.scan(step, [(start, optimizer.init(start)) for optimizer in optimizers], problem["noise"])[1]

    thetas = run(problem["start"])
    return {form: np.asarray(walk)[STEPS - 1] for form, walk in zip(forms, thetas, strict=True)}


@pytest.mark.parametrize(("library", "rule"), CASES)
def test_optimiser_equals_the_library(x64, library, rule):
    got = walks()[library, rule]
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, FROZEN["optimizers"][library][rule], rtol=1e-12)


@pytest.mark.parametrize("rule", FROZEN["rates"])
def test_forms_differ_as_the_libraries_do(x64, rule):
    """Every pair of forms is told apart by these 100 steps, except those that are one."""
    forms = [library for library, name in walks() if name == rule]
    for pair in itertools.combinations(forms, 2):
        a, b = (walks()[library, rule] for library in pair)
        same = any(rule == name and set(pair) <= group for name, group in SAME)
        assert np.allclose(a, b, rtol=1e-12, atol=0) == same, pair


def test_every_library_form_is_frozen():
    assert {(library, rule) for rule, forms in CONVENTIONS.items() for library in forms if library} == set(CASES)


@pytest.mark.parametrize("library", FROZEN["default_rates"])
def test_default_rate_of_adadelta(library):
    rates = {None: None, library: FROZEN["default_rates"][library]["adadelta"]}
    theta = jnp.ones(2)
    steps = []
    for rate in rates.values():
        rule = adadelta(rate, convention=library)
        steps.append(rule.update(theta, rule.init(theta))[0])
    np.testing.assert_array_equal(*steps)


# --- batch-norm ------------------------------------------------------------------------------------------------

# float64 for torch; keras computes in float32, and its outputs cancel: x · inv − μ · inv
RTOL = {"torch": 1e-12, "keras": 2e-6}
OUTPUT_ATOL = {"torch": 1e-12, "keras": 1e-5}


@functools.cache
def layer_records(convention):
    """The library's layer as a network whose weights are the identity: what 100 training batches leave."""
    layer = FROZEN["layer"]
    x = jnp.array(layer["x"])
    config = Config(
        sizes=(3, 3, 3), activation="identity", head="regression", batch_norm=True, batch_norm_convention=convention
    )
    (hidden, output), start = mlpjax.init(config, jax.random.key(0))
    gamma, beta = jnp.array(layer["gamma"]), jnp.array(layer["beta"])
    params = (hidden._replace(W=jnp.eye(3), gamma=gamma, beta=beta), output._replace(W=jnp.eye(3)))

    def step(state, rows):
        _, aux = mlpjax.loss(config, params, state, Batch(rows, jnp.zeros_like(rows)), train=True)
        (after,) = aux.state
        evaluation = mlpjax.predict(config, params, aux.state, x[0])
        return aux.state, {"out": aux.z, "mean": after.mean, "var": after.var, "evaluation": evaluation}

    records = jax.jit(lambda state: jax.lax.scan(step, state, x)[1])(start)
    return {name: np.asarray(values)[STEPS - 1] for name, values in records.items()}


@pytest.mark.parametrize("library", NORMS)
def test_batch_norm_equals_the_library(x64, library):
    got, expected = layer_records(library), FROZEN["batch_norm"][library]
    for name in ("mean", "var"):
        assert got[name].dtype == np.float64
        np.testing.assert_allclose(got[name], expected[name], rtol=RTOL[library], err_msg=name)
    for name in ("out", "evaluation"):
        np.testing.assert_allclose(
            got[name], expected[name], rtol=RTOL[library], atol=OUTPUT_ATOL[library], err_msg=name
        )


@pytest.mark.parametrize(("convention", "other"), list(itertools.permutations(FORMS, 2)))
def test_the_records_tell_the_conventions_apart(x64, convention, other):
    names = ["mean", "var", "evaluation"]
    if "keras" in (convention, other):  # torch has the package's ε
        names.append("out")
    for name in names:
        got, others = layer_records(convention)[name], layer_records(other)[name]
        assert np.abs(got - others).max() > 1e-2 * np.abs(others).max(), name


def test_torch_is_the_package_with_its_start_and_n_over_n_minus_1(x64):
    fade = 0.9 ** STEPS[:, None]
    ours, torchs = layer_records(None), layer_records("torch")
    np.testing.assert_allclose(torchs["mean"], (1 - fade) * ours["mean"], rtol=1e-12)
    np.testing.assert_allclose(torchs["var"], fade + (1 - fade) * 4 / 3 * ours["var"], rtol=1e-12)
    np.testing.assert_array_equal(torchs["out"], ours["out"])


def normed(convention):
    return Config(
        sizes=(3, 4, 2), head="regression", activation="tanh", batch_norm=True, batch_norm_convention=convention
    )


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("convention", NORMS)
def test_three_gradients_agree(x64, convention, train):
    case = make_case(normed(convention), "zeros", train)
    hand, graph, auto = (case.call(provider) for provider in (mlpjax.backward, graph_gradient, mlpjax.autodiff))
    for other in (graph, auto):
        assert_close(hand, other, 1e-10)


@pytest.mark.slow
def test_audited(x64):
    assert audit_network(make_case(normed("keras"), "zeros")).ok


@pytest.mark.parametrize("convention", NORMS)
def test_weight_2_is_twice_and_0_is_absent(x64, convention):
    case = make_case(normed(convention))
    weight = np.array([2.0, 1.0, 0.0, 3.0, 1.0, 1.0, 0.0, 1.0, 2.0])
    rows = np.repeat(np.arange(len(weight)), weight.astype(int))
    x, y, _ = case.batch
    weighted = case.call(mlpjax.backward, batch=Batch(x, y, weight))
    repeated = case.call(mlpjax.backward, batch=Batch(x[rows], y[rows]))
    (J, aux), grads = weighted
    (J_repeated, aux_repeated), grads_repeated = repeated
    assert_close((J, aux.state, grads), (J_repeated, aux_repeated.state, grads_repeated), 1e-12)


@pytest.mark.parametrize("weight", [[0, 1, 0], [0.25, 0.25, 0.25], [0, 0, 0]], ids=["one row", "below 1", "none"])
def test_without_an_unbiased_variance_the_running_one_stays(weight):
    case = make_case(normed("torch"), m=3)
    batch = case.batch._replace(weight=np.array(weight, np.float32))
    _, aux = case.call(mlpjax.loss, batch=batch)
    for before, after in zip(case.state, aux.state, strict=True):
        np.testing.assert_allclose(after.var, before.var, rtol=1e-6)
        assert (np.abs(after.mean - before.mean).max() > 0) == any(weight)


@pytest.mark.parametrize(("convention", "factor"), [("torch", 4 / 3), ("keras", 1.0)])
def test_one_repeated_batch(x64, convention, factor):
    """The running statistics go to the batch's, from 0 and 1, as 1 − momentumᵗ, with n = 4."""
    form = BATCH_NORM_FORMS[convention]
    state = BatchNormState(jnp.zeros(1), jnp.ones(1), jnp.array(0))
    for t in range(1, 4):
        state = batch_norm_update(state, jnp.array([5.0]), jnp.array([3.0]), jnp.array(4.0), form)
        fade = form.momentum**t
        np.testing.assert_allclose(state.mean, 5 * (1 - fade), rtol=1e-14)
        np.testing.assert_allclose(state.var, fade + 3 * factor * (1 - fade), rtol=1e-14)
    assert state.count == 3


def test_an_unbiased_variance_needs_a_count():
    state = BatchNormState(jnp.zeros(1), jnp.ones(1), jnp.array(0))
    with pytest.raises(InputError, match="needs n = Σwᵢ: give weight_sum"):
        batch_norm_update(state, jnp.ones(1), jnp.ones(1), form=BATCH_NORM_FORMS["torch"])


@pytest.mark.parametrize("convention", NORMS)
def test_folded(x64, convention):
    case = make_case(normed(convention), train=False)
    config, params = mlpjax.fold(*case[:3])
    assert config == dataclasses.replace(case.config, batch_norm=False, batch_norm_convention=None, bias=True)
    expected = mlpjax.predict(*case[:3], case.batch.x)
    np.testing.assert_allclose(mlpjax.predict(config, params, (), case.batch.x), expected, rtol=1e-12)


@pytest.mark.parametrize("convention", NORMS)
def test_saved_and_loaded(tmp_path, convention):
    case = make_case(normed(convention))
    mlpjax.save(tmp_path / "m.npz", *case[:3])
    model = mlpjax.load(tmp_path / "m.npz")
    assert model.config == case.config
    expected = mlpjax.predict(*case[:3], case.batch.x)
    np.testing.assert_array_equal(mlpjax.predict(model.config, model.params, model.state, case.batch.x), expected)


@pytest.mark.parametrize("train", [True, False])
def test_traced(x64, train):
    case = make_case(normed("keras"), train=train)
    _, aux = case.call(mlpjax.loss)
    for hidden, after in zip(case.call(mlpjax.trace).hidden, aux.state, strict=True):
        norm = hidden.norm
        np.testing.assert_allclose(norm.running_var.value, after.var, rtol=1e-14)
        zhat = (hidden.z.value - norm.mean.value[None, :]) / np.sqrt(norm.var.value[None, :] + 1e-3)
        np.testing.assert_allclose(norm.zhat.value, zhat, rtol=1e-12)


def test_the_convention_is_static():
    case = make_case(normed("torch"))
    leaves, tree = jax.tree.flatten(case.config)
    assert jax.tree.unflatten(tree, leaves).batch_norm_convention == "torch"
    other = dataclasses.replace(case.config, batch_norm_convention="keras")
    assert jax.tree.structure(other) != tree
    run = jax.jit(lambda config: mlpjax.loss(config, *case[1:5])[1].z)
    assert np.abs(run(case.config) - run(other)).max() > 1e-5


@pytest.mark.parametrize("convention", NORMS)
def test_fit(convention):
    case = make_case(normed(convention))
    optimizer = OPTIMIZERS["momentum"](1e-2, convention=convention)
    result = mlpjax.fit(case.config, optimizer, case.batch, epochs=2, batch_size=4, key=jax.random.key(0))
    assert result.state[0].count == 6  # of which every third is a single row
    assert np.isfinite(result.history["train_loss"]).all()
