"""Newton's method, Newton–CG and Levenberg–Marquardt: known minima, saddles, every reason to stop, many starts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import least_squares

import mlpjax
from mlpjax import logistic
from mlpjax.errors import ConfigError, DataError, InputError
from mlpjax.gauss_newton import gauss_newton_matrix, levenberg_marquardt
from mlpjax.solver_loop import MESSAGES
from mlpjax.solver_steps import conjugate_gradient
from mlpjax.solvers import newton, newton_cg
from mlpjax.targets import target_matrix

SOLVERS = {
    "newton": newton,
    "newton_cg": newton_cg,
    "dense": levenberg_marquardt,
    "cg": functools.partial(levenberg_marquardt, solve="cg"),
}
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
autodiff = jax.jit(mlpjax.autodiff, static_argnames="train")
two_solvers = pytest.mark.parametrize("solver", [newton_cg, levenberg_marquardt])
CURVED = mlpjax.Config(sizes=(2, 3, 1), activation="tanh", head="regression", l2=1e-4)


def noisy(m=20, seed=0):
    """A curved function with noise, so that the minimum has J > 0, and weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, 2))
    y = np.sin(x[:, 0]) - 0.5 * x[:, 1] + 0.02 * rng.normal(size=m)
    return mlpjax.Batch(x, y, rng.uniform(0.5, 2, size=m))


def start(config, seed=1):
    return mlpjax.init(config, jax.random.key(seed))


def gradient_norm(config, params, state, batch):
    """By autodiff, independent of the solver."""
    return np.linalg.norm(ravel_pytree(autodiff(config, params, state, batch, train=False)[1])[0])


@pytest.mark.parametrize("solver", [newton, levenberg_marquardt])
def test_weighted_ridge_regression_takes_one_step(x64, solver):
    """A linear network: J is quadratic, and its minimum solves the normal equations."""
    config = mlpjax.Config(sizes=(2, 1), head="regression", l2=0.1)
    batch = noisy()
    solution = solver(config, *start(config), batch, damping=1e-13, tol=1e-11, max_steps=1)
    assert (int(solution.steps), solution.reason, bool(solution.converged)) == (1, "gradient", True)
    design, p = np.column_stack([batch.x, np.ones(len(batch.x))]), batch.weight / batch.weight.sum()
    normal = (design.T * p) @ design + np.diag([0.1, 0.1, 0])
    expected = np.linalg.solve(normal, (design.T * p) @ batch.y)
    np.testing.assert_allclose(np.append(solution.params[0].W, solution.params[0].b), expected, rtol=1e-9)


@each_solver
def test_a_minimum_that_scipy_finds_too(x64, solver):
    """½ Σ r² over residuals √pᵢ (ŷᵢ − yᵢ) and √l2 W is J; SciPy starts where the solver ended, and stays."""
    batch, (params, state) = noisy(), start(CURVED)
    solution = solver(CURVED, params, state, batch, tol=1e-9)
    assert solution.reason == "gradient"
    assert gradient_norm(CURVED, solution.params, state, batch) < 1.1e-9
    theta, unravel = ravel_pytree(solution.params)
    root = np.sqrt(batch.weight / batch.weight.sum())

    @jax.jit
    def residuals(theta):
        params = unravel(theta)
        error = root * (mlpjax.predict(CURVED, params, state, batch.x)[:, 0] - batch.y)
        return jnp.concatenate([error, *(jnp.sqrt(CURVED.l2) * layer.W.ravel() for layer in params)])

    rng = np.random.default_rng(0)
    jacobian = jax.jit(jax.jacfwd(residuals))
    near = theta + 1e-3 * rng.normal(size=theta.shape)
    peer = least_squares(residuals, near, jacobian, xtol=1e-15, ftol=1e-15, gtol=1e-12)
    steps = int(solution.steps)
    np.testing.assert_allclose(solution.costs[steps], peer.cost, rtol=1e-9)
    np.testing.assert_allclose(theta, peer.x, atol=1e-4)
    costs, norms = np.asarray(solution.costs), np.asarray(solution.gradient_norms)
    assert np.all(np.diff(costs[: steps + 1]) < 1e-15)
    assert np.all(np.isnan(costs[steps + 1 :]))
    assert np.isnan(solution.controls[steps])
    np.testing.assert_allclose(norms[0], gradient_norm(CURVED, params, state, batch), rtol=1e-12)
    np.testing.assert_allclose(costs[0], mlpjax.loss(CURVED, params, state, batch)[0], rtol=1e-14)


