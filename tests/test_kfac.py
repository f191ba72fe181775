"""Kronecker factors: products of gradients for one example, expectations over labels, and what is solved with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, make_case, sizes_of

import mlpjax
from mlpjax import HEADS, Batch, Config, Layer
from mlpjax.errors import ConfigError, InputError
from mlpjax.kfac import KINDS, Curvature, kfac_factors, kfac_precondition

FACTORS = jax.jit(kfac_factors, static_argnames=("kind", "train"))
NETWORKS = {
    "binary": {"bias": False, "activation": "prelu"},
    "multilabel": {"batch_norm": True, "activation": "prelu"},
    "multiclass": {"activation": "tanh"},
    "regression": {"batch_norm": True, "activation": "gelu"},
    "regression_relu": {"activation": "relu"},
}


def case_of(head, weight="zeros"):
    config = Config(sizes=sizes_of(head, 1, classes=3), head=head, l2=0.3, **NETWORKS[head])
    return make_case(config, weight, train=False)


@jax.jit
def gauss_newton(config, params, state, x, y):
    """Jᵀ (∂²L/∂z²) J for each example, as a tree of a tree; by autodiff alone."""

    def scores(params):
        return mlpjax.forward(config, params, state, x)[0]

    def loss_of_one(z, y):
        return HEADS[config.head].loss(z[None], y[None])[0]

    jacobian = jax.jacrev(scores)(params)
    hessian = jax.vmap(jax.hessian(loss_of_one))(scores(params), y)
    return jacobian, hessian


@jax.jit
def factors_of_each(config, params, state, batch):
    """The factors of each example, of all, and of those with a weight."""

    def of(weight):
        return kfac_factors(config, params, state, batch._replace(weight=weight))

    return jax.vmap(of)(jnp.eye(len(batch.x))), of(batch.weight)


SLOW = ("binary", "multilabel", "regression", "regression_relu")


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=pytest.mark.slow if head in SLOW else ()) for head in NETWORKS]
)
def test_of_one_example_they_are_its_gauss_newton_matrix(x64, head):
    config, params, state, batch = case_of(head)[:4]
    targets = np.eye(3)[batch.y] if head == "multiclass" else np.reshape(batch.y, (len(batch.x), -1)).astype(float)
    jacobian, hessian = gauss_newton(config, params, state, batch.x, targets)
    each, whole = factors_of_each(config, params, state, batch)
    p = batch.weight / batch.weight.sum()
    for layer, of_one, of_all in zip(jacobian, each, whole, strict=True):
        m, n_L = layer.W.shape[:2]
        parts = [np.reshape(layer.W, (m, n_L, -1))] + ([] if layer.b is None else [layer.b])
        J = np.concatenate(parts, axis=2)
        block = np.einsum("mca,mcd,mdb->mab", J, hessian, J)
        kron = np.stack([np.kron(A, G) for A, G in zip(of_one.A, of_one.G, strict=True)])
        np.testing.assert_allclose(kron, block, rtol=1e-12, atol=1e-13 * np.abs(block).max())
        assert_close((of_all.A, of_all.G), (np.tensordot(p, of_one.A, 1), np.tensordot(p, of_one.G, 1)), 1e-12)
        for name in ("gamma", "beta", "slope"):
            D = getattr(layer, name)
            assert (getattr(of_all, name) is None) == (D is None)
            if D is not None:
                np.testing.assert_allclose(
                    getattr(of_all, name), np.einsum("m,mca,mcd,mda->a", p, D, hessian, D), rtol=1e-12
                )
    x = np.asarray(batch.x) if whole[0].A.shape == (3, 3) else np.column_stack([batch.x, np.ones(len(batch.x))])
    np.testing.assert_allclose(whole[0].A, (x * p[:, None]).T @ x, rtol=1e-12, atol=1e-15)


@functools.cache
def multiclass():
    """A float64 case, its exact factors, and ŷ."""
    case = case_of("multiclass", "given")
    return case, FACTORS(*case[:4]), np.asarray(mlpjax.predict(*case[:3], case.batch.x))


def test_exact_is_the_mean_over_labels(x64):
    """Each example with each label, weighed by its probability: empirical and exact factors are one."""
    case, exact, yhat = multiclass()
    x, weight = np.repeat(case.batch.x, 3, axis=0), np.repeat(case.batch.weight, 3)
    expanded = Batch(x, np.tile(np.arange(3), len(case.batch.x)), weight * yhat.ravel())
    assert_close(FACTORS(*case[:3], expanded, kind="empirical"), exact, 1e-12)
    other = case.batch._replace(y=(case.batch.y + 1) % 3)
    assert_close(FACTORS(*case[:3], other), exact, 0.0)


def test_sampled_is_unbiased_for_exact(x64):
    case, exact, _ = multiclass()

    def of_key(key):
        return kfac_factors(*case[:4], key, kind="sampled")

    draws = jax.jit(jax.vmap(of_key))(jax.random.split(jax.random.key(5), 4000))
    for one, of_all in zip(draws, exact, strict=True):
        assert_close(one.A, np.broadcast_to(of_all.A, one.A.shape), 1e-12)
        error = np.std(one.G, axis=0) / np.sqrt(4000)
        assert (np.abs(np.mean(one.G, axis=0) - of_all.G) <= 4.5 * error).all()
        assert (np.abs(one.G[0] - of_all.G) > error).any()


def test_empirical_are_the_products_of_the_gradients(x64):
    """With dropout: dbᵢ = dzᵢ, by autodiff with weight eᵢ, whose masks are those of the batch."""
    config = Config(sizes=(3, 4, 2), activation="tanh", head="regression", dropout=(0.2, 0.4))
    case = make_case(config, "given")

    @jax.jit
    def both(case):
        def by_weight(weight):
            return mlpjax.autodiff(*case[:3], case.batch._replace(weight=weight), case.key)[1]

        found = kfac_factors(*case[:5], kind="empirical", train=True)
        return found, jax.vmap(by_weight)(jnp.eye(len(case.batch.x)))

    found, grads = both(case._replace(train=None))
    p = case.batch.weight / case.batch.weight.sum()
    for one, layer in zip(found, grads, strict=True):
        np.testing.assert_allclose(one.G, (layer.b * p[:, None]).T @ layer.b, rtol=1e-12, atol=1e-15)


def test_linear_regression_is_exact(x64):
    """A ⊗ G is the Hessian of the whole batch, and one step without damping reaches the least squares."""
    config = Config(sizes=(3, 2), head="regression")
    case = make_case(config, "given")
    params, batch = case.params, case.batch
    start = np.concatenate([params[0].W, params[0].b[None]])

    def of_vector(theta):
        theta = jnp.reshape(theta, (4, 2))
        return mlpjax.loss(config, (Layer(theta[:3], theta[3]),), (), batch)[0]

    @jax.jit
    def solve(case):
        factors = kfac_factors(*case[:4])
        _, grads = mlpjax.backward(*case[:4])
        return factors, kfac_precondition(factors, grads, 1e-24), jax.hessian(of_vector)(start.ravel())

    (one,), (step,), hessian = solve(case._replace(train=None))
    np.testing.assert_allclose(np.kron(one.A, one.G), hessian, rtol=1e-12, atol=1e-14)
    root = np.sqrt(batch.weight)[:, None]
    design = np.column_stack([batch.x, np.ones(len(batch.x))])
    best = np.linalg.lstsq(root * design, root * batch.y, rcond=None)[0]
    np.testing.assert_allclose(start - np.concatenate([step.W, step.b[None]]), best, rtol=1e-10, atol=1e-10)


@jax.jit
def preconditioned(case, damping):
    factors = kfac_factors(*case[:4])
    _, grads = mlpjax.backward(*case[:4], train=False)
    return factors, grads, kfac_precondition(factors, grads, damping)


@pytest.mark.parametrize("damping", [1e-3, 10.0])
def test_precondition_solves_the_damped_kronecker_product(x64, damping):
    factors, grads, steps = preconditioned(case_of("multilabel")._replace(train=None), damping)
    assert jax.tree.structure(steps) == jax.tree.structure(grads)
    for one, layer, step in zip(factors, grads, steps, strict=True):
        A, G = np.asarray(one.A), np.asarray(one.G)
        pi = np.sqrt(np.trace(A) / len(A) / (np.trace(G) / len(G)))
        eyes = np.eye(len(A)), np.eye(len(G))
        matrix = np.kron(A + pi * np.sqrt(damping) * eyes[0], G + np.sqrt(damping) / pi * eyes[1])
        # the product is A ⊗ G + λI and the cross terms
        cross = np.sqrt(damping) * (pi * np.kron(eyes[0], G) + np.kron(A, eyes[1]) / pi)
        np.testing.assert_allclose(matrix - cross, np.kron(A, G) + damping * np.eye(len(matrix)), atol=1e-12)
        rows = [layer.W] if layer.b is None else [layer.W, layer.b[None]]
        got = [step.W] if layer.b is None else [step.W, step.b[None]]
        expected = np.linalg.solve(matrix, np.concatenate(rows).ravel())
        np.testing.assert_allclose(np.concatenate(got).ravel(), expected, rtol=1e-9)
    first, step, diagonal = grads[0], steps[0], factors[0]
    np.testing.assert_allclose(step.gamma, first.gamma / (diagonal.gamma + damping), rtol=1e-14)
    np.testing.assert_allclose(step.beta, first.beta / (diagonal.beta + damping), rtol=1e-14)
    np.testing.assert_allclose(step.slope, first.slope / (diagonal.slope + damping), rtol=1e-14)


def test_a_layer_without_curvature_is_damped_alone():
    """G = 0, as under dead units: π = 1, and (A + √λ)⁻¹ dW/√λ is finite."""
    factors = (Curvature(A=jnp.full((1, 1), 3.0), G=jnp.zeros((2, 2))),)
    (step,) = kfac_precondition(factors, (Layer(W=jnp.array([[10.0, 20.0]])),), 4.0)
    np.testing.assert_allclose(step.W, [[1.0, 2.0]], rtol=1e-6)


def test_a_row_of_weight_0_is_absent_and_float32_stays():
    case = make_case(Config(sizes=(3, 2), head="regression"), "zeros", train=False)
    odd = case.batch._replace(x=np.where(case.batch.weight[:, None] == 0, np.nan, case.batch.x))

    @jax.jit
    def all_kinds(batch):
        return [kfac_factors(*case[:3], batch, jax.random.key(1), kind=kind) for kind in KINDS]

    got = all_kinds(odd)
    assert_close(got, all_kinds(case.batch), 0.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("float32")}


def test_what_is_refused():
    case = make_case(Config(sizes=(3, 4, 2), head="regression", batch_norm=True))
    with pytest.raises(ConfigError, match="couples the rows"):
        kfac_factors(*case[:4], train=True)
    with pytest.raises(InputError, match=r"unknown kind 'exakt': did you mean 'exact'\? known: exact, sampled"):
        kfac_factors(*case[:4], kind="exakt")
    with pytest.raises(InputError, match="kind='sampled' draws labels: give a key"):
        kfac_factors(*case[:4], kind="sampled")
    factors = (Curvature(A=jnp.eye(4), G=jnp.eye(2)),)
    (layer,), _ = mlpjax.init(Config(sizes=(3, 2), head="regression"), jax.random.key(0))
    for damping in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match=r"damping is .*: expected a finite number > 0"):
            kfac_precondition(factors, (layer,), damping)
    with pytest.raises(InputError, match=r"sizes \[\(4, 2\)\]: grads expect \[\(3, 2\)\]"):
        kfac_precondition(factors, (layer._replace(b=None),), 1.0)
