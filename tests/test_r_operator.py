"""H v and G v by hand: against autodiff, the explicit Hessian, differences of `backward`, and what they must obey."""

import inspect
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, covering_array, make_case, one_fast_in, smooth_case
from jax.flatten_util import ravel_pytree
from test_glassbox import live_and_dead_products

import mlpjax
from mlpjax import ACTIVATIONS, HEADS, PENALTIES, Batch, Config, InputError, r_layers, r_operator
from mlpjax.r_operator import gnvp, hvp, quadratic_model

PENALTY = {"none": {}, "l1": {"l1": 0.02}, "l2": {"l2": 0.3}, "elastic_net": {"l1": 0.02, "l2": 0.3}}
FACTORS = {
    "activation": tuple(ACTIVATIONS),
    "head": tuple(HEADS),
    "batch_norm": (False, True),
    "penalty": tuple(PENALTY),
    "weight": ("none", "zeros"),
}
ROWS = covering_array(FACTORS)
# G has no g″: its rows leave out what goes with the activation
ROWS_OF_G = covering_array({name: values for name, values in FACTORS.items() if name != "activation"})
COMBINED = {
    "dropout": ({"activation": ("prelu", "gelu"), "dropout": (0.2, 0.5, 0.3)}, "given", True),
    "batch-norm, dropout": ({"batch_norm": True, "dropout": 0.4, "l2": 0.1}, "zeros", True),
    "evaluation": ({"batch_norm": True, "dropout": 0.4}, "given", False),
    "without b": ({"activation": ("tanh", "prelu"), "bias": False}, "none", True),
    "no hidden layer": ({"sizes": (3, 3), "activation": "relu", "dropout": (0.3,), "l2": 0.3}, "given", True),
}


def direction(case, seed=5):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), case.params)


def product(case, function, v, **changes):
    case = case._replace(**changes)
    return function(*case[:4], v, case.key, train=case.train)


def hessian_by_autodiff(case, v):
    """∂/∂t of ∇J(θ + tv)."""

    def gradient(params):
        return case.call(mlpjax.autodiff, params=params)[1]

    return jax.jvp(gradient, (case.params,), (v,))[1]


def gauss_newton_by_autodiff(case, v):
    """J v forward, then the Hessian of Σ pᵢ Lᵢ(z) + (l2/2) Σ W² in (z, W), then Jᵀ backward."""
    config, m = case.config, len(case.batch.x)
    weight = np.ones(m) if case.batch.weight is None else case.batch.weight
    y = case.batch.y
    targets = np.eye(config.sizes[-1])[y] if config.head == "multiclass" else np.reshape(y, (m, -1)).astype(float)

    def linear_part(params):
        z, _ = mlpjax.forward(config, params, case.state, case.batch.x, train=case.train, key=case.key, weight=weight)
        return z, [layer.W for layer in params]

    def convex_part(parts):
        z, matrices = parts
        penalty = 0.0 if config.l2 is None else sum(config.l2 / 2 * jnp.sum(W * W) for W in matrices)
        return jnp.sum(weight / weight.sum() * HEADS[config.head].loss(z, jnp.asarray(targets))) + penalty

    parts, moved = jax.jvp(linear_part, (case.params,), (v,))
    curved = jax.jvp(jax.grad(convex_part), (parts,), (moved,))[1]
    return jax.vjp(linear_part, case.params)[1](curved)[0]


def assert_hessian(case):
    v = direction(case)
    assert_close(product(case, hvp, v), hessian_by_autodiff(case, v), 1e-10)


def assert_gauss_newton(case):
    v = direction(case)
    assert_close(product(case, gnvp, v), gauss_newton_by_autodiff(case, v), 1e-10)


def config_of(head="multiclass", **options):
    """Layers of one size, so that they and the tests share what is compiled."""
    return Config(**{"sizes": (3, 3, 3, 1 if head == "binary" else 3), "activation": "tanh", "head": head, **options})


def row_case(row):
    options = {name: row[name] for name in ("activation", "head", "batch_norm") if name in row}
    return make_case(config_of(**options, **PENALTY[row["penalty"]]), row["weight"])


def row_id(row):
    return "-".join(map(str, row.values()))


@pytest.mark.parametrize("row", one_fast_in(4, ROWS), ids=row_id)
def test_hessian_equals_autodiff(x64, row):
    """Every activation with every head, and every other pair of options."""
    assert_hessian(row_case(row))


@pytest.mark.parametrize("row", one_fast_in(3, ROWS_OF_G), ids=row_id)
def test_gauss_newton_equals_autodiff(x64, row):
    assert_gauss_newton(row_case(row))


@pytest.mark.parametrize("name", COMBINED)
def test_combinations_equal_autodiff(x64, name):
    options, weight, train = COMBINED[name]
    case = make_case(config_of(**options), weight, train)
    assert_hessian(case)
    assert_gauss_newton(case)


