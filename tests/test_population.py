"""`fit_many`: each member is what `fit` makes of it alone, however members are grouped, stopped, left out or parted."""

import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax.population_loop
from mlpjax import Batch, Config, fit, fit_many
from mlpjax.errors import ConfigError, InputError

N = 4
KEYS = jax.random.split(jax.random.key(3), N)
ORDER = jax.random.key(5)
ALPHAS = [0.02, 0.05, 0.05, 0.02]
RICH = Config(sizes=(2, 4, 3), activation="prelu", batch_norm=True, dropout=0.3, l1=0.001, l2=0.01)
MEMBERS = [RICH, Config(**RICH.to_dict() | {"dropout": 0.1}), Config(**RICH.to_dict() | {"l2": 0.1}), RICH]
PLAIN = Config(sizes=(2, 5, 5, 3), activation="tanh")
MIXED = [RICH, PLAIN, PLAIN, RICH]


def classes(m, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(m) % 3
    return Batch(2 * np.eye(3, 2)[y] + rng.normal(size=(m, 2)), y, rng.integers(0, 3, m).astype(float))


TRAIN, VALID = classes(13), classes(9, seed=1)
fit_these = functools.partial(
    fit_many, optimizer=optax.adam, train_data=TRAIN, alphas=ALPHAS, batch_size=4, keys=KEYS, valid_data=VALID
)


adam = functools.cache(optax.adam)
"""One object for one rate, so that a program is compiled once."""


def alone(configs, i, epochs, order_key=None, **options):
    return fit(
        configs[i],
        adam(ALPHAS[i]),
        TRAIN,
        epochs=epochs,
        key=KEYS[i],
        order_key=order_key,
        **{"valid_data": VALID, "batch_size": 4} | options,
    )


def same(result, expected, rtol):
    """Every field but the seconds; arrays to ``rtol`` of the largest of the leaf."""
    for name in ("epoch", "stop_reason", "message", "diverged_at"):
        assert getattr(result, name) == getattr(expected, name)
    assert list(result.history) == list(expected.history)
    got = result[:3], {name: np.array(column) for name, column in result.history.items() if name != "seconds"}
    want = expected[:3], {name: np.array(column) for name, column in expected.history.items() if name != "seconds"}
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(np.abs(b).max(initial=0), 1e-3))


@pytest.mark.parametrize("order_key", [None, ORDER], ids=["own", "shared"])
@pytest.mark.parametrize(
    "configs", [MEMBERS, pytest.param(MIXED, marks=pytest.mark.slow)], ids=["one group", "two groups"]
)
def test_members_are_those_trained_alone(x64, configs, order_key):
    results = fit_these(configs, epochs=3, order_key=order_key)
    for i in range(N):
        same(results[i], alone(configs, i, 3, order_key), 1e-12)


@pytest.mark.slow
def test_in_float32_to_rounding():
    """After a step, 4 units in the last place of the largest number of each array; later as far as rounding grows."""
    for epochs, batch_size, ulps in ((1, 13, 4), (3, 4, 1e5)):
        results = fit_these(MEMBERS, epochs=epochs, batch_size=batch_size)
        for i in (1, 2):
            expected = alone(MEMBERS, i, epochs, batch_size=batch_size)
            same(results[i], expected, ulps * np.finfo(np.float32).eps)


@pytest.mark.parametrize("flops", [0, 1e30], ids=["left out", "frozen"])
def test_members_stop_on_their_own(x64, monkeypatch, flops):
    """By their epochs or their patience; left out then or kept as they were, with the results of training alone."""
    monkeypatch.setattr(mlpjax.population_loop, "COMPILE_FLOPS", flops)
    epochs = [1, 6, 2, 4]
    for order_key in (None, ORDER):
        results = fit_these(MEMBERS, epochs=epochs, patience=2, order_key=order_key)
        for i in range(N):
            same(results[i], alone(MEMBERS, i, epochs[i], order_key, patience=2), 1e-11)
    assert {result.stop_reason for result in results} == {"finished", "early stopping"}