def test_logistic_regression(x64):
    """The network without a hidden layer has the fit of `mlpjax.logistic.newton`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    y = (rng.uniform(size=30) < 1 / (1 + np.exp(-2 * x[:, 0] + x[:, 1]))).astype(int)
    config = mlpjax.Config(sizes=(2, 1), head="binary", l2=0.01)
    fit = logistic.newton(x, y, l2=0.01)
    solution = levenberg_marquardt(config, *start(config), mlpjax.Batch(x, y), tol=1e-11)
    assert solution.reason == "gradient"
    np.testing.assert_allclose(solution.params[0].W[:, 0], fit.w, rtol=1e-8)
    np.testing.assert_allclose(solution.params[0].b[0], fit.b, rtol=1e-8)


@pytest.mark.parametrize("head", ["regression", "regression_relu", "multiclass", "multilabel"])
def test_the_gauss_newton_matrix(x64, head):
    """Jᵀ (∂²L/∂z²) J by autodiff, with weights and a row of weight 0."""
    config = mlpjax.Config(sizes=(2, 2, 3), activation="tanh", head=head, l2=0.3)
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(5, 2)), np.array([1.0, 0.0, 2.0, 0.5, 1.0])
    y = rng.integers(0, 3, 5) if head == "multiclass" else rng.integers(0, 2, (5, 3)).astype(float)
    params, state = start(config)
    theta, unravel = ravel_pytree(params)

    def scores(theta):
        return mlpjax.forward(config, unravel(theta), state, x)[0]

    def data_loss(z):
        losses = mlpjax.HEADS[head].loss(z, target_matrix(head, y, 3, z.dtype, None))
        return jnp.sum(weight * losses) / 4.5

    @jax.jit
    def by_autodiff(theta):
        J, B = jax.jacobian(scores)(theta), jax.hessian(data_loss)(scores(theta))
        return jnp.einsum("icp,icjd,jdq->pq", J, B, J)

    expected = by_autodiff(theta)
    penalty = jax.tree.map(jnp.zeros_like, params)
    penalty = tuple(layer._replace(W=jnp.full_like(layer.W, 0.3)) for layer in penalty)
    found = jax.jit(gauss_newton_matrix)(config, params, state, mlpjax.Batch(x, y, weight))
    np.testing.assert_allclose(found, expected + jnp.diag(ravel_pytree(penalty)[0]), rtol=1e-11, atol=1e-14)


def test_newton_leaves_a_saddle(x64):
    """All weights 0: g = 0, but H has negative eigenvalues; the others stop there, and say what they know."""
    config = mlpjax.Config(sizes=(1, 1, 1), activation="tanh", head="regression", bias=False, init="zeros")
    batch = mlpjax.Batch(np.array([[1.0], [-2.0]]), np.tanh([1.0, -2.0]))
    solution = newton(config, *start(config), batch)
    assert (solution.reason, int(solution.steps) > 1) == ("gradient", True)
    assert solution.costs[solution.steps] < 1e-15
    assert int(newton_cg(config, *start(config), batch).steps) == 0
    near = jax.tree.map(lambda leaf: leaf + 1e-3, start(config)[0])
    for solver in (newton, newton_cg):
        costs = solver(config, near, (), batch).costs
        assert costs[0] > 0.2
        assert jnp.nanmin(costs) < 1e-10


def test_many_starts_at_once(x64):
    batch = noisy()
    starts = [start(CURVED, seed)[0] for seed in range(3)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    solutions = jax.vmap(lambda params: levenberg_marquardt(CURVED, params, (), batch, tol=1e-9))(together)
    assert solutions.reason.tolist() == ["gradient"] * 3
    assert solutions.converged.all()
    for i, params in enumerate(starts):
        alone = levenberg_marquardt(CURVED, params, (), batch, tol=1e-9)
        steps = int(alone.steps)
        np.testing.assert_allclose(solutions.costs[i, steps], alone.costs[steps], rtol=1e-9)
        np.testing.assert_allclose(solutions.gradient_norms[i, :5], alone.gradient_norms[:5], rtol=1e-8)


@two_solvers
def test_float32(solver):
    solution = solver(CURVED, *start(CURVED), noisy(), tol=1e-4)
    assert solution.params[0].W.dtype == solution.costs.dtype == jnp.float32
    assert solution.reason == "gradient"


def test_work(x64):
    """P = 13: 1 + 2P and a trial of 1/3 for Newton's method; 1 + (1/3 + 2/3) + 1/3 for the dense Gauss–Newton step."""
    for solver, least in ((newton, 1 + 26 + 1 / 3), (levenberg_marquardt, 1 + 1 + 1 / 3)):
        solution = solver(CURVED, *start(CURVED), noisy(), tol=1e-9)
        work, steps = np.asarray(solution.work), int(solution.steps)
        more_trials = (work[:steps] - least) * 3
        np.testing.assert_allclose(more_trials, np.round(more_trials), atol=1e-9)
        assert more_trials.min() == pytest.approx(0, abs=1e-9)
        assert np.all(work[steps + 1 :] == 0)


def test_steps_and_loss(x64):
    solver = levenberg_marquardt
    limited = solver(CURVED, *start(CURVED), noisy(), max_steps=3)
    assert (limited.reason, int(limited.steps), limited.costs.shape) == ("max_steps", 3, (4,))
    assert (limited.message, bool(limited.converged)) == (MESSAGES["max_steps"], False)
    reached = solver(CURVED, *start(CURVED), noisy(), loss_tol=1.0, tol=0.0)
    assert (reached.reason, bool(reached.converged)) == ("loss", True)
    assert reached.costs[reached.steps] <= 1


