"""The glass box: what is recorded is what happened, each derivative is J's at its point, and `backward` pays nothing.

The network is written here once more, in jnp, with a perturbation ε to add at every point of the way: the derivative
of J(ε) at ε = 0 is what has to be recorded there. `run_backward` has no part in that.
"""

import dataclasses
import re
import subprocess
import sys
from functools import cache, partial
from operator import itemgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from cases import Case, assert_close, make_case, sizes_of
from jax.tree_util import keystr, tree_leaves_with_path

import mlpjax
from mlpjax import HEADS, Config, DataError, InputError, Layer, Quantity, Trace
from mlpjax.glassbox import LINK_AND_LOSS, describe

MIXED = ("prelu", "gelu", "selu")
CASES = {
    "binary": (Config(sizes=sizes_of("binary", 0), head="binary", l1=0.02), "given", True),
    "multilabel": (Config(sizes=sizes_of("multilabel", 1), head="multilabel", activation="tanh"), "none", True),
    "multiclass": (
        Config(
            sizes=sizes_of("multiclass", 2),
            activation="prelu",
            batch_norm=True,
            dropout=(0.2, 0.5, 0.3),
            l1=0.02,
            l2=0.3,
        ),
        "zeros",
        True,
    ),
    "evaluation": (
        Config(sizes=sizes_of("multiclass", 2), activation="prelu", batch_norm=True, dropout=0.4),
        "given",
        False,
    ),
    "regression": (
        Config(sizes=sizes_of("regression", 3), head="regression", activation=MIXED, batch_norm=True),
        "none",
        True,
    ),
    "regression_relu": (
        Config(sizes=sizes_of("regression_relu", 3), head="regression_relu", bias=False, dropout=0.4, l2=0.3),
        "zeros",
        True,
    ),
}
ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "selu": jax.nn.selu,
    "prelu": lambda z, slope: jnp.where(z >= 0, z, slope[None, :] * z),
}
LINKS = {
    "binary": jax.nn.sigmoid,
    "multilabel": jax.nn.sigmoid,
    "multiclass": jax.nn.softmax,
    "regression": lambda z: z,
    "regression_relu": jax.nn.relu,
}
PLAIN = {
    ".a_in": "train-dataset",
    ".z": "deep-forward-Z",
    ".a": "deep-forward-A",
    ".da": "deep-back-dAprev",
    ".dz": "deep-back-dZ",
    ".dW": "deep-back-dW",
    ".db": "deep-back-db",
}
FULL = {
    ".a_in": "reg-dropout-inverted",
    ".z": "deep-forward-Z",
    ".norm.mean": "norm-bn-mean",
    ".norm.var": "norm-bn-var",
    ".norm.zhat": "norm-bn-normalise",
    ".norm.z_tilde": "norm-bn-rescale",
    ".norm.running_mean": "norm-bn-inference",
    ".norm.running_var": "norm-bn-inference",
    ".norm.running_count": "norm-bn-inference",
    ".norm.dz_tilde": "deep-back-dZ",
    ".a": "norm-bn-activation",
    ".mask": "reg-dropout-inverted",
    ".a_dropped": "reg-dropout-inverted",
    ".penalty": "reg-elastic-net",
    ".da": "reg-dropout-backward",
    ".dz": "norm-bn-grad-z",
    ".dgamma": "norm-bn-grad-gamma",
    ".dbeta": "norm-bn-grad-beta",
    ".dslope": "act-prelu-dalpha",
    ".dW": "reg-nn-grad",
    ".dW_penalty": "reg-elastic-net",
}
"""The formulas of a hidden layer with nothing and with everything: rows of the lecture's ledger."""
OTHERS = """
    erm-empirical logreg-cost reg-nn-cost deep-back-start reg-l1-norm reg-l1-grad reg-frobenius reg-l2-grad
    logreg-sigmoid logreg-bce prob-ml-forward-out prob-ml-loss prob-mc-softmax prob-mc-loss
    prob-reg-linear-out prob-reg-relu-out prob-reg-loss
"""
FORMULAS = {*PLAIN.values(), *FULL.values(), *OTHERS.split()}


