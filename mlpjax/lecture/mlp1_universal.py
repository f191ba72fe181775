"""Checks of the section *One hidden layer*: what it is for, from XOR to any continuous function, and depth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlpjax
from mlpjax import one_hidden_descent, toys, universal
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.config import Config
from mlpjax.parameters import Batch, Layer, Params
from mlpjax.perceptron import perceptron_predict
from mlpjax.separability import margin_of, separate
from mlpjax.universal import linear_pieces, modulus_of_continuity, step_approximator

_compiled_predict = jax.jit(mlpjax.predict)


def _start(config: Config, seed: int, scale: float = 1.0) -> Params:
    """Weights from N(0, scale²), biases 0, drawn without compiling anything."""
    rng: Any = np.random.default_rng(seed)
    layers = itertools.pairwise(config.sizes)
    return tuple(Layer(rng.normal(0, scale, (n_in, n_out)), jnp.zeros(n_out)) for n_in, n_out in layers)


def _predict(config: Config, params: Params, x: Any) -> Any:
    return _compiled_predict(config, params, (), x)


def mlp1_xor_and() -> Claim:
    """The first hidden unit of XOR, w = (1, 1), b = −1½, is the gate AND."""
    return equal("truth table", perceptron_predict(universal.AND, toys.gate("and_gate")[0]), [0, 0, 0, 1])


@printed("err-list-dash", lambda x: -perceptron_predict(universal.OR, x))
def mlp1_xor_or(form: Callable[[Any], Any] = lambda x: perceptron_predict(universal.OR, x)) -> Claim:
    """The second, w = (1, 1), b = −½, is the gate OR; no minus stands before it."""
    return equal("truth table", form(toys.gate("or_gate")[0]), [0, 1, 1, 1])


def mlp1_xor_output() -> tuple[Claim, ...]:
    """T(−AND + OR − ½) is XOR; with σ(20 z) in place of every T it is so to 1e-4."""
    x, y = toys.gate("xor_gate")
    config, params = universal.xor_network()
    smooth, smooth_params = universal.xor_network(sharpness=20)
    yhat = _predict(smooth, smooth_params, x)
    return (
        equal("by 2-2-1 threshold units", mlpjax.decide(config, _predict(config, params, x)), y),
        equal(
            "by the output unit on AND and OR", perceptron_predict(universal.OR_NOT_AND, universal.xor_projection(x)), y
        ),
        holds("by sigmoid units", np.abs(yhat[:, 0] - y).max() < 1e-4, float(np.abs(yhat[:, 0] - y).max())),
    )


def mlp1_xor_space() -> tuple[Claim, ...]:
    """The projection brings (0, 1) and (1, 0) together: a line separates there what none does in the plane."""
    x, y = toys.gate("xor_gate")
    projected = np.asarray(universal.xor_projection(x))
    found, unit = separate(projected, y), universal.OR_NOT_AND
    margin = margin_of(unit.w, unit.b, projected, y)
    return (
        equal("the four points", projected, [[0, 0], [0, 1], [0, 1], [1, 1]]),
        holds("separable there, by linear programming", found.separable, found),
        holds("the output unit is such a line", margin > 0, margin),
        holds("not separable before", not separate(x, y).separable, "certificate"),
    )


def mlp1_xor_trainable() -> tuple[Claim, ...]:
    """Gradient descent finds such projections itself: 2-4-1 tanh units from six random starts."""
    x, y = toys.gate("xor_gate")
    config = Config(sizes=(2, 4, 1), activation="tanh", head="binary")
    wrong, costs = [], []
    for seed in range(6):
        params = _start(config, seed)
        params, J = one_hidden_descent.gradient_descent(params, x * 1.0, y[:, None] * 1.0, alpha=1.0, iterations=300)
        wrong.append(int(np.sum((_predict(config, params, x)[:, 0] >= 0.5) != y)))
        costs.append(J[-1] / J[0])
    solved = wrong.count(0)
    return (
        holds("starts that end with 4 of 4 right", solved >= 4, f"{solved} of 6"),
        holds("the cost falls, in the median to", np.median(costs) < 0.1, f"{np.median(costs):.3f} of its start"),
    )


def _bumpy(x: Any) -> Any:
    """A smooth function on [0, 1], whose slope is at most 2π + 3."""
    return np.sin(2 * np.pi * x) + x**3


def _sup_error(f: Callable[[Any], Any], N: int, points: int = 481) -> float:
    """max |f − f̂| of N step units on a grid of [0, 1) that has all jumps and all middles, if 2N divides 480."""
    x = np.linspace(0, 1, points)[:-1]
    config, params = step_approximator(f, N)
    yhat = _predict(config, params, x[:, None])[:, 0]
    return float(np.abs(np.asarray(yhat) - f(x)).max())


def mlp1_uat() -> tuple[Claim, ...]:
    """With enough units the largest error goes to 0 for continuous functions, with a kink or a vertical slope too."""
    claims = []
    for name, f in (("smooth", _bumpy), ("∣x − 0.3∣", lambda x: np.abs(x - 0.3)), ("√x", np.sqrt)):
        few, many = _sup_error(f, 6), _sup_error(f, 120)
        claims.append(holds(f"{name}: 6 and 120 units", many < few / 4, f"{few:.3f} and {many:.4f}"))
    jump = _sup_error(lambda x: np.where(x < 0.501, 0.0, 1.0), 120)
    return *claims, holds("a jump is not continuous: it stays", jump > 0.49, jump)


def mlp1_uat_step_construct() -> tuple[Claim, ...]:
    """N step units: the error is within ω_f(1/(2N)), and falls like 1/N."""
    sizes = np.array([3, 6, 24, 120])
    errors = np.array([_sup_error(_bumpy, N) for N in sizes])
    bounds = [modulus_of_continuity(_bumpy, 1 / (2 * N), points=481) for N in sizes]
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    lipschitz = np.array([(2 * np.pi + 3) / (2 * N) for N in sizes])
    config, params = step_approximator(_bumpy, 3)
    middles = (np.arange(3) + 0.5) / 3
    return (
        agree("f̂ = f in the middles", _predict(config, params, middles[:, None])[:, 0], _bumpy(middles)),
        holds(
            "error ≤ ω_f(1/(2N)) for N = 3 … 120", np.all(errors <= bounds), f"{errors.max():.3f} to {errors.min():.4f}"
        ),
        holds("ω_f(1/(2N)) ≤ K/(2N)", np.all(bounds <= lipschitz), f"K = {2 * np.pi + 3:.2f}"),
        holds("slope of log error against log N", -1.1 < slope < -0.9, float(slope)),
    )


def mlp1_uat_3_units() -> tuple[Claim, ...]:
    """Three step units make three jumps: at most four values, and an error that no choice of weights avoids."""
    config, params = step_approximator(_bumpy, 3)
    x = np.linspace(-0.5, 1.5, 480)
    yhat = np.asarray(_predict(config, params, x[:, None])[:, 0])
    spread = np.ptp(_bumpy(x[(x >= 0) & (x < 1)]))
    error = _sup_error(_bumpy, 3)
    return (
        equal("jumps", int(np.count_nonzero(np.diff(yhat))), 3),
        equal("values", len(np.unique(yhat)), 4),
        holds("the error is at least (max f − min f)/8", error >= spread / 8, f"{error:.3f} and {spread / 8:.3f}"),
    )


def mlp1_uat_trained() -> Claim:
    """Trained tanh units do it too: the wider the hidden layer, the smaller the error on points not trained on."""
    config, optimizer = Config(sizes=(1, 16, 1), activation="tanh", head="regression"), optax.adam(0.03)
    x = jnp.linspace(-1, 1, 40)[:, None]
    batch, unseen = (Batch(x, jnp.sin(3 * x) + x**2) for x in (x, (x[1:] + x[:-1]) / 2))

    def mse(params: Params, on: jax.Array) -> jax.Array:
        """Train some of the 16 units: the weights from the others to the output are 0, and stay so."""

        def masked(params: Params) -> Params:
            return (params[0], params[1]._replace(W=params[1].W * on[:, None]))

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, opt_state = carry
            grads = mlpjax.backward(config, params, (), batch)[1]
            return mlpjax.apply_update(optimizer, masked(grads), opt_state, params), None

        start = masked(params)
        (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=400)
        return 2 * mlpjax.loss(config, params, (), unseen)[0]

    # 3 starts for each of 3 widths
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves * 3), *(_start(config, seed, 1 / 3) for seed in range(3)))
    on = jnp.repeat(jnp.arange(16)[None, :] < jnp.array([1, 3, 16])[:, None], 3, axis=0)
    errors = np.reshape(jax.jit(jax.vmap(mse))(starts, on), (3, 3))
    found = ", ".join(f"{value:.1e}" for value in np.median(errors, axis=1))
    apart = np.all(errors[1:].max(axis=1) < errors[:-1].min(axis=1))
    return holds("1, 3, 16 units: every start of the wider below every start of the narrower", apart, found)


def mlp1_depth_progressive() -> tuple[Claim, ...]:
    """Depth instead of width, for one family: k hidden layers of 2 ReLU units fold the line into 2^k pieces."""
    pieces = {k: len(linear_pieces(universal.tent_network(k)[1])) - 1 for k in (1, 3, 6)}
    config, params = universal.tent_network(6)
    x = np.linspace(0, 1, 65)
    rng = np.random.default_rng(0)
    W1, b1, W2 = rng.normal(size=(1, 12)), rng.normal(size=12), rng.normal(size=(12, 1))
    shallow = len(linear_pieces((Layer(W1, b1), Layer(W2, np.zeros(1))), -100, 100)) - 1  # type: ignore[arg-type]
    return (
        equal("pieces for k = 1, 3, 6", list(pieces.values()), [2, 8, 64]),
        equal(
            "k = 6 is six tents, from 0 to 1 and back", _predict(config, params, x[:, None])[:, 0], np.arange(65) % 2
        ),
        equal("12 random units in one layer: 13 pieces", shallow, 13),
        equal("hidden units of k = 6", sum(config.sizes[1:-1]), 12),
    )
