"""The checks of section *Logistic regression*: the model, its decision, the losses and the cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import special

import mlpjax
from mlpjax import logistic
from mlpjax.activations import binary_step, sigmoid
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.heads import sigmoid_cross_entropy, softmax_cross_entropy, squared_error
from mlpjax.logistic_unit import bce, decide, glm_step, predict, score
from mlpjax.perceptron import Perceptron, perceptron_predict, perceptron_step
from mlpjax.targets import target_matrix


def formula(w: jax.Array, b: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """J from the scores, as one line of jax.numpy: what the oracle differentiates."""
    z = x @ w + b
    return jnp.mean(jnp.logaddexp(0, z) - y * z)


slope = jax.jit(jax.grad(formula, argnums=(0, 1)))
"""∂J/∂w and ∂J/∂b by autodiff."""

gradient = jax.jit(logistic.gradient)


def logreg_data(m: int = 40) -> tuple[jax.Array, jax.Array]:
    """Draw x (m, 2) and labels y (m,) that no line separates, from a logistic model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(m, 2))
    y = rng.uniform(size=m) < special.expit(x @ [1.5, -1.0] + 0.5)
    return jnp.asarray(x), jnp.asarray(y, x.dtype)


def logreg_case() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Some parameters, w (2,) and b (), and the data x, y."""
    return jnp.array([0.8, -1.3]), jnp.array(0.4), *logreg_data()


def network_of(w: jax.Array, b: jax.Array) -> tuple[mlpjax.Config, tuple[mlpjax.Layer, ...]]:
    """The network without a hidden layer that has these parameters."""
    return mlpjax.Config(sizes=(len(w), 1), head="binary"), (mlpjax.Layer(W=w[:, None], b=b[None]),)


def losses(yhat: Any, y: Any) -> np.ndarray:
    """The loss as the formula says, in NumPy."""
    yhat, y = np.asarray(yhat), np.asarray(y)
    return np.asarray(-(y * np.log(yhat) + (1 - y) * np.log(1 - yhat)))


@printed("err-missing-b", lambda w, b, x: sigmoid(x @ w))
def logreg_model(form: Callable[..., jax.Array] = predict) -> tuple[Claim, ...]:
    """σ(x·w + b) is the probability that the network without a hidden layer gives."""
    w, b, x, _ = logreg_case()
    config, params = network_of(w, b)
    yhat = form(w, b, x)
    return (
        agree("ŷ against 1/(1 + e^−(x·w + b)) in NumPy", yhat, 1 / (1 + np.exp(-(np.asarray(x) @ w + b)))),
        agree("ŷ against the network without a hidden layer", yhat, mlpjax.predict(config, params, (), x)[:, 0]),
    )


def logreg_sigmoid() -> tuple[Claim, ...]:
    """σ is right from −700 to 700, and so is its derivative by autodiff, where the textbook form gives NaN."""
    z = jnp.linspace(-700, 700, 29)
    textbook = jax.grad(lambda z: 1 / (1 + jnp.exp(-z)))(-800.0)
    return (
        agree("σ against SciPy's expit", sigmoid(z), special.expit(z)),
        agree("log σ far to the left, where σ(z) ≈ e^z", jnp.log(sigmoid(z[:14])), z[:14], 1e-9),
        equal("autodiff of σ at −800", jax.grad(sigmoid)(-800.0), 0.0),
        holds("autodiff of the textbook form is NaN there", jnp.isnan(textbook), float(textbook)),
    )


@printed("err-sigma-limit", lambda z: jnp.where(z < -10, 0, sigmoid(z)))
def logreg_sigmoid_limits(form: Callable[[jax.Array], jax.Array] = sigmoid) -> tuple[Claim, ...]:
    """σ tends to 0 and to 1 and is neither; in floating point it is 1 from 36.74 on, in float32 from 16.64 on."""
    left = jnp.array([-20.0, -100.0, -700.0])
    right = [float(form(jnp.array(z))) for z in (36.7, 36.8)]
    right32 = [float(form(jnp.array(z, jnp.float32))) for z in (16.6, 16.7)]
    return (
        agree("σ(z) e^−z, for z = −20, −100, −700", form(left) * jnp.exp(-left), np.ones(3), 1e-8),
        holds("float64: below 1 at 36.7, 1 at 36.8", right[0] < 1 == right[1], right),
        holds("float32: below 1 at 16.6, 1 at 16.7", right32[0] < 1 == right32[1], right32),
    )


def logreg_decision() -> tuple[Claim, ...]:
    """Class 1 where ŷ ≥ ½; decided on the score, as ŷ rounds to ½ for a score just below 0."""
    w, b, x, _ = logreg_case()
    near = jnp.array([[-1e-17], [0.0], [1e-17]])
    one = jnp.ones(1)
    return (
        equal("class 1 where ŷ ≥ ½", decide(w, b, x), special.expit(np.asarray(x) @ w + b) >= 0.5),
        equal("on and beside the boundary", decide(one, 0.0, near), [0, 1, 1]),
        equal("where ŷ rounds to ½", predict(one, 0.0, near), [0.5, 0.5, 0.5]),
    )


def logreg_decision_eq_threshold() -> tuple[Claim, ...]:
    """Deciding at ½ and the perceptron's threshold give the same classes."""
    w, b, x, _ = logreg_case()
    classes = decide(w, b, x)
    return (
        equal("the perceptron with the same w and b", classes, perceptron_predict(Perceptron(w, b), x)),
        equal("T(z) in place of 1[σ(z) ≥ ½]", binary_step(score(w, b, x)), np.asarray(predict(w, b, x)) >= 0.5),
        holds("both classes occur", len(np.unique(classes)) == 2, np.unique(classes)),
    )


