"""Checks of the section *Regularisation*, second part: the L2 penalty of a network, and weight decay."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

import mlpjax
from mlpjax import Batch, Config, Layer, optim
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.errors import InputError
from mlpjax.parameters import Params
from mlpjax.penalties import l2_penalty
from mlpjax.shrinkage import decay_factor, decay_step, linear_r2

_M, _LAMBDA = 8, 1.2
_L2 = _LAMBDA / _M
_backward, _autodiff, _loss = jax.jit(mlpjax.backward), jax.jit(mlpjax.autodiff), jax.jit(mlpjax.loss)


def _batch() -> Batch:
    rng: Any = np.random.default_rng(0)
    return Batch(rng.normal(size=(_M, 3)), rng.integers(0, 2, _M))


def _network(**penalties: Any) -> tuple[Config, Params]:
    """A network 3-4-1 whose weights and biases are drawn."""
    config = Config(sizes=(3, 4, 1), activation="tanh", head="binary", **penalties)
    rng: Any = np.random.default_rng(1)
    shapes = (((3, 4), 4), ((4, 1), 1))
    return config, tuple(Layer(jnp.asarray(rng.normal(size=W)), jnp.asarray(rng.normal(size=b))) for W, b in shapes)


def _cross_entropy(z: Any, y: Any) -> float:
    yhat = 1 / (1 + np.exp(-np.asarray(z)[:, 0]))
    return float(-np.mean(y * np.log(yhat) + (1 - y) * np.log(1 - yhat)))


def reg_lambda() -> tuple[Claim, ...]:
    """λ is for you to choose: off by default, λ = 0 is no penalty, a negative one is refused."""
    batch, (plain, params) = _batch(), _network()
    zero = _network(l1=0.0, l2=0.0)[0]
    (J, _), grads = _backward(plain, params, (), batch)
    (J_zero, _), grads_zero = _backward(zero, params, (), batch)
    try:
        refused = f"accepted: {_network(l2=-0.1)[0].l2}"
    except InputError as error:
        refused = str(error)
    return (
        equal("J with λ = 0", J_zero, J),
        equal("dW[1] with λ = 0", grads_zero[0].W, grads[0].W),
        holds("l2 = −0.1", "expected a finite number ≥ 0" in refused, refused),
    )


def reg_nn_cost() -> tuple[Claim, ...]:
    """J = (1/m) Σ L + (λ/2m) Σ_l ‖W[l]‖², biases left out, whatever the batch size."""
    batch, (config, params) = _batch(), _network(l2=_L2)
    J, aux = _loss(config, params, (), batch)
    squares = sum(float(w) ** 2 for layer in params for w in np.ravel(layer.W))
    (W1, b1), (W2, b2) = ((np.asarray(layer.W), np.asarray(layer.b)) for layer in params)
    z = np.tanh(batch.x @ W1 + b1) @ W2 + b2
    half = _loss(config, params, (), Batch(batch.x, batch.y, np.arange(_M) % 2))[1]
    return (
        agree("J against the sum by hand", J, _cross_entropy(z, batch.y) + _LAMBDA / (2 * _M) * squares),
        agree("the penalty of a batch of half the examples", half.penalty, aux.penalty),
    )


@printed("err-frobenius", lambda W: jnp.linalg.norm(W))
def reg_frobenius(square: Any = lambda W: l2_penalty(W, 2.0)) -> tuple[Claim, ...]:
    """‖W‖_F² = Σᵢ Σ_j W_ij² = trace(WᵀW): the square of the norm, not the norm."""
    W = np.random.default_rng(0).normal(size=(3, 2))
    return (
        agree("against the double sum", square(W), sum(W[i, j] ** 2 for i in range(3) for j in range(2))),
        agree("against trace(WᵀW)", square(W), np.trace(W.T @ W)),
        agree("against NumPy's norm, squared", square(W), np.linalg.norm(W, "fro") ** 2),
    )


def reg_nn_grad() -> tuple[Claim, ...]:
    """d′W[l] = dW[l] + (λ/m) W[l]."""
    batch, (config, params) = _batch(), _network(l2=_L2)
    _, grads = _backward(config, params, (), batch)
    _, plain = _backward(_network()[0], params, (), batch)
    _, by_grad = _autodiff(config, params, (), batch)
    return (
        agree("d′W[1]", grads[0].W, plain[0].W + _LAMBDA / _M * params[0].W),
        agree("d′W[2] against jax.grad", grads[1].W, by_grad[1].W),
        agree("db[1] has no penalty", grads[0].b, plain[0].b),
    )


def reg_nn_step() -> tuple[Claim, ...]:
    """The slide's four lines of one step are the same step."""
    batch, alpha, (config, params) = _batch(), 0.3, _network(l2=_L2)
    _, dashed = _backward(config, params, (), batch)
    dW, W = _backward(_network()[0], params, (), batch)[1][0].W, params[0].W
    lines = (
        W - alpha * dashed[0].W,
        W - alpha * (dW + _LAMBDA / _M * W),
        W - alpha * _LAMBDA / _M * W - alpha * dW,
    )
    found = decay_step(W, dW, alpha, _L2)
    return tuple(agree(f"line {k} and the last", found, line) for k, line in enumerate(lines, start=1))


