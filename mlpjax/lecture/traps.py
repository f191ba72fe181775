"""The traps of automatic differentiation and floating point, shown: what the obvious form says, and what ours does.

A claim that begins with "trap" shows the obvious form to be wrong; where it fails the trap is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import binary_step, relu, sigmoid, tanh
from mlpjax.cases import make_case
from mlpjax.claims import Claim, agree, equal, holds
from mlpjax.config import Config
from mlpjax.exponential import elu
from mlpjax.heads import HEADS, sigmoid_cross_entropy, softmax, softmax_cross_entropy, squared_error
from mlpjax.layers import batch_norm_forward
from mlpjax.mlp import autodiff, backward
from mlpjax.penalties import l1_penalty, l2_penalty
from mlpjax.perceptron import Perceptron, perceptron_loss


def trap_maxabs() -> tuple[Claim, ...]:
    """Cross-entropy written with max and |z| has the wrong slope at z = 0, where zero initialisation starts."""

    def by_abs(clip: Callable[..., Any]) -> Callable[..., Any]:
        return lambda z: clip(z) - z + jnp.log1p(jnp.exp(-jnp.abs(z)))  # y = 1

    return (
        equal("trap: −1 with jnp.maximum", jax.grad(by_abs(lambda z: jnp.maximum(z, 0)))(0.0), -1.0),
        equal("trap: −1.5 with jax.nn.relu", jax.grad(by_abs(jax.nn.relu))(0.0), -1.5),
        equal("ours: σ(0) − 1 = −½", jax.grad(_cross_entropy)(0.0), -0.5),
    )


def trap_relu_tie() -> tuple[Claim, ...]:
    """At a tie autodiff takes what the form happens to give: ½, 0 or 1 for the same function max(0, z)."""
    return (
        equal("trap: ½ with jnp.maximum", jax.grad(lambda z: jnp.maximum(0, z))(0.0), 0.5),
        equal("trap: 1 with where(z ≥ 0)", jax.grad(lambda z: jnp.where(z >= 0, z, 0))(0.0), 1.0),
        equal("jax.nn.relu: 0", jax.grad(jax.nn.relu)(0.0), 0.0),
        equal("ours: 0", jax.grad(relu)(0.0), 0.0),
    )


def trap_abs0() -> tuple[Claim, ...]:
    """|w| has slope 1 at 0 by autodiff, so that the lasso pushes a weight that is 0 away from it."""
    w = jnp.array([2.0, 0.0, -3.0])
    return (
        equal("trap: 1 with jnp.abs", jax.grad(jnp.abs)(0.0), 1.0),
        equal("trap: also in the 1-norm", jax.grad(lambda w: jnp.linalg.norm(w, 1))(w)[1], 1.0),
        equal("ours: sign(w), 0 at 0", jax.grad(l1_penalty)(w, 1.0), [1.0, 0.0, -1.0]),
    )


def trap_norm0() -> tuple[Claim, ...]:
    """A norm has no derivative at w = 0: autodiff says NaN; its square has."""
    return (
        holds("trap: NaN with jnp.linalg.norm", jnp.isnan(jax.grad(jnp.linalg.norm)(jnp.zeros(3))).all(), "NaN"),
        equal("trap: ∞ with jnp.sqrt", jax.grad(jnp.sqrt)(0.0), np.inf),
        equal("ours, squared: 0", jax.grad(l2_penalty)(jnp.zeros(3), 1.0), np.zeros(3)),
    )


def trap_std_const() -> tuple[Claim, ...]:
    """The deviation of a constant batch is 0, and √ has no derivative there: NaN, unless ε is under the root."""
    z, p, one = jnp.full((4, 1), 2.0), jnp.full(4, 0.25), jnp.ones(1)
    ours = jax.grad(lambda z: batch_norm_forward(z, one, one, p)[0][0, 0])(z)
    return (
        holds("trap: NaN with z.std()", jnp.isnan(jax.grad(jnp.std)(z)).all(), "NaN"),
        agree("ours: (1 − ¼)/√ε and −¼/√ε", ours[:, 0], np.array([0.75, -0.25, -0.25, -0.25]) / np.sqrt(1e-5)),
    )


def trap_where_exp() -> tuple[Claim, ...]:
    """`where` differentiates the branch not taken: e^z overflows there, and 0 · ∞ is NaN."""
    z = jnp.array(1000.0)
    return (
        equal("trap: the value is right", _naive_elu(z), 1000.0),
        holds("trap: its slope is NaN", jnp.isnan(jax.grad(_naive_elu)(z)), "NaN"),
        equal("ours: 1", jax.grad(elu)(z), 1.0),
        equal("ours, in float32: 1", jax.grad(elu)(z.astype(jnp.float32)), 1.0),
    )


def trap_naive_sigmoid() -> tuple[Claim, ...]:
    """1/(1 + e^−z) has the right limit for very negative z, and a slope of NaN."""
    z = jnp.array(-800.0)

    def naive(z: Any) -> Any:
        return 1 / (1 + jnp.exp(-z))

    return (
        equal("trap: the value is right", naive(z), 0.0),
        holds("trap: its slope is NaN", jnp.isnan(jax.grad(naive)(z)), "NaN"),
        equal("ours: value and slope 0", [sigmoid(z), jax.grad(sigmoid)(z)], [0.0, 0.0]),
    )


def trap_naive_tanh() -> tuple[Claim, ...]:
    """(e^z − e^−z)/(e^z + e^−z) is ∞/∞ for large z."""
    z = jnp.array(800.0)
    naive = (jnp.exp(z) - jnp.exp(-z)) / (jnp.exp(z) + jnp.exp(-z))
    return (
        holds("trap: NaN", jnp.isnan(naive), "NaN"),
        equal("ours: value 1, slope 0", [tanh(z), jax.grad(tanh)(z)], [1.0, 0.0]),
    )


def trap_prob_bce() -> tuple[Claim, ...]:
    """Cross-entropy of probabilities breaks where σ(z) rounds to 1: from z = 37 on, in float32 from 17 on."""

    def naive(z: Any) -> Any:  # y = 0
        a = sigmoid(z)
        return -(0.0 * jnp.log(a) + (1 - 0.0) * jnp.log(1 - a))

    z, short = jnp.array(37.0), jnp.array(17.0, jnp.float32)
    ours = sigmoid_cross_entropy(z.reshape(1, 1), jnp.zeros((1, 1)))[0]
    return (
        equal("trap: ∞ at 37", naive(z), np.inf),
        holds("trap: no finite slope", not jnp.isfinite(jax.grad(naive)(z)), float(jax.grad(naive)(z))),
        equal("trap: ∞ at 17 in float32", naive(short), np.inf),
        agree("ours: log(1 + e³⁷), slope σ(37)", [ours, jax.grad(_cross_entropy)(z, 0.0)], [np.log1p(np.exp(37)), 1.0]),
    )


def trap_xlogy() -> tuple[Claim, ...]:
    """xlogy(0, 0) is 0 as it should be, and its slope is NaN all the same: y log a needs scores, not a."""
    xlogy = jax.scipy.special.xlogy
    slope = jax.grad(lambda a: xlogy(0.0, a))(0.0)
    through = jax.grad(lambda z: xlogy(0.0, sigmoid(z)))(-800.0)
    return (
        equal("trap: the value is 0", xlogy(0.0, 0.0), 0.0),
        holds("trap: the slope is NaN", jnp.isnan(slope), float(slope)),
        holds("trap: also through a sigmoid", jnp.isnan(through), float(through)),
        equal("ours: slope σ(−800) − 0 = 0", jax.grad(_cross_entropy)(-800.0, 0.0), 0.0),
    )


def trap_softmax_max() -> tuple[Claim, ...]:
    """Taking off the row maximum needs no stop_gradient: the two terms cancel, at a tie too."""
    z = jnp.zeros((1, 3))
    y = jnp.eye(3)[:1]

    def plain(z: Any) -> Any:
        shifted = z - jnp.max(z, axis=1, keepdims=True)
        return jnp.sum(y * (shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=1, keepdims=True))))

    ours = jax.grad(lambda z: -softmax_cross_entropy(z, y)[0])(z)
    by_softmax = jax.grad(lambda z: jnp.sum(y * jnp.log(softmax(z))))(z)
    expected = [[2 / 3, -1 / 3, -1 / 3]]
    return (
        agree("no trap: log ŷ₀ with the maximum differentiated", jax.grad(plain)(z), expected),
        agree("ours, where it is constant", ours, expected),
        agree("ours, through softmax", by_softmax, expected),
    )


def trap_m_factor() -> tuple[Claim, ...]:
    """The slides' dZ is per example: it is m times what autodiff says of the mean; their dW is not."""
    case = make_case(Config(sizes=(3, 1), head="binary"))
    y = jnp.asarray(case.batch.y, float)[:, None]
    ((_, aux), (grads,)), (_, (by_grad,)) = jax.jit(lambda: [case.call(f) for f in (backward, autodiff)])()
    auto = jax.jit(jax.grad(lambda z: jnp.mean(sigmoid_cross_entropy(z, y))))(aux.z)
    dz = HEADS["binary"].dz(aux.z, y)
    return (
        agree("trap: ∂J/∂Z is dZ/m", dz / auto, np.full((9, 1), 9.0)),
        agree("dW = (1/m) Xᵀ dZ", grads.W, case.batch.x.T @ np.asarray(dz) / 9),
        agree("is ∂J/∂W by jax.grad", grads.W, by_grad.W),
    )


