"""The perceptron: worked values, NumPy and autodiff as oracles, what training returns, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax import perceptron_training
from mlpjax.errors import DataError, InputError
from mlpjax.perceptron import (
    Perceptron,
    augment,
    mp_neuron,
    nearest_on_boundary,
    perceptron_gradient,
    perceptron_loss,
    perceptron_predict,
    perceptron_step,
    predict_augmented,
    score,
    signed_distance,
)
from mlpjax.perceptron_training import novikoff, perceptron_fit
from mlpjax.toys import GATES, gate, gauss

SEPARABLE_GATES = [name for name in GATES if name not in ("xor_gate", "xnor_gate")]


def line_data(seed, m=30):
    """Points on both sides of a line, none nearer than 0.1."""
    rng = np.random.default_rng(seed)
    w, b = rng.normal(size=2), rng.normal() / 2
    x = rng.normal(size=(10 * m, 2))
    d = (x @ w + b) / np.linalg.norm(w)
    far = np.abs(d) > 0.1
    return x[far][:m], (d[far][:m] > 0).astype(int), Perceptron(w, b)


def test_mcculloch_pitts_units_stack_to_xor():
    x, _ = gate("xor_gate")
    none = np.zeros((4, 0))
    either, both = mp_neuron(x, none, 1), mp_neuron(x, none, 2)
    assert mp_neuron(either[:, None], both[:, None], 1).tolist() == list(GATES["xor_gate"])


def test_a_threshold_of_zero_fires_without_excitation_unless_inhibited():
    assert mp_neuron(np.zeros((2, 0)), np.array([[0], [1]]), 0).tolist() == [1, 0]


@pytest.mark.parametrize("inputs", [[[0.5, 1.0]], [[-1, 1]], [[np.nan, 0]]])
def test_mcculloch_pitts_inputs_are_0_and_1(inputs):
    with pytest.raises(InputError, match="expected 0 and 1 only"):
        mp_neuron(inputs, np.zeros((1, 0)), 1)
    with pytest.raises(InputError, match="inhibitory"):
        mp_neuron(np.zeros((1, 0)), inputs, 1)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3)])
def test_both_formulations_take_any_leading_axes(shape):
    rng = np.random.default_rng(0)
    x, params = rng.normal(size=shape).astype(np.float32), Perceptron(jnp.array([1.0, -2.0, 0.5]), jnp.array(0.25))
    yhat = perceptron_predict(params, x)
    assert yhat.shape == shape[:-1]
    assert yhat.dtype == jnp.float32
    np.testing.assert_array_equal(yhat, (x @ np.array([1.0, -2.0, 0.5]) + 0.25 >= 0).astype(float))
    np.testing.assert_array_equal(yhat, predict_augmented(jnp.array([0.25, 1.0, -2.0, 0.5]), augment(x)))


@pytest.mark.parametrize("shape", [(3,), (4, 3)])
def test_the_nearest_point_of_the_boundary(x64, shape):
    x, params = np.random.default_rng(0).normal(size=shape), Perceptron(jnp.array([1.0, -2.0, 2.0]), jnp.array(0.7))
    foot, d = nearest_on_boundary(params, x), signed_distance(params, x)
    np.testing.assert_allclose(score(params, foot), np.zeros(shape[:-1]), atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(foot - x, axis=-1), np.abs(d))
    np.testing.assert_allclose(d, score(params, x) / 3)  # ‖w‖ = 3


def test_without_weights_there_is_no_boundary():
    for function in (signed_distance, nearest_on_boundary):
        with pytest.raises(InputError, match="w is 0"):
            function(Perceptron(jnp.zeros(2), 1.0), jnp.ones(2))


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_gradient_and_step_by_autodiff_and_differences(x64, y):
    rng = np.random.default_rng(1)
    for _ in range(5):
        params, x = Perceptron(jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal())), rng.normal(size=3)
        g = perceptron_gradient(params, x, y)
        auto = jax.grad(perceptron_loss)(params, x, y)
        np.testing.assert_allclose(g.w, auto.w, rtol=1e-14)
        np.testing.assert_allclose(g.b, auto.b, rtol=1e-14)
        h = 1e-6
        up, down = (perceptron_loss(params._replace(b=params.b + s * h), x, y) for s in (1, -1))
        np.testing.assert_allclose(g.b, (up - down) / (2 * h), atol=1e-8)
        step = perceptron_step(params, x, y, 0.3)
        np.testing.assert_allclose(step.w, params.w - 0.3 * g.w, rtol=1e-14)
        np.testing.assert_allclose(step.b, params.b - 0.3 * g.b, rtol=1e-14)


@pytest.mark.parametrize(("name", "w_tilde"), [("and_gate", (-3, 2, 1)), ("or_gate", (-1, 1, 1))])
def test_the_worked_values_of_the_lecture(name, w_tilde):
    fit = perceptron_fit(*gate(name))
    assert (float(fit.params.b), *fit.params.w.tolist()) == w_tilde


@pytest.mark.parametrize("name", GATES)
def test_training_as_a_loop_in_plain_python(name):
    x, y = gate(name)
    b, w, mistakes, path = 0.0, [0.0, 0.0], [], []
    for _ in range(20):
        count = 0
        for row, target in zip(x.tolist(), y.tolist(), strict=True):
            error = target - (1 if b + w[0] * row[0] + w[1] * row[1] >= 0 else 0)
            b, w = b + 0.5 * error, [v + 0.5 * error * u for v, u in zip(w, row, strict=True)]
            count += error != 0
        mistakes.append(count)
        path.append([b, *w])
        if count == 0:
            break
    fit = perceptron_fit(x, y, alpha=0.5, max_epochs=20)
    assert fit.mistakes.tolist() == mistakes
    assert (fit.epochs, fit.total) == (len(mistakes), sum(mistakes))
    assert fit.converged == (name in SEPARABLE_GATES)
    np.testing.assert_array_equal(np.column_stack([fit.path.b, fit.path.w]), path)
    np.testing.assert_array_equal(fit.path.w[-1], fit.params.w)
    assert not fit.converged or perceptron_predict(fit.params, x).tolist() == y.tolist()


def test_another_rate_compiles_nothing_new(monkeypatch):
    traced = []

    def counted(*args):
        traced.append(args)
        return perceptron_step(*args)

    monkeypatch.setattr(perceptron_training, "perceptron_step", counted)
    x, y = gate("and_gate")
    fits = [perceptron_fit(x, y, alpha=alpha, max_epochs=17) for alpha in (0.125, 0.25)]
    assert len(traced) == 1
    np.testing.assert_allclose(fits[1].params.w, 2 * fits[0].params.w)


@pytest.mark.parametrize("seed", range(5))
def test_novikoffs_bound_and_the_growth_that_proves_it(seed):
    x, y, separator = line_data(seed)
    fit = perceptron_fit(x, y, alpha=0.1)
    for track in (novikoff(fit, x, y), novikoff(fit, x, y, separator)):
        assert fit.converged
        assert 0 < fit.total <= track.bound
        assert track.k.tolist() == np.cumsum(fit.mistakes).tolist()
        assert np.all(track.norm <= track.radius * np.sqrt(track.k) * (1 + 1e-5))
        assert np.all(track.progress >= track.margin * track.k * (1 - 1e-5))
        assert np.all(track.progress <= track.norm * (1 + 1e-12))
    u = np.append(separator.b, separator.w) / np.hypot(separator.b, np.linalg.norm(separator.w))
    x_tilde = np.column_stack([np.ones(len(x)), x])
    np.testing.assert_allclose(track.margin, np.min((2 * y - 1) * (x_tilde @ u)))
    np.testing.assert_allclose(track.radius, np.linalg.norm(x_tilde, axis=1).max())
    np.testing.assert_allclose(track.bound, (track.radius / track.margin) ** 2)


def test_novikoff_needs_a_separator():
    x, y = gate("xor_gate")
    fit = perceptron_fit(x, y, max_epochs=5)
    with pytest.raises(DataError, match="no hyperplane separates"):
        novikoff(fit, x, y)
    x, y = gate("and_gate")
    with pytest.raises(DataError, match="margin of -"):
        novikoff(perceptron_fit(x, y), x, y, Perceptron([1.0, 1.0], 0.5))


def test_integers_and_both_precisions_learn_the_same():
    x, y = gauss(60)
    fits = [perceptron_fit(x, y.astype(dtype)) for dtype in (np.uint8, np.int64, bool, np.float32)]
    with jax.enable_x64(True):
        fits.append(perceptron_fit(x.astype(np.float64), y))
    assert fits[-1].params.w.dtype == np.float64
    assert all(fit.mistakes.tolist() == fits[0].mistakes.tolist() for fit in fits)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": np.nan}, "alpha is nan"),
        ({"max_epochs": 0}, "max_epochs is 0"),
        ({"x": np.eye(2)[0]}, "x has shape"),
        ({"y": np.array([1, 2])}, "y is 2 in row 1"),
        ({"x": np.full((2, 2), np.nan)}, "nan"),
        ({"x": np.full((2, 2), 3e38), "alpha": 10.0}, "overflowed"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(change, match):
    given = {"x": np.eye(2), "y": np.array([0, 1]), **change}
    with pytest.raises(InputError, match=match):
        perceptron_fit(given.pop("x"), given.pop("y"), **given)
