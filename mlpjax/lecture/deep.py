"""Checks of *Deep networks*: the general layer, forward and backward, and the training of all of them.

Oracles are NumPy's: the formulas written out, and central differences. Where J is quadratic they are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import expit, softmax

import mlpjax
from mlpjax.cases import labels
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.layers import AffineCache, affine_backward, affine_forward
from mlpjax.lecture._deep import M, Net, differences, draw, traced
from mlpjax.passes import RULES, Cache, Pass, activation_backward, output_backward, run_backward
from mlpjax.softmax_forms import cross_entropy_dyhat, softmax_vjp


def deep_diagram_2layer() -> tuple[Claim, ...]:
    """The glass box of a network with one hidden layer shows every arrow of the diagram, with its value."""
    W1, b1, W2, b2, x, y = draw(3, 5), draw(5), draw(5, 2), draw(2), draw(M, 3), draw(M, 2)
    config = mlpjax.Config(sizes=(3, 5, 2), activation="tanh", head="regression")
    seen = mlpjax.trace(config, (mlpjax.Layer(W1, b1), mlpjax.Layer(W2, b2)), (), mlpjax.Batch(x, y))
    layer, output = seen.hidden[0], seen.output
    z1 = x @ W1 + b1
    z2 = np.tanh(z1) @ W2 + b2
    return (
        equal("x enters layer 1", layer.a_in.value, x),
        agree("z[1] and a[1]", [layer.z.value, layer.a.value], [z1, np.tanh(z1)]),
        equal("a[1] enters layer 2", output.a_in.value, layer.a.value),
        agree("z[2] and ŷ", [output.z.value, output.yhat.value], [z2, z2]),
        agree("L(ŷ, y)", seen.loss.L.value, np.sum((z2 - y) ** 2, axis=1) / 2),
    )


def deep_model() -> tuple[Claim, ...]:
    """One layer is logistic regression, two have one hidden layer, three have an activation each: in NumPy."""
    net = Net()
    w, b = draw(3, 1), draw(1)
    one = mlpjax.Config(sizes=(3, 1), head="binary")
    two = mlpjax.Config(sizes=(3, 5, 2), activation="tanh", head="multiclass")
    hidden, last = net.params[0], mlpjax.Layer(draw(5, 2), draw(2))
    return (
        agree("L = 1", mlpjax.predict(one, (mlpjax.Layer(w, b),), (), net.x), expit(net.x @ w + b)),
        agree(
            "L = 2", mlpjax.predict(two, (hidden, last), (), net.x), softmax(np.tanh(net.z1) @ last.W + last.b, axis=1)
        ),
        agree("L = 3", mlpjax.predict(net.config, net.params, (), net.x), net.forward_from(net.z1)[-1]),
        equal("g of L = 1, 2, 3", [len(c.activations) for c in (one, two, net.config)], [0, 1, 2]),
    )


def deep_forward_Z() -> Claim:
    """Z = A W + b, summed index by index."""
    A, W, b = draw(M, 3), draw(3, 5), draw(5)
    z, _ = affine_forward(jnp.asarray(A), jnp.asarray(W), jnp.asarray(b))
    return agree("Z[l]", z, np.einsum("id,dj->ij", A, W) + b[None, :])


def deep_forward_A() -> tuple[Claim, ...]:
    """Each layer takes its own activation of its own Z."""
    net = Net()
    cache = net.run().cache
    a1, _, a2, _ = net.forward_from(net.z1)
    return agree("A[1], tanh", cache.hidden[1].affine.x, a1), agree("A[2], sigmoid", cache.output.x, a2)


def deep_cache() -> tuple[Claim, ...]:
    """The cache holds A[l−1], Z[l], W[l], and the backward pass needs no more: it works without the parameters."""
    net = Net()
    this = net.run()
    a1, z2, _, _ = net.forward_from(net.z1)
    second = this.cache.hidden[1]
    lost = jax.tree.map(lambda p: jnp.full(p.shape, jnp.nan), net.params)
    with_them, without = (run_backward(net.config, params, this, RULES) for params in (net.params, lost))
    return (
        agree("A[1]", second.affine.x, a1),
        agree("Z[2]", second.z, z2),
        equal("W[2]", second.affine.W, net.W[1]),
        equal("dX without the parameters", without.x, with_them.x),
        equal("dW[1] without the parameters", without.params[0].W, with_them.params[0].W),
    )


def _tanh_backward(da: Any, z: Any) -> jax.Array:
    return activation_backward("tanh", jnp.asarray(da), jnp.asarray(z), mlpjax.Layer(jnp.zeros((1, 1))))[0]


@printed("err-hadamard-missing", lambda da, z: da @ (1 / np.cosh(z) ** 2))
def deep_back_dZ(form: Any = _tanh_backward) -> Claim:
    """dA ⊙ g′(Z) against central differences of Σ dA ⊙ g(Z); as a matrix product it is wrong even where it fits."""
    da, z = draw(4, 4), draw(4, 4, seed=1)
    return agree("dZ for tanh", form(da, z), differences(lambda z: np.sum(da * np.tanh(z)), z), tol=1e-8)


@printed("err-hadamard-missing", lambda dz, W, slope: dz @ (W.T * slope))
def deep_back_dZ_recursion(form: Any = lambda dz, W, slope: (dz @ W.T) * slope) -> tuple[Claim, ...]:
    """dZ[1] from dZ[2] is what the backward pass finds, and both are ∂J/∂Z[1] by central differences."""
    net, seen = traced()
    found = seen.hidden[0].dz.value
    again = form(np.asarray(seen.hidden[1].dz.value), net.W[1], 1 / np.cosh(net.z1) ** 2)
    return (
        agree("dZ[1] from dZ[2]", again, found),
        agree("dZ[1]", found, differences(lambda z1: net.losses(z1).mean(), net.z1), tol=1e-7),
    )


def _affine() -> tuple[Callable[..., float], tuple[np.ndarray, ...], tuple[jax.Array, ...]]:
    """J(A, W, b) = (1/m) Σᵢ ½∥aᵢ W + b − yᵢ∥², where it is taken, and dA, dW, db of the package there."""
    y, A, W, b = draw(M, 5, seed=2), draw(M, 3), draw(3, 5), draw(5)
    dz = (A @ W + b - y) / M

    def J(A: np.ndarray, W: np.ndarray, b: np.ndarray) -> float:
        return float(np.sum((A @ W + b - y) ** 2) / (2 * M))

    return J, (A, W, b), affine_backward(jnp.asarray(dz), AffineCache(jnp.asarray(A), jnp.asarray(W)))


def deep_back_dW() -> Claim:
    """dW = Aᵀ dZ is ∂J/∂W, by central differences of a quadratic J."""
    J, (A, W, b), (_, dW, _) = _affine()
    return agree("dW", dW, differences(lambda W: J(A, W, b), W, 1e-3), tol=1e-10)


def deep_back_db() -> Claim:
    """db = Σᵢ dzᵢ is ∂J/∂b, by central differences of a quadratic J."""
    J, (A, W, b), (_, _, db) = _affine()
    return agree("db", db, differences(lambda b: J(A, W, b), b, 1e-3), tol=1e-10)


def deep_back_dAprev() -> Claim:
    """dA[l−1] = dZ Wᵀ is ∂J/∂A[l−1], by central differences of a quadratic J."""
    J, (A, W, b), (dA, _, _) = _affine()
    return agree("dA[l−1]", dA, differences(lambda A: J(A, W, b), A, 1e-3), tol=1e-10)


def deep_back_start() -> tuple[Claim, ...]:
    """The head's dZ[L] is the link's derivative times ∂L/∂Ŷ; that is Ŷ − Y for matched pairs, and not for ReLU."""
    z, off = jnp.asarray(draw(M, 4)), draw(M, 4, seed=1)
    on, one_hot = (off > 0).astype(float), np.eye(4)[np.argmax(off, axis=1)]
    s, yhat, r = expit(z), softmax(z, axis=1), np.maximum(z, 0)
    layer = mlpjax.Layer(jnp.zeros((1, 1)))
    by_link = {
        "multilabel": (on, activation_backward("sigmoid", jnp.asarray((s - on) / (s * (1 - s))), z, layer)[0], s - on),
        "multiclass": (
            one_hot,
            softmax_vjp(cross_entropy_dyhat(jnp.asarray(yhat), jnp.asarray(one_hot)), yhat),
            yhat - one_hot,
        ),
        "regression": (off, activation_backward("identity", z - off, z, layer)[0], z - off),
        "regression_relu": (on, activation_backward("relu", jnp.asarray(r - on), z, layer)[0], (r - on) * (z > 0)),
    }
    claims = []
    for head, (y, expected, simple) in by_link.items():
        config = mlpjax.Config(sizes=(4, 4), head=head)
        this = Pass(z, jnp.asarray(y), jnp.full(M, 1 / M), jnp.asarray(M), (), Cache(None, (), AffineCache(z, z)))
        got = M * np.asarray(output_backward(config, this))
        claims += [agree(f"{head}: through the link", got, expected), agree(f"{head}: in one step", got, simple)]
    return tuple(claims)


@printed("err-hadamard-softmax", lambda da, yhat: da * yhat * (1 - yhat))
def deep_back_softmax(form: Any = softmax_vjp) -> tuple[Claim, ...]:
    """ŷ ⊙ (dA − Σ dA ŷ) against the sum over the Jacobian and central differences; ⊙ ŷ(1 − ŷ) is only its diagonal."""
    da, z = draw(M, 4), draw(M, 4, seed=1)
    yhat = softmax(z, axis=1)
    got = form(jnp.asarray(da), jnp.asarray(yhat))
    jacobian = np.einsum("ic,co->ico", yhat, np.eye(4)) - np.einsum("ic,io->ico", yhat, yhat)
    return (
        agree("the sum over the Jacobian", got, np.einsum("ic,ico->io", da, jacobian)),
        agree("central differences", got, differences(lambda z: np.sum(da * softmax(z, axis=1)), z), tol=1e-8),
    )


def deep_backprop_full() -> tuple[Claim, ...]:
    """The whole backward pass is autodiff's, for 1, 2, 3 and 5 layers, with different activations and heads."""
    networks = (
        mlpjax.Config(sizes=(3, 1), head="binary"),
        mlpjax.Config(sizes=(3, 5, 2), activation="prelu", head="multiclass"),
        mlpjax.Config(sizes=(3, 5, 4, 2), activation=("elu", "tanh"), head="multilabel"),
        mlpjax.Config(sizes=(3, 5, 4, 6, 5, 2), activation=("relu", "sigmoid", "softplus", "silu"), head="regression"),
    )
    return tuple(_same_gradients(config) for config in networks)