def test_explicit_matrices(x64):
    """Column by column the matrix of `jax.hessian`, symmetric; G is symmetric with no negative eigenvalue."""
    case = make_case(config_of(activation=("prelu", "tanh"), batch_norm=True, l2=0.01), "given")
    theta, unravel = ravel_pytree(case.params)

    @jax.jit
    def matrices(theta):
        model = case.call(quadratic_model, params=unravel(theta))
        products = (lambda e, f=f: ravel_pytree(f(unravel(e)))[0] for f in (model.hvp, model.gnvp))
        by_autodiff = jax.hessian(lambda theta: case.call(mlpjax.loss, params=unravel(theta))[0])
        return *(jax.lax.map(f, jnp.eye(len(theta))) for f in products), by_autodiff(theta)

    H, G, expected = map(np.asarray, matrices(theta))
    assert_close(H, expected, 1e-11)
    np.testing.assert_allclose(H, H.T, atol=1e-13)
    np.testing.assert_allclose(G, G.T, atol=1e-13)
    assert np.linalg.eigvalsh(G).min() > -1e-13
    # the network is nonlinear in its parameters: H has both signs, and G is another matrix
    assert np.linalg.eigvalsh(H).min() < -1e-3
    assert np.abs(H - G).max() > 1e-2


@pytest.mark.parametrize("head", HEADS)
def test_without_hidden_layers_both_are_one(x64, head):
    """z is linear in W and b: H = G. For two hidden layers they differ."""
    for options, equal in (({"sizes": (3, 1 if head == "binary" else 3)}, True), ({}, False)):
        case = make_case(config_of(head, **options, l2=0.1), "given")
        v = direction(case)
        H, G = (ravel_pytree(product(case, function, v))[0] for function in (hvp, gnvp))
        assert bool(np.abs(H - G).max() < 1e-14) is equal


@pytest.mark.parametrize("options", [{"activation": "silu"}, {"activation": "relu", "batch_norm": True, "l1": 0.02}])
def test_differences_of_the_gradient(x64, options):
    case = smooth_case(config_of(**options), "given")
    v, h = direction(case), 1e-4

    def gradient(t):
        return case.call(mlpjax.backward, params=jax.tree.map(lambda a, b: a + t * b, case.params, v))[1]

    g = [gradient(k * h) for k in (1, -1, 2, -2)]
    numeric = jax.tree.map(lambda p1, m1, p2, m2: (8 * (p1 - m1) - (p2 - m2)) / (12 * h), *g)
    assert_close(product(case, hvp, v), numeric, 1e-8)


def test_symmetric_and_linear(x64):
    """⟨u, Hv⟩ = ⟨v, Hu⟩ and H(2u − 3v) = 2Hu − 3Hv; the same for G, where ⟨v, Gv⟩ ≥ 0."""
    case = make_case(config_of(activation="gelu", batch_norm=True, dropout=0.3), "zeros")
    u, v = direction(case, 1), direction(case, 2)
    mixed = jax.tree.map(lambda a, b: 2 * a - 3 * b, u, v)
    for function in (hvp, gnvp):
        Mu, Mv, Mmixed = (product(case, function, w) for w in (u, v, mixed))
        uMv, vMu, vMv = (
            np.dot(ravel_pytree(a)[0], ravel_pytree(b)[0]) for a, b in ((u, Mv), (v, Mu), (v, Mv))
        )  # fmt: skip
        np.testing.assert_allclose(uMv, vMu, rtol=1e-11)
        assert_close(Mmixed, jax.tree.map(lambda a, b: 2 * a - 3 * b, Mu, Mv), 1e-11)
        assert function is hvp or vMv > 0


def test_the_model_is_that_of_backward(x64):
    """J, aux and gradients of `backward`; its products are `hvp` and `gnvp`, also inside a compiled loop."""
    case = make_case(config_of(dropout=0.3), "given")
    v = direction(case)
    model = case.call(quadratic_model)
    assert_close(((model.J, model.aux), model.grads), case.call(mlpjax.backward), 1e-15)

    @partial(jax.jit, static_argnames="train")
    def powers(config, params, state, batch, key, *, train):
        model = quadratic_model(config, params, state, batch, key, train=train)
        return [jax.lax.fori_loop(0, 3, lambda _, v, f=f: f(v), v) for f in (model.hvp, model.gnvp)]

    for cubed, function in zip(case.call(powers), (hvp, gnvp), strict=True):
        expected = v
        for _ in range(3):
            expected = product(case, function, expected)
        assert_close(cubed, expected, 1e-12)


@pytest.mark.parametrize("name", ["binary_step", "relu", "leaky_relu", "prelu", "elu", "selu"])
def test_at_the_kinks(x64, name):
    """At exactly 0 each activation, weight and output has the second derivative that autodiff has there."""
    case = make_case(config_of("regression_relu", activation=name, bias=False, init="zeros", l1=0.1))
    first, *others = case.params
    case = case._replace(params=(first, *(layer._replace(W=layer.W.at[:, 0].set(1.0)) for layer in others)))
    assert_hessian(case)
    assert_gauss_newton(case)


