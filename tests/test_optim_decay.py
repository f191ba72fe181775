"""Weight decay and soft-thresholding: by formula, in training, and on the command line."""

import dataclasses
import json
import math
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config, Layer, TrainState, cli, optim
from mlpjax.errors import ConfigError, InputError
from mlpjax.optim_decay import weight_matrices
from mlpjax.options import TrainOptions
from mlpjax.shrinkage import ista
from mlpjax.step import train_step

RAMP = optax.linear_schedule(0.5, 0.0, 4)
THETA = (Layer(W=jnp.array([[4.0, -0.25]]), b=jnp.array([2.0, 1.0]), slope=jnp.ones(2)), Layer(W=jnp.array([[3.0]])))
DELTA = jax.tree.map(lambda theta: jnp.full_like(theta, 0.5), THETA)
PARTS = {
    "coupled": optim.coupled_decay(0.5),
    "decoupled": optim.decoupled_decay(RAMP, 0.5),
    "proximal": optim.proximal_l1(RAMP, 1.0),
}
# at the second step, where α = 0.375
EXPECTED = {
    "coupled": ([[2.5, 0.375]], [[2.0]]),
    "decoupled": ([[-0.25, 0.546875]], [[-0.0625]]),
    "proximal": ([[0.125, 0.25]], [[0.125]]),
}


def second_update(optimizer, updates=DELTA, params=THETA):
    state = optimizer.init(params)
    _, state = optimizer.update(updates, state, params)
    return optimizer.update(updates, state, params)[0]


@pytest.mark.parametrize("name", PARTS)
def test_only_weights(name):
    """ΔW is dW + l2 W, ΔW − α l2 W, S(W + ΔW, α l1) − W; nothing else than W is touched."""
    got = second_update(PARTS[name])
    for layer, given, expected in zip(got, DELTA, EXPECTED[name], strict=True):
        np.testing.assert_allclose(layer.W, expected, rtol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, layer._replace(W=None), given._replace(W=None))


def test_names_of_weights():
    assert weight_matrices({"first": {"W": 1.0, "b": 2.0}, "W": 3.0}) == {"first": {"W": True, "b": False}, "W": True}
    assert weight_matrices(()) == ()


@pytest.mark.parametrize("name", PARTS)
def test_another_mask(name):
    make = {
        "coupled": lambda mask: optim.coupled_decay(0.5, mask=mask),
        "decoupled": lambda mask: optim.decoupled_decay(RAMP, 0.5, mask=mask),
        "proximal": lambda mask: optim.proximal_l1(RAMP, 1.0, mask=mask),
    }[name]
    W, delta, expected = THETA[0].W, DELTA[0].W, EXPECTED[name][0]
    np.testing.assert_allclose(second_update(make(True), delta, W), expected, rtol=1e-6)
    np.testing.assert_allclose(second_update(make(lambda tree: True), delta, W), expected, rtol=1e-6)
    np.testing.assert_array_equal(second_update(make(False), delta, W), delta)
    with pytest.raises(ConfigError, match=r"no parameter is called W, .*: give a mask, as for optax\.masked"):
        make(None).init(W)


@pytest.mark.parametrize("name", PARTS)
def test_they_need_the_parameters(name):
    with pytest.raises(InputError, match=r"need the parameters: call update\(updates, opt_state, params\)"):
        PARTS[name].update(DELTA, PARTS[name].init(THETA))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_zeros_are_exact(x64, dtype):
    """θ + update is exactly 0, with its sign, where |θ + Δθ| ≤ α l1, and nowhere else."""
    rng = np.random.default_rng(0)
    params, delta = ({"W": jnp.asarray(scale * rng.normal(size=4000), dtype)} for scale in (1.0, 0.3))
    optimizer = optim.proximal_l1(0.5, 1.0)
    update, _ = optimizer.update(delta, optimizer.init(params), params)
    after = optax.apply_updates(params, update)["W"]
    assert after.dtype == dtype
    moved = np.asarray(params["W"], float) + np.asarray(delta["W"], float)
    np.testing.assert_array_equal(np.asarray(after, float)[np.abs(moved) <= 0.5], 0.0)
    assert (np.abs(moved) <= 0.5).sum() > 1000
    expected = np.sign(moved) * np.maximum(np.abs(moved) - 0.5, 0)
    np.testing.assert_allclose(np.asarray(after, float), expected, atol=4 * jnp.finfo(dtype).eps)