def _same_gradients(config: mlpjax.Config) -> Claim:
    params = tuple(
        mlpjax.Layer(draw(n_in, n_out), draw(n_out), slope=draw(n_out) if name == "prelu" else None)
        for n_in, n_out, name in zip(config.sizes, config.sizes[1:], (*config.activations, None), strict=False)
    )
    batch = mlpjax.Batch(draw(M, 3), labels(config.head, M, config.sizes[-1], np.random.default_rng(0)))

    def both(params: Any) -> Any:
        return tuple(f(config, params, (), batch)[1] for f in (mlpjax.backward, mlpjax.autodiff))

    by_hand, expected = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g)]) for g in jax.jit(both)(params))
    return agree(f"L = {config.depth}, {config.head}: {len(by_hand)} derivatives", by_hand, expected)


def deep_scale_m() -> tuple[Claim, ...]:
    """m dZ is the derivative of Σᵢ Lᵢ, as in the lecture; dW is that of their mean."""
    net, seen = traced()
    dz, dW = (np.asarray(q.value) for q in (seen.hidden[0].dz, seen.hidden[0].dW))
    return (
        agree("m dZ[1]", M * dz, differences(lambda z1: net.losses(z1).sum(), net.z1), tol=1e-7),
        agree(
            "dW[1] of the mean", dW, differences(lambda W: net.losses(net.x @ W + net.b[0]).mean(), net.W[0]), tol=1e-7
        ),
        agree("(1/m) Xᵀ (m dZ[1])", net.x.T @ (M * dz) / M, dW),
    )