def _run(optimizer: optax.GradientTransformation, config: Config, steps: int = 20) -> np.ndarray:
    params: Params = (Layer(jnp.array([[0.5], [-2.0], [1.5]])),)
    opt_state = optimizer.init(params)
    update = jax.jit(functools.partial(mlpjax.apply_update, optimizer))
    for _ in range(steps):
        _, grads = _backward(config, params, (), _batch())
        params, opt_state = update(grads, opt_state, params)
    return np.asarray(params[0].W)


def reg_weight_decay() -> tuple[Claim, ...]:
    """With plain gradient steps the L2 penalty is weight decay by 1 − αλ/m; with Adam it is not."""
    plain = Config(sizes=(3, 1), head="binary", bias=False)
    penalised = Config(sizes=(3, 1), head="binary", bias=False, l2=_L2)
    W = jnp.array([[0.5], [-2.0], [1.5]])
    for _ in range(20):
        W = decay_step(W, _backward(plain, (Layer(W),), (), _batch())[1][0].W, 0.3, _L2)
    ours = {
        "beside": _run(optax.chain(optim.gradient_descent(0.3), optim.decoupled_decay(0.3, _L2)), plain),
        "adam": _run(optax.chain(optim.coupled_decay(_L2), optim.adam(0.1)), plain),
        "adamw": _run(optax.chain(optim.adam(0.1), optim.decoupled_decay(0.1, _L2)), plain),
    }
    adam, adamw = _run(optax.adam(0.1), penalised), _run(optax.adamw(0.1, weight_decay=_L2), plain)
    apart = float(np.abs(ours["adam"] - ours["adamw"]).max())
    return (
        agree("20 steps: decayed, and with the penalty", W, _run(optax.sgd(0.3), penalised)),
        agree("and with decoupled_decay in the chain", W, ours["beside"]),
        holds("the factor is below 1", 0 < decay_factor(0.3, _L2) < 1, decay_factor(0.3, _L2)),
        agree("Adam with coupled_decay, against Adam and the penalty", ours["adam"], adam),
        agree("Adam with decoupled_decay, against AdamW", ours["adamw"], adamw),
        holds("these two are apart", apart > 0.05, apart),
    )


def reg_decay_stability() -> tuple[Claim, ...]:
    """Weights decay if and only if αλ/m < 2; beyond, they grow with alternating sign, and a warning says so."""
    claims, ends = [], []
    for product in (0.5, 1.5, 2.5):
        W = jnp.array([[1.0]])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(10):
                W = decay_step(W, jnp.zeros((1, 1)), 1.0, product)
        claims.append(agree(f"αλ/m = {product}: ten steps without data", W[0, 0], np.prod(np.full(10, 1 - product))))
        claims.append(holds("warnings", len(caught) == (10 if product > 2 else 0), len(caught)))
        ends.append(abs(float(W[0, 0])))
    return (
        *claims,
        holds("0.5 and 1.5 settle, 2.5 grows", max(ends[:2]) < 1e-2 < 10 < ends[2], f"{ends[1]:.3g}, {ends[2]:.3g}"),
    )


def reg_intuition_1() -> tuple[Claim, ...]:
    """The larger λ, the smaller the minimiser's weights; in the end the network is the constant mean(y)."""
    batch, found = _batch(), []
    start, unflatten = ravel_pytree(_network()[1])
    for l2 in (0.01, 0.1, 1.0, 10.0):
        config = _network(l2=l2)[0]

        def value_and_gradient(flat: Any, config: Config = config) -> tuple[float, np.ndarray]:
            (J, _), grads = _backward(config, unflatten(flat), (), batch)
            return float(J), np.asarray(ravel_pytree(grads)[0])

        found.append(minimize(value_and_gradient, start / 2, jac=True, method="BFGS").x)
    norms = [np.linalg.norm(np.append(x[:12], x[16:20])) for x in found]
    yhat = mlpjax.predict(_network()[0], unflatten(found[-1]), (), batch.x)
    return (
        holds(
            "norm of the weights, λ/m = 0.01 … 10", np.all(np.diff(norms) < 1e-6), ", ".join(f"{n:.2g}" for n in norms)
        ),
        holds("W ≈ 0 at λ/m = 10", norms[-1] < 1e-3, float(norms[-1])),
        agree("ŷ there, for every example", yhat[:, 0], np.full(_M, batch.y.mean()), 1e-3),
    )


def reg_intuition_2() -> tuple[Claim, ...]:
    """tanh is nearly linear at 0, so that a network of small weights is nearly linear."""
    z = np.linspace(-2, 2, 401)
    error = np.abs(mlpjax.ACTIVATIONS["tanh"].f(z) - z)
    X: Any = np.random.default_rng(4).normal(size=(200, 3))
    config, params = _network()
    shrunk = [jax.tree.map(lambda leaf, s=s: s * leaf, params) for s in (2.0, 0.5, 0.1, 0.01)]
    r2 = [linear_r2(X, jax.jit(mlpjax.forward)(config, small, (), X)[0][:, 0]) for small in shrunk]
    return (
        holds("|tanh z − z| ≤ |z|³/3", np.all(error <= np.abs(z) ** 3 / 3 + 1e-15), float(np.max(error))),
        holds(
            "R² of the best linear fit, weights × 2 … 0.01", np.all(np.diff(r2) > 0), ", ".join(f"{v:.6f}" for v in r2)
        ),
        agree("weights × 0.01: R²", r2[-1], 1.0, 1e-6),
    )