def test_training_ends_at_the_lasso():
    """Plain gradient steps with soft-thresholding, by fit, end where ISTA does: with the same weights at exactly 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8)).astype(np.float32)
    y = (x @ np.array([2.0, -1.0, 0, 0, 0.5, 0, 0, 0]) + 0.1 * rng.normal(size=60)).astype(np.float32)
    config = Config(sizes=(8, 1), head="regression", bias=False)
    optimizer = optim.make_optimizer("sgd", 0.3, proximal_l1=0.2)
    result = mlpjax.fit(config, optimizer, Batch(x, y), epochs=200, batch_size=60, key=jax.random.key(0))
    expected = np.asarray(ista(jnp.asarray(x), jnp.asarray(y), 0.2))
    assert (expected == 0).sum() == 5
    W = np.asarray(result.params[0].W[:, 0])
    np.testing.assert_array_equal(W == 0, expected == 0)
    np.testing.assert_allclose(W, expected, atol=1e-5)


def test_one_l1_is_enough():
    config = Config(sizes=(2, 1), head="regression", l1=0.1)
    data = Batch(np.ones((4, 2)), np.ones(4))
    message = "given twice, as the config's l1 and as the optimiser's proximal_l1: choose one"
    # wherever its state is
    nested = optax.MultiSteps(optax.chain(optim.adam(0.1), optax.chain(optim.proximal_l1(0.1, 0.1))), 2)
    optimizer = nested.gradient_transformation()
    with pytest.raises(ConfigError, match=message):
        mlpjax.fit(config, optimizer, data, epochs=1, batch_size=4, key=jax.random.key(0))
    params, state = mlpjax.init(config, jax.random.key(0))

    def step(config, optimizer):
        start = TrainState(params, state, optimizer.init(params))
        jax.eval_shape(lambda: train_step(config, optimizer, mlpjax.backward, start, data, jax.random.key(1)))

    step(config, optim.adam(0.1))
    step(dataclasses.replace(config, l1=None), optimizer)
    with pytest.raises(ConfigError, match=message):
        step(config, optimizer)


WARMED = optax.warmup_cosine_decay_schedule(0.0, 0.5, 100, 1000)


@pytest.mark.parametrize(
    ("make", "product"),
    [
        (lambda: optim.decoupled_decay(0.5, 4.0), "2"),
        (lambda: optim.decoupled_decay(jnp.float32(0.5), jnp.float32(5.0)), "2.5"),
        (lambda: optim.decoupled_decay(RAMP, 5.0), "2.5"),
        # seen at step 128
        (lambda: optim.decoupled_decay(WARMED, 5.0), "2.49403"),
        (lambda: optim.make_optimizer("adam", 0.5, weight_decay=5.0), "2.5"),
        (lambda: optim.make_optimizer("adam", 0.5, weight_decay=5.0, schedule="warmup_cosine", steps=1000), "2.5"),
    ],
)
def test_unstable_decay_warns(make, product):
    with pytest.warns(
        UserWarning, match=rf"α · l2 is {re.escape(product)}: .* never settles: choose α · l2 < 2"
    ) as got:
        make()
    assert [warning.filename for warning in got] == [__file__]


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.decoupled_decay(0.5, 3.99),
        lambda: optim.decoupled_decay(0.5, 5.0, warn=False),
        lambda: optim.decoupled_decay(WARMED, 3.99),
        lambda: optim.coupled_decay(100.0),
        lambda: jax.jit(lambda alpha: second_update(optim.decoupled_decay(alpha, 5.0)))(0.5),
        lambda: jax.jit(lambda l2: second_update(optim.decoupled_decay(0.5, l2)))(5.0),
        lambda: jax.jit(lambda alpha: second_update(optim.decoupled_decay(lambda t: alpha / (1 + t), 5.0)))(0.5),
    ],
)
def test_stable_or_unknown_decay_does_not_warn(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.coupled_decay(-1.0), "l2 is -1.0: expected a finite number ≥ 0"),
        (lambda: optim.decoupled_decay(-0.1, 1.0), "alpha is -0.1"),
        (lambda: optim.decoupled_decay(0.1, math.nan), "l2 is nan"),
        (lambda: optim.proximal_l1(0.1, -1.0), "l1 is -1.0"),
        (lambda: optim.proximal_l1(jnp.ones(2), 1.0), r"alpha has shape \(2,\)"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


TINY = ("train", "--data", "gauss", "--hidden", "2", "--epochs", "1", "--batch-size", "400", "--dropout", "0")


def test_on_the_command_line(tmp_path, capsys):
    """A decay that warns and a threshold that no weight passes reach the optimiser."""
    options = ["--weight-decay", "5", "--proximal-l1", "20", "--convention", "sklearn", "--lr", "0.5", "--clip", "0.1"]
    files = ["--save", str(tmp_path / "m.npz"), "--json", str(tmp_path / "r.json")]
    assert cli.main([*TINY, *options, *files]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert warned[0].startswith("warning: with --lr as α and --weight-decay as l2, α · l2 is 2.5: ")
    assert json.loads((tmp_path / "r.json").read_text())["options"]["convention"] == "sklearn"
    for layer in mlpjax.load(tmp_path / "m.npz").params:
        np.testing.assert_array_equal(layer.W, 0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_decay": -1.0}, "--weight-decay is -1.0: expected a number from 0"),
        ({"weight_decay": math.nan}, "--weight-decay is nan"),
        ({"proximal_l1": -1.0}, "--proximal-l1 is -1.0: expected a number from 0"),
        ({"proximal_l1": 0.1, "l1": 0.1}, "--l1 and --proximal-l1 are one penalty: choose one"),
        (
            {"optimizer": "rmsprop", "convention": "sklearn"},
            "sklearn has no 'rmsprop': expected a convention that has it",
        ),
        ({"optimizer": "adam_slide", "convention": "torch"}, "torch has no 'adam_slide': no library has it"),
    ],
)
def test_options_that_are_refused(values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainOptions(**values).validate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--optimizer", "adamw"),
            "unknown --optimizer 'adamw': did you mean 'adam'? known: adadelta, adagrad, ",
        ),
        (("--convention", "pytorch"), "unknown --convention 'pytorch': did you mean 'torch'? known: "),
        (("--proximal-l1", "0.1", "--l1", "0.1"), "--l1 and --proximal-l1 are one penalty: choose one"),
        (("--optimizer", "adagrad", "--convention", "sklearn"), "sklearn has no 'adagrad': expected a convention"),
    ],
)
def test_errors_on_the_command_line(capsys, options, message):
    assert cli.main([*TINY, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mlpjax: {message}")
    assert error.count("\n") == 1