def mask_of(config, l, shape, key, train):
    """Dropout's mask of layer l, drawn anew; ones where nothing is dropped."""
    rates = config.dropout if isinstance(config.dropout, tuple) else (None, *[config.dropout] * (len(config.sizes) - 2))
    if not train or rates[l] is None:
        return jnp.ones(shape)
    return jax.random.bernoulli(jax.random.fold_in(key, l), 1 - np.float32(rates[l]), shape) / (1 - rates[l])


def targets(config, batch):
    """One row of targets per example; the labels of a row of weight 0 are not looked at."""
    y = np.array(oracle.target_rows(config.head, batch.y, config.sizes[-1]))
    return y if batch.weight is None else np.where(batch.weight[:, None] != 0, y, 0.0)


def replay(config, params, state, batch, key, train, eps):
    """J, and every value on the way to it, with ε added to x, z, z̃ and a."""
    x = jnp.asarray(batch.x) + eps["x"]
    weight = jnp.ones(len(x)) if batch.weight is None else jnp.asarray(batch.weight)
    p = weight / weight.sum()
    a = x * mask_of(config, 0, x.shape, key, train)
    seen = {"z": [], "mean": [], "var": [], "z_tilde": [], "a": [], "out": [a]}
    L = len(config.sizes) - 1
    for l in range(1, L + 1):
        layer = params[l - 1]
        z = seen["out"][-1] @ layer.W + eps["z"][l - 1]
        if layer.b is not None:
            z = z + layer.b[None, :]
        seen["z"].append(z)
        if l == L:
            break
        if config.batch_norm:
            mean, var = (p @ z, p @ (z - (p @ z)[None, :]) ** 2) if train else state[l - 1][:2]
            z = layer.gamma[None, :] * (z - mean[None, :]) / jnp.sqrt(var + oracle.EPS)[None, :] + layer.beta[None, :]
            seen["mean"].append(mean)
            seen["var"].append(var)
            seen["z_tilde"].append(z)
        z = z + eps["z_tilde"][l - 1]
        name = config.activation if isinstance(config.activation, str) else config.activation[l - 1]
        a = ACTIVATIONS[name](*((z,) if layer.slope is None else (z, layer.slope))) + eps["a"][l - 1]
        seen["a"].append(a)
        seen["out"].append(a * mask_of(config, l, a.shape, key, train))
    y = targets(config, batch)
    seen["yhat"] = LINKS[config.head](z)
    if config.head in ("binary", "multilabel"):
        seen["L"] = optax.sigmoid_binary_cross_entropy(z, y).sum(axis=1)
    elif config.head == "multiclass":
        seen["L"] = optax.softmax_cross_entropy(z, y)
    else:
        seen["L"] = ((seen["yhat"] - y) ** 2).sum(axis=1) / 2
    W = [layer.W for layer in params]
    penalties = [(config.l1 or 0) * jnp.abs(w).sum() + (config.l2 or 0) / 2 * (w**2).sum() for w in W]
    seen["data_loss"], seen["penalties"] = p @ seen["L"], penalties
    return seen["data_loss"] + sum(penalties), seen


def zeros_everywhere(case):
    """ε = 0 at every point of the network."""
    m, sizes = len(case.batch.x), case.config.sizes
    inner = [jnp.zeros((m, n)) for n in sizes[1:-1]]
    return {"x": jnp.zeros((m, sizes[0])), "z": [*inner, jnp.zeros((m, sizes[-1]))], "z_tilde": inner, "a": inner}


class Record(NamedTuple):
    """A case, its trace, and what autodiff of `replay` says: J, the values, the derivatives by parameter and by ε."""

    case: Case
    trace: Trace
    J: jax.Array
    seen: dict
    grads: tuple
    deltas: dict


@cache
def record(name):
    config, params, state, batch, key, train = case = make_case(*CASES[name])

    def of_parameters_and_eps(params, eps):
        return replay(config, params, state, batch, key, train, eps)

    both = jax.jit(jax.value_and_grad(of_parameters_and_eps, argnums=(0, 1), has_aux=True))
    (J, seen), (grads, deltas) = both(params, zeros_everywhere(case))
    return Record(case, case.call(mlpjax.trace), J, seen, grads, deltas)


@pytest.fixture(params=CASES)
def recorded(request, x64):
    return record(request.param)