def deep_update() -> tuple[Claim, ...]:
    """Gradient descent takes α dW and α db from W and b of every layer, and J falls."""
    net = Net()
    grads = run_backward(net.config, net.params, net.run(), RULES).params
    optimizer = optax.sgd(0.1)
    after, _ = mlpjax.apply_update(optimizer, grads, optimizer.init(net.params), net.params)
    before, J = (float(mlpjax.loss(net.config, params, (), net.batch)[0]) for params in (net.params, after))
    # leaves come layer by layer, W before b
    old = [value for layer in zip(net.W, net.b, strict=True) for value in layer]
    names = [f"{name}[{l}]" for l in (1, 2, 3) for name in "Wb"]
    return (
        *(
            agree(name, new, value - 0.1 * np.asarray(dv))
            for name, new, value, dv in zip(names, jax.tree.leaves(after), old, jax.tree.leaves(grads), strict=True)
        ),
        holds("J after the step", before > J, f"{before:.4f} to {J:.4f}"),
    )


def deep_train() -> tuple[Claim, ...]:
    """`fit` goes the same way with our gradients and with autodiff's: 5 epochs of mini-batches; J falls."""
    net = Net()
    options: Any = {"epochs": 5, "batch_size": 4, "key": jax.random.key(0), "params": net.params, "state": ()}
    providers = (mlpjax.backward, mlpjax.autodiff)
    runs = [mlpjax.fit(net.config, optax.sgd(0.1), net.batch, grad_fn=grad_fn, **options) for grad_fn in providers]
    ends = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(run.params)]) for run in runs]
    losses = runs[0].history["train_loss"]
    return (
        agree("the parameters after 5 epochs", ends[0], ends[1]),
        agree("J of every epoch", losses, runs[1].history["train_loss"]),
        holds("J falls", losses[-1] < losses[0], f"{losses[0]:.4f} to {losses[-1]:.4f}"),
    )
