"""The checks of section *Logistic regression*: odds, Bernoulli likelihood, and why its loss is cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

from mlpjax import logistic
from mlpjax.activations import sigmoid
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.heads import sigmoid_cross_entropy
from mlpjax.lecture.logreg import logreg_case, logreg_data, losses
from mlpjax.likelihood import (
    bernoulli_likelihood,
    bernoulli_loglik,
    bernoulli_logpmf,
    bernoulli_pmf,
    logit,
    odds,
)
from mlpjax.logistic_unit import bce, predict, score


def logreg_odds_1() -> Claim:
    """1/P(1∣x) = 1 + e^−z."""
    w, b, x, _ = logreg_case()
    return agree("1/P(1∣x)", 1 / predict(w, b, x), 1 + np.exp(-(np.asarray(x) @ w + b)))


def logreg_odds_2() -> tuple[Claim, ...]:
    """(1 − P)/P = e^−z: the odds of class 1 are e^z."""
    w, b, x, _ = logreg_case()
    z, p = np.asarray(x) @ w + b, predict(w, b, x)
    return agree("(1 − P)/P", odds(1 - p), np.exp(-z)), agree("P/(1 − P)", odds(p), np.exp(z))


def logreg_odds_3() -> Claim:
    """log(P(0∣x)/P(1∣x)) = −z."""
    w, b, x, _ = logreg_case()
    return agree("log(P(0∣x)/P(1∣x))", logit(1 - predict(w, b, x)), -(np.asarray(x) @ w + b))


def logreg_logodds() -> tuple[Claim, ...]:
    """The log-odds are linear in x, as logit is the inverse of σ."""
    w, b, x, _ = logreg_case()
    p = jnp.asarray(np.linspace(0.01, 0.99, 40))
    return (
        agree("log(P(1∣x)/P(0∣x)) is x·w + b", logit(predict(w, b, x)), np.asarray(x) @ w + b),
        agree("logit against SciPy's", logit(p), special.logit(p)),
        agree("σ(logit(p)) is p", sigmoid(logit(p)), p),
    )


def logreg_bernoulli() -> tuple[Claim, ...]:
    """p^y (1 − p)^{1 − y} is p for y = 1 and 1 − p for y = 0: they sum to 1, and the mean is p."""
    p = jnp.array([0.0, 0.2, 0.7, 1.0])
    on, off = bernoulli_pmf(jnp.ones(4), p), bernoulli_pmf(jnp.zeros(4), p)
    return equal("P(Y = 1)", on, p), equal("P(Y = 0)", off, 1 - p), agree("their sum", on + off, np.ones(4))


def logreg_likelihood() -> Claim:
    """With ŷ for p, each label has the probability that the model gives to its class."""
    w, b, x, y = logreg_case()
    yhat = predict(w, b, x)
    return agree("ŷ^y (1 − ŷ)^{1 − y}", bernoulli_pmf(y, yhat), np.where(y == 1, yhat, 1 - np.asarray(yhat)))


def logreg_loglik() -> tuple[Claim, ...]:
    """The log-likelihood of a label is minus its loss."""
    w, b, x, y = logreg_case()
    logs = bernoulli_logpmf(y, predict(w, b, x))
    return (
        agree("log of the probability", logs, np.log(bernoulli_pmf(y, predict(w, b, x)))),
        agree("minus the loss, from scores", logs, -sigmoid_cross_entropy(score(w, b, x)[:, None], y[:, None])),
    )


def logreg_mle() -> tuple[Claim, ...]:
    """The parameters of largest likelihood, found by SciPy, are those of smallest loss, found by Newton."""
    x, y = logreg_data()
    unlikely = jax.jit(jax.value_and_grad(lambda theta: -bernoulli_loglik(y, predict(theta[1:], theta[0], x))))
    likeliest = optimize.minimize(unlikely, np.zeros(3), jac=True, method="BFGS", options={"gtol": 1e-9})
    fit = logistic.newton(x, y)
    return (
        agree("(b, w)", np.append(fit.b, fit.w), likeliest.x, 1e-7),
        agree("−log likelihood there is m J", len(x) * fit.costs[-1], likeliest.fun),
    )


def logreg_data_likelihood() -> tuple[Claim, ...]:
    """The likelihood of all labels is a product; ½ to the 1075 is already 0 in float64."""
    w, b, x, y = logreg_case()
    many, half = np.ones(1075), np.full(1075, 0.5)
    yhat = np.asarray(predict(w, b, x))
    likelihood = jax.jit(bernoulli_likelihood)
    return (
        agree("against e to the sum of logs", likelihood(y, yhat), np.exp(-losses(yhat, y).sum())),
        equal("1075 labels of probability ½: the product", likelihood(many, half), 0.0),
        agree("their log-likelihood", jax.jit(bernoulli_loglik)(many, half), -1075 * math.log(2)),
    )


@printed("err-bce2-garbled", lambda y, yhat: -jnp.sum(bce(y, y)))
def logreg_data_loglik(form: Callable[..., jax.Array] = bernoulli_loglik) -> tuple[Claim, ...]:
    """The log of the product is the sum of the logs, that is minus the sum of the losses L(ŷ, y)."""
    w, b, x, y = logreg_case()
    yhat = predict(w, b, x)
    probability = np.where(y == 1, yhat, 1 - np.asarray(yhat))
    return (
        agree("log of the product", form(y, yhat), np.log(np.prod(probability))),
        agree("minus the sum of the losses", form(y, yhat), -losses(yhat, y).sum()),
    )


def logreg_cost_mle() -> tuple[Claim, ...]:
    """J = −log likelihood/m, so what raises one lowers the other, and they have the same optimum."""
    w, b, x, y = logreg_case()
    fit = logistic.newton(x, y)
    points = [(w, b), (-w, b), (fit.w, fit.b)]
    J = np.array([logistic.cost(*point, x, y) for point in points])
    loglik = np.array([bernoulli_loglik(y, predict(*point, x)) for point in points])
    return (
        agree("J at three points", J, -loglik / len(x)),
        equal("their order, reversed", np.argsort(J), np.argsort(loglik)[::-1]),
        holds("the best is the optimum of J", int(np.argmax(loglik)) == 2, f"log likelihood {loglik.max():.6f}"),
    )