def values(quantities):
    return [None if q is None else q.value for q in quantities]


def gradients_of(t):
    """What a trace says about the parameters, as `mlpjax.backward` returns it."""
    names = ("dW", "db", "dgamma", "dbeta", "dslope")
    return tuple(Layer(*values(getattr(layer, name, None) for name in names)) for layer in (*t.hidden, t.output))


def formulas(tree):
    """The formula of every quantity, by path."""
    leaves = tree_leaves_with_path(tree, is_leaf=lambda node: isinstance(node, Quantity))
    return {keystr(path): quantity.formula for path, quantity in leaves}


@pytest.mark.slow
def test_what_is_recorded_is_what_happened(recorded):
    """The forward pass: by the jnp of this file, by the loops of `oracle`, and by `mlpjax.loss`."""
    case, t = recorded[:2]
    norms = [layer.norm for layer in t.hidden if layer.norm is not None]
    got = {
        "z": values([*(layer.z for layer in t.hidden), t.output.z]),
        "mean": values(norm.mean for norm in norms),
        "var": values(norm.var for norm in norms),
        "z_tilde": values(norm.z_tilde for norm in norms),
        "a": values(layer.a for layer in t.hidden),
        "out": values([*(layer.a_in for layer in t.hidden), t.output.a_in]),
        "yhat": t.output.yhat.value,
        "L": t.loss.L.value,
        "data_loss": t.loss.data_loss.value,
        "penalties": [0.0 if layer.penalty is None else layer.penalty.value for layer in (*t.hidden, t.output)],
    }
    assert_close((t.loss.J.value, got), (recorded.J, recorded.seen), 1e-12)
    parts = values([t.loss.J, t.loss.data_loss, t.loss.penalty, t.output.z])
    state = [tuple(values([norm.running_mean, norm.running_var, norm.running_count])) for norm in norms]
    assert_close((*parts, state), tuple(case.call(oracle.objective)[:5]), 1e-12)
    J, aux = case.call(mlpjax.loss)
    assert_close((*parts, state), (J, aux.data_loss, aux.penalty, aux.z, [tuple(s) for s in aux.state]), 0.0)


def test_between_the_points(recorded):
    """Input, masks, ẑ, targets and row weights, each by its own definition."""
    (config, _, _, batch, key, train), t = recorded[:2]
    np.testing.assert_array_equal(t.input.x.value, batch.x)
    points = [(t.input, t.input.x, t.input.x_dropped), *((layer, layer.a, layer.a_dropped) for layer in t.hidden)]
    for l, (layer, a, dropped) in enumerate(points):
        mask = mask_of(config, l, a.shape, key, train)
        assert (layer.mask is None) == (dropped is None) == bool((mask == 1).all())
        if layer.mask is not None:
            np.testing.assert_allclose(layer.mask.value, mask, rtol=1e-15)
            np.testing.assert_allclose(dropped.value, a.value * mask, rtol=1e-15)
    for layer in t.hidden:
        if (norm := layer.norm) is not None:
            zhat = (layer.z.value - norm.mean.value[None, :]) / np.sqrt(norm.var.value + oracle.EPS)[None, :]
            np.testing.assert_allclose(norm.zhat.value, zhat, rtol=1e-12)
    weight = np.ones(len(batch.x)) if batch.weight is None else batch.weight
    np.testing.assert_allclose(t.loss.p.value, weight / weight.sum(), rtol=1e-15)
    np.testing.assert_allclose(t.loss.weight_sum.value, weight.sum(), rtol=1e-15)
    np.testing.assert_array_equal(t.loss.y.value, targets(config, batch))


def test_each_delta_is_the_derivative_at_its_point(recorded):
    """dz, dz̃, da and dx by autodiff of J(ε), which knows nothing of `run_backward`."""
    t, at = recorded.trace, recorded.deltas
    assert_close(t.input.dx.value, at["x"], 1e-10)
    assert_close(values([*(layer.dz for layer in t.hidden), t.output.dz]), at["z"], 1e-10)
    assert_close(values(layer.da for layer in t.hidden), at["a"], 1e-10)
    # without batch-norm z̃ is z
    dz_tilde = [layer.dz if layer.norm is None else layer.norm.dz_tilde for layer in t.hidden]
    assert_close(values(dz_tilde), at["z_tilde"], 1e-10)


