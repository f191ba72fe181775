"""The checks of section *Perceptron*: the model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import binary_step
from mlpjax.claims import Claim, agree, equal, holds
from mlpjax.perceptron import (
    Perceptron,
    augment,
    mp_neuron,
    nearest_on_boundary,
    perceptron_predict,
    predict_augmented,
    score,
    signed_distance,
)
from mlpjax.toys import GATES, gate


def perceptron_mp_neuron() -> tuple[Claim, ...]:
    """A unit without learning computes AND, OR and NOT, for the right threshold and kind of input."""
    x, _ = gate("and_gate")
    none, bit = np.zeros((4, 0)), np.array([[0], [1]])
    return (
        equal("AND, θ = 2", mp_neuron(x, none, 2), GATES["and_gate"]),
        equal("OR, θ = 1", mp_neuron(x, none, 1), GATES["or_gate"]),
        equal("NOT, the input inhibitory", mp_neuron(np.ones((2, 1)), bit, 1), [1, 0]),
        equal("one inhibitory input stops any excitation", mp_neuron(np.ones((2, 9)), bit, 1), [1, 0]),
    )


def perceptron_problem() -> tuple[Claim, ...]:
    """A vector gets one class, 0 or 1; a batch gets one per row."""
    params, x, _ = _case()
    yhat = np.asarray(perceptron_predict(params, x))
    return (
        holds("one class per example", yhat.shape == (len(x),), yhat.shape),
        equal("both classes, and nothing else", np.unique(yhat), [0.0, 1.0]),
        equal("row by row as in the batch", [perceptron_predict(params, row) for row in x], yhat),
    )


def perceptron_model_f1() -> tuple[Claim, ...]:
    """T(x̃·w̃) with the bias as weight 0: a hand-made w̃ computes AND."""
    x, y = gate("and_gate")
    sums = [[-3 * 1 + 2 * a + 1 * b for a, b in x]]
    yhat = predict_augmented(jnp.array([-3.0, 2.0, 1.0]), augment(jnp.asarray(x)))
    return equal("AND by w̃ = (−3, 2, 1)", yhat, y), equal("the signs of −3 + 2x₁ + x₂", yhat, np.heaviside(sums, 1)[0])


def perceptron_model_f2() -> tuple[Claim, ...]:
    """T(X w + b) on a batch, against sums in plain Python and truth tables."""
    params, x, _ = _case()
    sums = [sum(float(w) * float(v) for w, v in zip(params.w, row, strict=True)) + float(params.b) for row in x]
    gates, _ = gate("or_gate")
    nand = perceptron_predict(Perceptron(jnp.array([-2.0, -2.0]), jnp.array(3.0)), gates)
    return (
        agree("z = x·w + b", score(params, x), sums),
        equal("1 where z ≥ 0", perceptron_predict(params, x), [float(z >= 0) for z in sums]),
        equal("NAND by w = (−2, −2), b = 3", nand, GATES["nand_gate"]),
    )


def perceptron_f1_eq_f2() -> tuple[Claim, ...]:
    """Both formulations give the same classes when w̃₀ = b and x̃₀ = 1."""
    params, x, _ = _case(m=200)
    w_tilde = np.append(params.b, params.w)
    return (
        equal("x̃ is 1, then x", augment(x), np.insert(x, 0, 1.0, axis=1)),
        equal("the same 200 classes", predict_augmented(w_tilde, augment(x)), perceptron_predict(params, x)),
    )


def perceptron_threshold() -> tuple[Claim, ...]:
    """T is 1 from 0 on and 0 below; T(0) = 1; autodiff says slope 0 everywhere."""
    z = np.array([-2.0, -1e-300, -0.0, 0.0, 1e-300, 3.0])
    return (
        equal("T against the step of NumPy with T(0) = 1", binary_step(jnp.asarray(z)), np.heaviside(z, 1.0)),
        equal("jax.grad of T", jax.grad(lambda z: jnp.sum(binary_step(z)))(jnp.asarray(z)), np.zeros(6)),
    )


def perceptron_params() -> tuple[Claim, ...]:
    """There are n_x weights and one bias, and each of them changes the score."""
    params, x, _ = _case()
    d = jax.jacobian(lambda params: score(params, x[0]))(params)
    return (
        equal("n_x + 1 numbers", sum(leaf.size for leaf in jax.tree.leaves(params)), x.shape[1] + 1),
        agree("∂z/∂w = x", d.w, x[0]),
        agree("∂z/∂b = 1", d.b, 1.0),
    )


def perceptron_boundary() -> tuple[Claim, ...]:
    """The boundary is where x·w + b = 0, at the signed distance (x·w + b)/‖w‖."""
    params, x, _ = _case()
    foot = np.asarray(nearest_on_boundary(params, x))
    d, w = np.asarray(signed_distance(params, x)), np.asarray(params.w)
    far = np.linalg.norm(np.asarray(x) - foot, axis=1)
    along = np.array([1.0, 0.0, -w[0] / w[2]])  # w·along = 0
    return (
        agree("z = 0 on the boundary", score(params, foot), np.zeros(len(x))),
        agree("the distance to its nearest point", np.abs(d), far),
        equal("positive where the class is 1", (d >= 0).astype(float), perceptron_predict(params, x)),
        holds(
            "other points of it are farther", np.all(np.linalg.norm(x - foot - along[None, :], axis=1) > far), "true"
        ),
    )


def _case(m: int = 12) -> tuple[Perceptron, np.ndarray, np.ndarray]:
    """Random parameters and examples, with some right and some wrong."""
    rng = np.random.default_rng(8)
    params = Perceptron(rng.normal(size=3), np.float64(rng.normal()))
    return params, rng.normal(size=(m, 3)), rng.integers(0, 2, m).astype(float)