@printed("err-bce-bracket", lambda yhat, y: -(y * jnp.log(yhat)) + (1 - y) * jnp.log(1 - yhat))
@printed("err-arg-order", lambda yhat, y: bce(y, yhat))
def logreg_bce(form: Callable[..., jax.Array] = bce) -> tuple[Claim, ...]:
    """The minus is before both terms, so the loss is ≥ 0; the prediction comes first."""
    grid = np.meshgrid([0.1, 0.3, 0.8], [0.0, 0.25, 1.0])
    yhat, y = (jnp.asarray(values.ravel()) for values in grid)
    loss = form(yhat, y)
    return (
        agree("L(0.3, 0) = −log 0.7", loss[1], -math.log(0.7)),
        agree("hard and soft labels against NumPy", loss, losses(yhat, y)),
        holds("the loss is never negative", jnp.all(loss >= 0), f"smallest {float(loss.min()):.4f}"),
    )


def logreg_bce_logits() -> tuple[Claim, ...]:
    """From the score the loss is log(1 + e^z) − y z: finite where log ŷ is −∞."""
    z = np.append(np.linspace(-10, 10, 21), [-800.0, 800.0])
    y = np.append(np.resize([0.0, 1.0, 0.3], 21), [1.0, 0.0])
    loss = np.asarray(sigmoid_cross_entropy(jnp.asarray(z[:, None]), jnp.asarray(y[:, None])))
    by_probability = np.asarray(bce(sigmoid(jnp.asarray(z)), jnp.asarray(y)))
    return (
        agree("against NumPy's logaddexp", loss, np.logaddexp(0, z) - y * z),
        agree("against the loss from probabilities", loss[:21], by_probability[:21], 1e-11),
        equal("wrong with a score of ±800", loss[21:], [800.0, 800.0]),
        holds("from the probability one is infinite", np.isinf(by_probability[-1]), float(by_probability[-1])),
    )


def logreg_grad_w() -> tuple[Claim, ...]:
    """∂L/∂w_d = −(y − ŷ) x_d, and over the batch the mean, (1/m) Xᵀ(ŷ − y)."""
    w, b, x, y = logreg_case()
    dw, db = gradient(w, b, x, y)
    auto = slope(w, b, x, y)
    yhat = special.expit(np.asarray(x) @ w + b)
    by_example = np.mean([-(y[i] - yhat[i]) * np.asarray(x[i]) for i in range(len(x))], axis=0)
    return (
        agree("dw against jax.grad", dw, auto[0]),
        agree("db against jax.grad", db, auto[1]),
        agree("dw against the mean of −(y − ŷ) x", dw, by_example),
    )


def logreg_update_rule() -> tuple[Claim, ...]:
    """A gradient step on one example's loss is w + α (y − ŷ) x, and b + α (y − ŷ)."""
    w, b, x, y = logreg_case()
    dw, db = slope(w, b, x[:1], y[:1])
    new = glm_step(w, b, x[0], y[0], 0.3)
    return (
        agree("w against w − α ∂L/∂w by jax.grad", new[0], w - 0.3 * dw),
        agree("b against b − α ∂L/∂b by jax.grad", new[1], b - 0.3 * db),
    )