def test_gradients_of_the_parameters(recorded):
    """By autodiff of `replay`; bit for bit those of `backward`; the penalty's part apart."""
    case, t = recorded[:2]
    grads = gradients_of(t)
    assert_close(grads, recorded.grads, 1e-10)
    assert_close(grads, case.call(mlpjax.backward)[1], 0.0)
    assert_close(t.input.dx.value, case.call(mlpjax.input_gradient), 0.0)
    for layer in (*t.hidden, t.output):
        assert (layer.dW_penalty is None) == (layer.penalty is None) == (case.config.l1 is case.config.l2 is None)
        of_penalty = 0.0 if layer.dW_penalty is None else layer.dW_penalty.value
        assert_close(layer.dW.value, layer.a_in.value.T @ layer.dz.value + of_penalty, 1e-12)


def test_every_quantity_says_what_it_is(recorded):
    """Axes by name, of the sizes that the config gives them, and a formula."""
    case, t = recorded[:2]
    sizes = {"m": len(case.batch.x)} | {f"n_{l}": n for l, n in enumerate(case.config.sizes)}
    rows = describe(t)
    assert len(rows) == len(jax.tree.leaves(t))
    for row, leaf in zip(rows, jax.tree.leaves(t), strict=True):
        assert tuple(sizes[name] for name in row.axes) == row.shape == leaf.shape, row
        assert row.formula in FORMULAS, row
        np.testing.assert_allclose(row.norm, np.sqrt((np.float64(leaf) ** 2).sum()), rtol=1e-14)


def test_describe_reads_by_path(x64):
    t = record("multiclass").trace
    rows = {row.path: row for row in describe(t)}
    assert rows["hidden[1].norm.zhat"].shape == t.hidden[1].norm.zhat.shape
    assert (t.loss.J.dtype, t.loss.J.shape) == (np.float64, ())
    order = [path for path in rows if path.endswith((".dx", ".dz", ".J"))]
    assert order == ["input.dx", "hidden[0].dz", "hidden[1].dz", "output.dz", "loss.J"]


def test_formulas_of_a_plain_and_of_a_full_layer(x64):
    plain, full, still = (formulas(record(name).trace.hidden[0]) for name in ("multilabel", "multiclass", "evaluation"))
    assert plain == PLAIN
    assert full == FULL
    statistics = {".norm.mean": "norm-bn-inference", ".norm.var": "norm-bn-inference"}
    assert {name: formula for name, formula in still.items() if FULL[name] != formula} == {
        **statistics,
        ".a_in": "train-dataset",
        ".da": "deep-back-dAprev",
        ".dW": "deep-back-dW",
    }


def test_every_formula_is_in_use_and_in_the_form_of_the_ledger(x64):
    plain_l2 = make_case(Config(sizes=sizes_of("multiclass", 0), l2=0.1))
    traces = [*(record(name).trace for name in CASES), plain_l2.call(mlpjax.trace)]
    assert set().union(*(formulas(t).values() for t in traces)) == FORMULAS
    assert all(re.fullmatch(r"[a-z0-9]+(-[A-Za-z0-9]+)+", formula) for formula in FORMULAS)
    assert {name: formulas(record(name).trace.loss)[".L"] for name in HEADS} == {
        name: loss for name, (_, loss) in LINK_AND_LOSS.items()
    }


def test_compiled_it_is_the_same_tree(x64):
    case, t = record("multiclass")[:2]
    compiled = jax.jit(mlpjax.trace)(*case[:-1])
    assert jax.tree.structure(compiled) == jax.tree.structure(t)
    assert_close(compiled, t, 1e-12)


@pytest.mark.slow
def test_a_population_in_one_call(x64):
    """Configs with rates and strengths of their own, under `vmap`: each member is what it is alone."""
    base = CASES["multiclass"][0]
    configs = [dataclasses.replace(base, l2=l2, dropout=dropout) for l2, dropout in ((0.1, 0.5), (0.4, 0.2))]
    case = make_case(configs[0], "zeros")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *configs)
    population = jax.jit(jax.vmap(lambda config: case.call(mlpjax.trace, config=config)))(stacked)
    members = [jax.tree.map(itemgetter(i), population) for i in range(2)]
    assert_close(members, [case.call(mlpjax.trace, config=config) for config in configs], 1e-12)