@two_solvers
def test_what_rounding_ends(solver):
    """A gradient norm of 0 is not reached in float32."""
    solution = solver(CURVED, *start(CURVED), noisy(), tol=0.0)
    assert solution.reason in ("precision", "damping", "no_descent")
    assert gradient_norm(CURVED, solution.params, (), noisy()) < 1e-3


@two_solvers
def test_a_kink(x64, solver):
    """J ∝ leaky(2w) + leaky(−w) near its minimum w = 0, where the derivative is taken as 2 − 1: no step leads down."""
    config = mlpjax.Config(sizes=(1, 1, 1), activation="leaky_relu", head="regression", bias=False)
    params = (mlpjax.Layer(W=jnp.zeros((1, 1))), mlpjax.Layer(W=jnp.ones((1, 1))))
    batch = mlpjax.Batch(np.array([[2.0], [-1.0]]), np.array([-5.0, -5.0]))
    solution = solver(config, params, (), batch)
    assert solution.reason == ("no_descent" if solver is newton_cg else "damping")
    assert int(solution.steps) == 0


@two_solvers
def test_values_that_are_not_finite(solver):
    params = jax.tree.map(lambda leaf: leaf + 1e30, start(CURVED)[0])
    solution = solver(CURVED, params, (), noisy())
    assert (solution.reason, int(solution.steps)) == ("not_finite", 0)


def test_batch_norm_keeps_its_statistics(x64):
    config = dataclasses.replace(CURVED, batch_norm=True)
    params, state = start(config)
    _, state = mlpjax.forward(config, params, state, noisy().x, train=True)
    solution = levenberg_marquardt(config, params, state, noisy(), tol=1e-4)
    assert solution.reason == "gradient"
    assert gradient_norm(config, solution.params, state, noisy()) < 1.1e-4


def test_conjugate_gradient(x64):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(6, 6))
    B, b = jnp.asarray(A @ A.T + np.eye(6)), jnp.asarray(rng.normal(size=6))
    x, r, products = conjugate_gradient(lambda v: B @ v, b, 1e-12, 20)
    np.testing.assert_allclose(x, np.linalg.solve(B, b), rtol=1e-9)
    assert int(products) <= 8
    x, r, products = conjugate_gradient(lambda v: B @ v, b, 0.0, 2)
    np.testing.assert_allclose(r, b - B @ x, atol=1e-13)
    assert int(products) == 2
    x, r, products = conjugate_gradient(lambda v: -2 * v, b, 1e-12, 20)
    np.testing.assert_allclose((x, r), (b / 2, 2 * b), rtol=1e-13)
    assert int(products) == 1
    indefinite = jnp.diag(jnp.array([3.0, 2.0, -1.0]))
    x, r, products = conjugate_gradient(lambda v: indefinite @ v, jnp.array([1.0, 1.0, 0.5]), 1e-12, 20)
    assert x @ jnp.array([1.0, 1.0, 0.5]) > 0
    np.testing.assert_allclose(r, jnp.array([1.0, 1.0, 0.5]) - indefinite @ x, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dropout": 0.1}, "dropout"),
        ({"l1": 0.1}, "proximal_l1"),
        ({"activation": "binary_step"}, "smooth step"),
    ],
    ids=["dropout", "l1", "binary_step"],
)
@each_solver
def test_what_is_refused(solver, change, words):
    config = dataclasses.replace(CURVED, **change)
    with pytest.raises(ConfigError, match=words):
        solver(config, *start(config), noisy())


def test_wrong_arguments():
    params, state = start(CURVED)
    for solver in SOLVERS.values():
        with pytest.raises(InputError, match="tol is -1"):
            solver(CURVED, params, state, noisy(), tol=-1)
        with pytest.raises(ConfigError, match="max_steps is 0"):
            solver(CURVED, params, state, noisy(), max_steps=0)
        with pytest.raises(DataError, match=r"\(m, 2\)"):
            solver(CURVED, params, state, mlpjax.Batch(np.ones((3, 4)), np.ones(3)))
    with pytest.raises(DataError, match="nan"):
        newton(CURVED, params, state, mlpjax.Batch(np.full((3, 2), np.nan), np.ones(3)))
    for solver in (newton, levenberg_marquardt):
        with pytest.raises(InputError, match="damping is 0"):
            solver(CURVED, params, state, noisy(), damping=0)
    with pytest.raises(ConfigError, match="unknown solve 'qr'"):
        levenberg_marquardt(CURVED, params, state, noisy(), solve="qr")
    with pytest.raises(ConfigError, match="max_products is 0"):
        newton_cg(CURVED, params, state, noisy(), max_products=0)
    large = mlpjax.Config(sizes=(2, 2000, 1), head="regression")
    for solver, instead in ((newton, "newton_cg"), (levenberg_marquardt, "solve='cg'")):
        with pytest.raises(InputError, match=f"8001 × 8001 .* use .*{instead}"):
            solver(large, *start(large), noisy())