def test_weights(x64):
    """Weight 2 is the example twice, weight 0 its absence, whatever it holds; without weight the penalty stays."""
    case = make_case(config_of("regression", batch_norm=True, l2=0.3))
    v, batch = direction(case), case.batch
    weight = np.array([2.0, 0.0, *np.ones(7)])
    x = np.where((weight == 0)[:, None], np.nan, batch.x)
    rows = [0, 0, *range(2, 9)]
    for function in (hvp, gnvp):
        weighted = product(case, function, v, batch=Batch(x, batch.y, weight))
        assert_close(weighted, product(case, function, v, batch=Batch(batch.x[rows], batch.y[rows])), 1e-12)
        nothing = product(case, function, v, batch=batch._replace(weight=np.zeros(9)))
        penalty = tuple(
            jax.tree.map(jnp.zeros_like, layer)._replace(W=0.3 * direction.W)
            for layer, direction in zip(case.params, v, strict=True)
        )
        assert_close(nothing, penalty, 1e-15)


def test_narrow_products():
    """Factors in bfloat16, 8 bits; everything else, and the result, in float32."""
    case = make_case(config_of())
    v = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), direction(case))
    both = jax.jit(lambda config: [product(case, function, v, config=config) for function in (hvp, gnvp)])
    for got, full in zip(both(config_of(compute_dtype="bfloat16")), both(config_of()), strict=True):
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("float32")}
        got, full = (np.asarray(ravel_pytree(tree)[0]) for tree in (got, full))
        assert 1e-4 < np.linalg.norm(got - full) / np.linalg.norm(full) < 0.02


def test_one_pass_more_each_way(x64):
    """H v takes 8L − 5 matrix products for the 3L − 1 of `backward`, G v 5L − 2: no pass is done twice."""
    case = make_case(config_of(batch_norm=True))
    L, v = case.config.depth, direction(case)
    counts = {
        function: live_and_dead_products(lambda *args, train, f=function: f(*args[:4], v, args[4], train=train), case)
        for function in (hvp, gnvp)
    }
    assert {function: live for function, (live, _) in counts.items()} == {hvp: 8 * L - 5, gnvp: 5 * L - 2}


def test_by_hand():
    """No automatic differentiation, but where a docstring says what it would give."""
    for module in (r_operator, r_layers):
        found = re.findall(r"jax\.(grad|jvp|vjp|lin|jac|hess|value_and|custom)", inspect.getsource(module))
        assert len(found) == inspect.getsource(module).count("jax.jvp(jax.grad(loss), params, v)") * 2


def test_a_direction_of_other_form_is_refused(x64):
    case = make_case(config_of())
    v = case.params
    for wrong, message in (
        ((v[0],), "v has the tree PyTreeDef.*: expected that of params"),
        ((v[0]._replace(b=None), *v[1:]), "v has the tree"),
        ((*v[:2], v[2]._replace(W=v[2].W[:2])), r"v\[2\].W has shape \(2, 3\): expected \(3, 3\), as params\[2\].W"),
    ):
        for function in (hvp, gnvp):
            with pytest.raises(InputError, match=message):
                product(case, function, wrong)
    integers = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.int8), v)
    assert {leaf.dtype for leaf in jax.tree.leaves(product(case, hvp, integers))} == {jnp.dtype("float64")}


# --- the tester is tested ----------------------------------------------------------------------------------------


def scaled(f, index=None):
    """``f`` wrong by 0.05 %, or one of its outputs."""

    def wrong(*args):
        out = f(*args)
        return 1.0005 * out if index is None else tuple(1.0005 * o if i == index else o for i, o in enumerate(out))

    return wrong


NORMED = {"batch_norm": True}
WRONG = {
    "tanh.d2f": (ACTIVATIONS, "tanh", "d2f", {}),
    "prelu.d2f_dslope": (ACTIVATIONS, "prelu", "d2f_dslope", {"activation": "prelu"}),
    "multiclass.ddz": (HEADS, "multiclass", "ddz", {}),
    "l2.ddf": (PENALTIES, "l2", "ddf", {"l2": 0.3}),
    "R{Z}": (r_operator, "affine_r_forward", 0, {}),
    "R{dX}": (r_operator, "affine_r_backward", 0, {}),
    "R{dW}": (r_operator, "affine_r_backward", 1, {}),
    "R{db}": (r_operator, "affine_r_backward", 2, {}),
    "R{z̃}": (r_operator, "batch_norm_r_forward", 0, NORMED),
    "R{dz} of batch-norm": (r_operator, "batch_norm_r_backward", 0, NORMED),
    "R{dγ}": (r_operator, "batch_norm_r_backward", 1, NORMED),
    "R{dβ}": (r_operator, "batch_norm_r_backward", 2, NORMED),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_small_error_is_noticed(x64, monkeypatch, name):
    home, at, part, options = WRONG[name]
    if isinstance(home, dict):
        record = home[at]
        monkeypatch.setitem(home, at, record._replace(**{part: scaled(getattr(record, part))}))
    else:
        monkeypatch.setattr(home, at, scaled(getattr(home, at), part))
    with pytest.raises(AssertionError):
        assert_hessian(make_case(config_of(**options), "zeros"))