def live_and_dead_products(function, case):
    """How many matrix products a program needs for what it returns, and how many not."""
    jaxpr = jax.make_jaxpr(partial(function, train=case.train))(*case[:-1]).jaxpr
    needed, live, dead = {id(v) for v in jaxpr.outvars}, 0, 0
    for equation in reversed(jaxpr.eqns):
        used = any(id(v) in needed for v in equation.outvars)
        if used:
            needed |= {id(v) for v in equation.invars}
        if equation.primitive.name == "dot_general":
            live, dead = live + used, dead + (not used)
    return live, dead


def test_backward_computes_nothing_for_it(x64):
    """`backward` has L products forward and 2L − 1 back; the unused one is dX, which the compiler drops."""
    case = record("multiclass").case
    L = case.config.depth
    assert live_and_dead_products(mlpjax.backward, case) == (3 * L - 1, 1)
    assert live_and_dead_products(mlpjax.trace, case) == (4 * L - 1, 0)


def test_what_is_not_read_is_not_computed(x64):
    """Compiled, the gradients out of a trace cost what those out of `backward` do."""
    case = make_case(Config(sizes=sizes_of("multiclass", 1), batch_norm=True), "zeros")

    def flops(function):
        return jax.jit(function).lower(*case[:-1]).compile().cost_analysis()["flops"]

    def out_of_backward(*args):
        (J, _), grads = mlpjax.backward(*args)
        return J, grads

    def out_of_trace(*args):
        t = mlpjax.trace(*args)
        return t.loss.J.value, gradients_of(t)

    assert flops(out_of_trace) == flops(out_of_backward) > 0


def test_backward_does_not_even_load_it():
    code = "import sys, mlpjax; mlpjax.backward; print([f'mlpjax.{m}' in sys.modules for m in ('passes', 'glassbox')])"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[True, False]"


@pytest.mark.slow
def test_float32_with_products_in_bfloat16():
    """What is computed a second time, z before batch-norm, is computed as it was."""
    case = make_case(Config(sizes=(3, 6, 2), batch_norm=True, compute_dtype="bfloat16"))
    t = case.call(mlpjax.trace)
    assert {leaf.dtype for leaf in jax.tree.leaves(t)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    z, norm = t.hidden[0].z.value, t.hidden[0].norm
    zhat = (z - norm.mean.value[None, :]) / np.sqrt(norm.var.value + np.float32(oracle.EPS))[None, :]
    np.testing.assert_allclose(norm.zhat.value, zhat, rtol=0, atol=1e-5)


def test_absent_rows_are_recorded_as_they_were_seen(x64):
    """What is not finite in a row of weight 0 is 0; with no weight at all, J is the penalty and no delta is left."""
    case = make_case(CASES["regression_relu"][0], "zeros")
    absent = case.batch.weight == 0
    holed = case.batch._replace(x=np.where(absent[:, None], np.nan, case.batch.x))
    t = case.call(mlpjax.trace, batch=holed)
    np.testing.assert_array_equal(t.input.x.value, np.where(absent[:, None], 0.0, case.batch.x))
    assert not np.any(t.hidden[0].dz.value[absent])
    nothing = case.call(mlpjax.trace, batch=case.batch._replace(weight=np.zeros(len(absent))))
    assert nothing.loss.J.value == nothing.loss.penalty.value > 0
    assert not np.any(nothing.output.dz.value)


def test_errors_are_those_of_loss():
    case = make_case(Config(sizes=(3, 7, 2), dropout=0.5))
    for function in (mlpjax.trace, mlpjax.loss):
        with pytest.raises(InputError, match="give a key"):
            case.call(function, key=None)
        with pytest.raises(InputError, match=r"expected mlpjax\.Batch"):
            case.call(function, batch=tuple(case.batch))
        with pytest.raises(DataError, match="one label per example"):
            case.call(function, batch=case.batch._replace(y=case.batch.y[:-1]))
        with pytest.raises(InputError, match="params have weights of shapes"):
            case.call(function, params=case.params[:1])