def test_parts_that_fit_into_memory(x64):
    """A member takes more than one byte: each trains in a part of its own, and one compiled program serves all."""
    seen = []
    results = fit_these(MEMBERS, epochs=2, memory=1, callback=seen.append)
    assert [(p.group, p.groups, p.epoch, p.epochs, p.members) for p in seen[::2]] == [
        (part, 4, 1, 2, 1) for part in (1, 2, 3, 4)
    ]
    assert [p.training for p in seen] == [1, 0] * 4
    for result, expected in zip(results, fit_these(MEMBERS, epochs=2), strict=True):
        same(result, expected, 1e-12)


def test_many_epochs_in_a_chunk_and_weights_of_classes(x64):
    options = {"valid_data": None, "class_weight": "balanced"}
    results = fit_these(MEMBERS, epochs=3, **options)
    same(results[2], alone(MEMBERS, 2, 3, **options), 1e-12)


LINE = Config(sizes=(2, 4, 1), activation="relu", head="regression")
POSITIVE = Batch(np.linspace(0.5, 1.5, 26).reshape(13, 2), np.linspace(0.0, 1.0, 13))


@pytest.mark.parametrize("valid_data", [None, POSITIVE], ids=["chunk of all", "chunks of an epoch"])
def test_members_that_diverge(valid_data):
    rates = [0.01, 50.0, 1e4, 0.02]
    options = {"epochs": 4, "batch_size": 2, "valid_data": valid_data}
    results = fit_many(LINE, optax.sgd, POSITIVE, alphas=rates, keys=KEYS, **options)
    assert [result.stop_reason for result in results] == ["finished", "diverged", "diverged", "finished"]
    for result, rate, key in zip(results, rates, KEYS, strict=True):
        same(result, fit(LINE, optax.sgd(rate), POSITIVE, key=key, **options), 1e-5)


def test_ctrl_c_ends_all_with_a_result():
    def press(progress):
        if progress.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    results = fit_these(MIXED, epochs=3, callback=press)
    assert [(result.stop_reason, result.epoch) for result in results] == [
        ("interrupted", epoch) for epoch in (2, 0, 0, 2)
    ]
    assert results[0].message == "interrupted after epoch 2"
    assert results[1].message == "interrupted before epoch 1"
    assert results[1].params[0].W.shape == (2, 5)


def test_a_tree_of_numbers_for_each_optimizer():
    rates = {"alpha": np.array([0.1, 0.2]), "momentum": jnp.array([0.0, 0.9])}
    results = fit_many(
        PLAIN,
        lambda rate: optax.sgd(rate["alpha"], rate["momentum"]),
        TRAIN,
        alphas=rates,
        epochs=1,
        batch_size=13,
        keys=KEYS[:2],
    )
    assert results[0].opt_state[0].trace[0].W.shape == (2, 5)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (r"keys have shape \(\)", {"keys": KEYS[0]}),
        (r"keys have shape \(0,\)", {"keys": KEYS[:0]}),
        ("key is 3", {"keys": 3}),
        ("configs are 2 for 4 keys", {"configs": [RICH, RICH]}),
        (r"alphas have leading axes \[\(2,\)\] for 4 keys", {"alphas": [0.1, 0.2]}),
        (r"alphas have leading axes \[\(\)\]", {"alphas": 0.1}),
        ("epochs are 2 numbers for 4 keys", {"epochs": [1, 2]}),
        ("epochs is 0", {"epochs": [1, 2, 0, 1]}),
        ("batch_size is 0", {"batch_size": 0}),
        ("monitor is 'los'", {"monitor": "los"}),
        ("patience .* watches validation data", {"patience": 1, "valid_data": None}),
        ("train_data: x has", {"train_data": Batch(np.zeros((3, 5)), [0, 1, 2])}),
    ],
)
def test_what_does_not_fit(message, options):
    with pytest.raises(InputError, match=message):
        fit_these(**{"configs": MEMBERS, "epochs": 1} | options)


def test_a_network_that_cannot_learn():
    with pytest.raises(ConfigError, match="binary_step"):
        fit_these(Config(sizes=(2, 3, 3), activation="binary_step"), epochs=1)