def trap_sum_outputs() -> tuple[Claim, ...]:
    """A loss that averages over the outputs too has a gradient n_L times too small."""
    z, y = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)))
    averaged = jax.grad(lambda z: jnp.mean((z - y) ** 2) / 2)(z)
    summed = jax.grad(lambda z: jnp.mean(squared_error(z, y)))(z)
    return (
        agree("trap: the mean over everything is 3 times smaller", summed / averaged, np.full((5, 3), 3.0)),
        agree("ours: (ŷ − y)/m", summed, (z - y) / 5),
    )


def trap_step() -> tuple[Claim, ...]:
    """A comparison has the gradient 0 and raises nothing; the perceptron's loss relies on it."""
    z = jnp.array([-1.0, 0.0, 2.0])
    params, x = Perceptron(jnp.array([1.0, -2.0]), jnp.array(0.5)), jnp.array([3.0, 1.0])  # z = 1.5
    grads = jax.grad(perceptron_loss)(params, x, 0.0)
    return (
        equal("trap: jnp.heaviside", jax.grad(lambda z: jnp.sum(jnp.heaviside(z, 1.0)))(z), np.zeros(3)),
        equal("ours, binary_step", jax.grad(lambda z: jnp.sum(binary_step(z)))(z), np.zeros(3)),
        equal("so perceptron_loss has the slope x̃, without stop_gradient", [*grads.w, grads.b], [3.0, 1.0, 1.0]),
    )


def trap_decide_on_prob() -> tuple[Claim, ...]:
    """σ(−1e-17) rounds to ½: decided on ŷ it is class 1, decided on the score it is class 0."""
    z = jnp.array([[-1e-17], [1e-17]])
    head = HEADS["binary"]
    return (
        equal("trap: both scores have ŷ = ½", head.link(z)[:, 0], [0.5, 0.5]),
        equal("trap: decided on ŷ both are 1", head.decide(head.link(z)), [1, 1]),
        equal("ours: the metric decides on the score", head.metric(z, jnp.array([[0.0], [1.0]])), [1.0, 1.0]),
    )


def _cross_entropy(z: Any, y: float = 1.0) -> jax.Array:
    """Ours, of one score."""
    return sigmoid_cross_entropy(jnp.reshape(z, (1, 1)), jnp.full((1, 1), y))[0]


def _naive_elu(z: Any) -> Any:
    return jnp.where(z > 0, z, jnp.exp(z) - 1)
