"""Batch-norm in a network: where it stands, its parameters, training, and inference."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax import passes
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.layers import BATCH_NORM_EPS, BATCH_NORM_MOMENTUM, BatchNormState, batch_norm_inference, batch_norm_update
from mlpjax.optim import make_optimizer
from mlpjax.toys import circle

CONFIG = mlpjax.Config(sizes=(2, 3, 3, 1), activation="tanh", head="binary", batch_norm=True)
GAMMA: Any = np.array([0.5, -1.5, 2.0])
BETA: Any = np.array([0.3, 1.0, -0.7])

_backward, _autodiff = jax.jit(mlpjax.backward), jax.jit(mlpjax.autodiff)


def norm_bn_objective() -> tuple[Claim, ...]:
    """Every hidden layer is handed pre-activations of mean β and standard deviation γσ/√(σ² + ε)."""
    claims = []
    for l, (z, z_tilde) in enumerate(_handed(1.0), start=1):
        spread = np.abs(GAMMA) * np.sqrt(z.var(axis=0) / (z.var(axis=0) + BATCH_NORM_EPS))
        claims.append(agree(f"layer {l}: mean β", z_tilde.mean(axis=0), BETA))
        claims.append(agree(f"layer {l}: standard deviation", z_tilde.std(axis=0), spread))
    far, near = ([z_tilde for _, z_tilde in _handed(scale)] for scale in (100.0, 10.0))
    return (*claims, agree("inputs 10 times as large change nothing", far, near, tol=1e-4))


@printed("err-bn-layer", lambda z_before, z: z_before)
def norm_bn_activation(form: Callable[..., Any] = lambda z_before, z: z) -> Claim:
    """In layer l the affine map comes first, then batch-norm of this layer's z, then g."""
    config, params, state, x, _ = _network()
    a, z_before = x, np.zeros((5, 3))
    for layer in params[:-1]:
        z = a @ np.asarray(layer.W)
        a, z_before = np.tanh(_normalised(form(z_before, z))), z
    scores, _ = mlpjax.forward(config, params, state, x, train=True)
    return agree("scores of a network with two hidden layers", scores, a @ params[-1].W + params[-1].b[None, :])


def norm_bn_params() -> tuple[Claim, ...]:
    """A layer under batch-norm has 2 n_l more parameters, γ = 1 and β = 0 at the start, and no b."""
    params, state = mlpjax.init(CONFIG, jax.random.key(0))
    plain, _ = mlpjax.init(mlpjax.Config(sizes=CONFIG.sizes, head="binary"), jax.random.key(0))
    count = [sum(leaf.size for leaf in jax.tree.leaves(layers)) for layers in (params, plain)]
    hidden = sum(CONFIG.sizes[1:-1])
    return (
        equal("γ and β for b", count[0], count[1] + 2 * hidden - hidden),
        equal("γ = 1", _stacked(params, "gamma"), np.ones((2, 3))),
        equal("β = 0", _stacked(params, "beta"), np.zeros((2, 3))),
        holds("the output layer has neither", params[-1].gamma is None and params[-1].beta is None, params[-1].gamma),
        equal("one record of running statistics per hidden layer", len(state), 2),
    )


def norm_bn_update() -> tuple[Claim, ...]:
    """One step of gradient descent on γ and β is θ − α dθ, and the cost falls."""
    config, params, state, x, y = _network()
    batch = mlpjax.Batch(x, y)
    (J, _), grads = _backward(config, params, state, batch)
    _, by_autodiff = _autodiff(config, params, state, batch)
    rule = make_optimizer("sgd", 0.1)
    after, _ = mlpjax.apply_update(rule, grads, rule.init(params), params)
    claims = [
        agree(name, _stacked(after, name), _stacked(params, name) - 0.1 * _stacked(by_autodiff, name))
        for name in ("gamma", "beta")
    ]
    (J_after, _), _ = _backward(config, after, state, batch)
    return (*claims, holds("the cost falls", J_after < J, f"{J:.4f} to {J_after:.4f}"))