def logreg_same_rule() -> tuple[Claim, ...]:
    """One rule: with the threshold it is the perceptron's, with σ the gradient step of logistic regression."""
    w, b, x, y = logreg_case()
    wrong = int(np.argmax(decide(w, b, x) != y))
    rule = perceptron_step(Perceptron(w, b), x[wrong], y[wrong], 0.3)
    dw, db = gradient(w, b, x[wrong : wrong + 1], y[wrong : wrong + 1])
    with_step, with_sigma = (glm_step(w, b, x[wrong], y[wrong], 0.3, f) for f in (binary_step, sigmoid))
    return (
        agree("with T(z): the perceptron's step", np.append(*with_step), np.append(*rule)),
        agree("with σ(z): the gradient step", np.append(*with_sigma), np.append(w - 0.3 * dw, b - 0.3 * db)),
        holds("the two differ, as ŷ does", not np.allclose(with_step[0], with_sigma[0]), "other parameters"),
    )


def logreg_single_output() -> tuple[Claim, ...]:
    """A binary problem has one output unit, with σ and binary cross-entropy."""
    w, b, x, y = logreg_case()
    config, params = network_of(w, b)
    yhat = mlpjax.predict(config, params, (), x)
    J, _ = mlpjax.loss(config, params, (), mlpjax.Batch(x, y))
    return (
        holds("one output per example", yhat.shape == (len(x), 1), yhat.shape),
        agree("its activation is σ", yhat[:, 0], special.expit(np.asarray(x) @ w + b)),
        agree("its loss is binary cross-entropy", J, losses(yhat[:, 0], y).mean()),
    )


@printed("err-mse-conventions", lambda z, y: jnp.sum((z - y) ** 2, axis=1))
def logreg_loss_mse(form: Callable[..., jax.Array] = squared_error) -> tuple[Claim, ...]:
    """½ (ŷ − y)²: the ½ makes the derivative ŷ − y."""
    z, y = jnp.array([[2.0], [0.5], [-1.0]]), jnp.array([[0.0], [1.0], [3.0]])
    return (
        agree("worked by hand", form(z, y), [2.0, 0.125, 8.0]),
        agree("optax's l2_loss", form(z, y), optax.l2_loss(z, y)[:, 0]),
        agree("its derivative", jax.jit(jax.grad(lambda z: form(z, y).sum()))(z), z - y),
    )


def _class_losses(z: jax.Array, labels: jax.Array) -> jax.Array:
    return softmax_cross_entropy(z, target_matrix("multiclass", labels, z.shape[1], z.dtype))


@printed("err-ce-labels", lambda z, labels: _class_losses(z, labels + 1))
def logreg_loss_ce(form: Callable[..., jax.Array] = _class_losses) -> tuple[Claim, ...]:
    """−Σ_c y_c log ŷ_c with a one-hot y is −log of the true class's probability; classes count from 0."""
    z, labels = jnp.array([[0.0, 1.0, -2.0], [3.0, 0.5, 0.0]]), jnp.array([2, 0])
    yhat = special.softmax(z, axis=1)
    return (
        agree("minus the log of the true class", form(z, labels), -np.log([yhat[0, 2], yhat[1, 0]])),
        agree("the sum with one-hot rows", softmax_cross_entropy(z, jnp.eye(3)[labels]), form(z, labels)),
    )


def _network_cost(w: jax.Array, b: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    config, params = network_of(w, b)
    return mlpjax.loss(config, params, (), mlpjax.Batch(x, y))[0]


@printed("err-cost-sum-mean", lambda w, b, x, y: len(x) * _network_cost(w, b, x, y))
def logreg_cost(form: Callable[..., jax.Array] = _network_cost) -> tuple[Claim, ...]:
    """The cost is the mean of the losses, so that the same data twice cost the same."""
    w, b, x, y = logreg_case()
    twice = form(w, b, np.concatenate([x, x]), np.concatenate([y, y]))
    return (
        agree("the mean of the losses", form(w, b, x, y), np.mean(losses(predict(w, b, x), y))),
        agree("the data twice", twice, form(w, b, x, y)),
    )


def _bracket_cost(w: jax.Array, b: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    a = predict(w, b, x)
    return jnp.mean(-(y * jnp.log(a)) + (1 - y) * jnp.log(1 - a))


@printed("err-bce-cost-1m", lambda w, b, x, y: jnp.sum(bce(predict(w, b, x), y)))
@printed("err-bce-bracket", _bracket_cost)
def logreg_cost_bce(form: Callable[..., jax.Array] = logistic.cost) -> tuple[Claim, ...]:
    """J = −(1/m) Σ [y log ŷ + (1 − y) log(1 − ŷ)], with 1/m and a minus for both terms."""
    w, b, x, y = logreg_case()
    J = form(w, b, x, y)
    certain = form(jnp.zeros(2), jnp.array(20.0), x, jnp.zeros(len(x)))
    return (
        agree("against NumPy", J, losses(predict(w, b, x), y).mean()),
        agree("against the form from the scores", J, formula(w, b, x, y)),
        agree("certain of class 1 where all are 0: a cost of 20", certain, 20.0, 1e-8),
    )