def norm_bn_inference() -> tuple[Claim, ...]:
    """With running statistics batch-norm is affine, example by example, and folds into the weights."""
    z: Any = np.random.default_rng(0).normal(size=(5, 3))
    state = BatchNormState(jnp.zeros(3), jnp.ones(3), jnp.array(0))
    means, t = [z[:2].mean(axis=0), z[2:].mean(axis=0), z.mean(axis=0)], np.arange(3)
    for mean in means:
        state = batch_norm_update(state, jnp.asarray(mean), jnp.asarray(mean**2))
    share = BATCH_NORM_MOMENTUM ** t[::-1] / np.sum(BATCH_NORM_MOMENTUM**t)
    scale = GAMMA / np.sqrt(np.asarray(state.var) + BATCH_NORM_EPS)
    out = batch_norm_inference(z, GAMMA, BETA, state)[0]
    config, params, network_state, x, _ = _network()
    folded, layers = mlpjax.fold(config, params, network_state)
    return (
        agree("μ̄ weighs batch t by 0.9^(T − t)", state.mean, share @ np.stack(means)),
        agree("σ̄², likewise", state.var, share @ np.stack(means) ** 2),
        agree("z s + (β − μ̄ s), s = γ/√(σ̄² + ε)", out, z * scale + (BETA - np.asarray(state.mean) * scale)),
        agree("an example alone", batch_norm_inference(z[:1], GAMMA, BETA, state)[0], np.asarray(out)[:1]),
        agree(
            "folded weights", mlpjax.predict(folded, layers, (), x), mlpjax.predict(config, params, network_state, x)
        ),
    )


def norm_bn_faster() -> Claim:
    """A tanh network learns the circle faster with batch-norm, in each of three draws of its weights."""
    plain, norm = (_training(batch_norm)[0][:, -1] for batch_norm in (False, True))
    return holds("J after 40 steps with α = 1 is less than half", np.all(norm < plain / 2), f"{norm} against {plain}")


def norm_bn_covariate_shift() -> tuple[Claim, ...]:
    """What layer 2's activation is handed drifts less during that training with batch-norm (elsewhere it may not)."""
    claims = []
    for name, k in (("mean", 1), ("standard deviation", 2)):
        plain, norm = (np.ptp(_training(batch_norm)[k], axis=1).mean(axis=1) for batch_norm in (False, True))
        claims.append(holds(f"range of the {name} over 40 steps", np.all(norm < plain), f"{norm} against {plain}"))
    return tuple(claims)


def _stacked(params: Any, name: str) -> np.ndarray:
    """One vector of every hidden layer."""
    return np.stack([getattr(layer, name) for layer in params[:-1]])


def _network() -> tuple[mlpjax.Config, Any, Any, Any, Any]:
    """A network of two hidden layers under batch-norm with no γ = 1, no β = 0 and running statistics; x and y."""
    rng = np.random.default_rng(1)
    params, state = mlpjax.init(CONFIG, jax.random.key(1))
    params = tuple(layer if layer.gamma is None else layer._replace(gamma=GAMMA, beta=BETA) for layer in params)
    state = tuple(one._replace(mean=one.mean + 0.2, var=one.var + 0.7) for one in state)
    return CONFIG, params, state, rng.normal(size=(5, 2)), np.array([0, 1, 1, 0, 1])


def _normalised(z: np.ndarray) -> np.ndarray:
    """The formula, with the network's γ and β."""
    return GAMMA * (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + BATCH_NORM_EPS) + BETA


def _handed(scale: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every hidden layer, on inputs of that scale, z and what its activation is handed."""
    config, params, state, x, y = _network()
    this = passes.run_pass(config, params, state, mlpjax.Batch(scale * x, y), True, None)
    return [(np.asarray(hidden.affine.x @ hidden.affine.W), np.asarray(hidden.z)) for hidden in this.cache.hidden]


@functools.cache
def _training(batch_norm: bool, steps: int = 40, alpha: float = 1.0, draws: int = 3) -> tuple[np.ndarray, ...]:
    """J, and mean and standard deviation of what layer 2's activation is handed, by draw and step."""
    config = mlpjax.Config(sizes=(2, 6, 6, 1), activation="tanh", head="binary", batch_norm=batch_norm)
    x, y = circle(64)
    batch = mlpjax.Batch(jnp.asarray(x / x.std(axis=0), jnp.float64), y)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        this = passes.run_pass(config, params, state, batch, True, None)
        J, aux = passes.objective(config, params, this)
        grads = passes.run_backward(config, params, this, passes.RULES).params
        params = jax.tree.map(lambda w, dw: w - alpha * dw, params, grads)
        return params, aux.state, (J, this.cache.hidden[1].z)

    found = []
    for seed in range(draws):
        params, state = mlpjax.init(config, jax.random.key(seed))
        for _ in range(steps):
            params, state, (J, z) = step(params, state)
            found.append((float(J), np.mean(z, axis=0), np.std(z, axis=0)))
    return tuple(np.reshape(column, (draws, steps, *np.shape(column[0]))) for column in zip(*found, strict=True))
