"""`fit` against a plain loop, and all that happens around the steps: records, stopping, divergence, bad input."""

import functools
import os
import signal
import threading
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
import mlpjax.chunks
from mlpjax import Batch, Config, accumulate, evaluate, fit
from mlpjax.chunks import epoch_order

KEY = jax.random.key(3)
RICH = Config(sizes=(2, 4, 3), activation="prelu", batch_norm=True, dropout=0.3, l1=0.001, l2=0.01)
SMALL = Config(sizes=(2, 4, 3), activation="tanh")
LINE = Config(sizes=(2, 1), head="regression", init="zeros", bias=False)
ADAM, SGD = optax.adam(0.05), optax.sgd(0.1)


def classes(m, weight=False, seed=0):
    """Three classes around three centres."""
    rng = np.random.default_rng(seed)
    y = np.arange(m) % 3
    x = 2 * np.eye(3, 2)[y] + rng.normal(size=(m, 2))
    return Batch(x, y, np.where(np.arange(m) % 5 == 2, 0.0, rng.uniform(0.5, 2.0, m)) if weight else None)


SEVEN = classes(7)
WEIGHED = classes(7, weight=True)
fit_small = functools.partial(fit, SMALL, ADAM, SEVEN, batch_size=3, key=KEY)


def line(m, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(rng.normal(size=(m, 2)), rng.normal(size=m))


class Record(NamedTuple):
    """What a plain loop saw: parameters and state before each step, and what the step reported."""

    params: Any
    state: Any
    aux: Any
    rows: np.ndarray
    epoch: int


def plain_loop(config, optimizer, data, *, epochs, batch_size, key):
    """Training as a textbook writes it: batches of their own size, one after another; records, and how it ended."""
    backward = jax.jit(mlpjax.backward)
    update = jax.jit(functools.partial(mlpjax.apply_update, optimizer))
    params, state = mlpjax.init(config, key)
    opt_state, step, records = optimizer.init(params), 0, []
    for epoch in range(1, epochs + 1):
        order = epoch_order(key, epoch, len(data.x))
        for rows in np.split(order, range(batch_size, len(order), batch_size)):
            batch = Batch(*(None if value is None else value[rows] for value in data))
            (_, aux), grads = backward(config, params, state, batch, jax.random.fold_in(key, step))
            records.append(Record(params, state, aux, rows, epoch))
            params, opt_state = update(grads, opt_state, params)
            state, step = aux.state, step + 1
    return records, (params, state, opt_state)


def columns(result):
    return {name: column for name, column in result.history.items() if name != "seconds"}


# --- the numbers


def test_fit_is_the_plain_loop(x64):
    """Dropout, batch-norm, penalties, weights and a last batch of 3 of 4 rows: `fit` pads it, the plain loop does not.

    The masks agree all the same, as row i of a mask is drawn alike for any number of rows.
    """
    data = WEIGHED
    result = fit(RICH, ADAM, data, epochs=3, batch_size=4, key=KEY)
    records, end = plain_loop(RICH, ADAM, data, epochs=3, batch_size=4, key=KEY)
    chex.assert_trees_all_close((result.params, result.state, result.opt_state), end, rtol=1e-12, atol=1e-12)
    assert (result.stop_reason, result.epoch, result.diverged_at) == ("finished", 3, None)

    history = result.history
    assert list(history) == ["epoch", "train_loss", "train_metric", "penalty", "seconds"]
    assert history["epoch"] == [1, 2, 3]
    assert sorted(history["seconds"]) == history["seconds"]
    for epoch in (1, 2, 3):
        seen = [r for r in records if r.epoch == epoch]
        weights = [data.weight[r.rows] for r in seen]
        total = sum(w.sum() for w in weights)
        right = sum(w @ (np.argmax(r.aux.z, 1) == data.y[r.rows]) for r, w in zip(seen, weights, strict=True))
        loss, penalty = (
            sum(float(getattr(r.aux, part)) * w.sum() for r, w in zip(seen, weights, strict=True)) / total
            for part in ("data_loss", "penalty")
        )
        row = [history[name][epoch - 1] for name in ("train_loss", "train_metric", "penalty")]
        np.testing.assert_allclose(row, [loss, right / total, penalty], rtol=1e-12)


def test_autodiff_trains_alike(x64):
    by_hand, by_autodiff = (
        fit(RICH, ADAM, WEIGHED, epochs=5, batch_size=4, key=KEY, grad_fn=grad_fn)
        for grad_fn in (mlpjax.backward, mlpjax.autodiff)
    )
    chex.assert_trees_all_close(by_autodiff[:3], by_hand[:3], rtol=1e-9, atol=1e-12)


def test_key_decides_everything():
    one, same, other = (fit_small(epochs=2, key=key) for key in (KEY, KEY, jax.random.key(4)))
    chex.assert_trees_all_equal(one[:3], same[:3])
    assert columns(one) == columns(same)
    assert not np.allclose(one.params[0].W, other.params[0].W)


def test_key_decides_masks_and_order():
    """From the same start values, with dropout and full batches, or without dropout and with an order."""
    params, _ = mlpjax.init(SMALL, KEY)
    for config, batch_size in ((SMALL, 3), (Config(sizes=(2, 4, 3), activation="tanh", dropout=0.5), 7)):
        one, other = (
            fit(config, ADAM, SEVEN, epochs=1, batch_size=batch_size, params=params, key=key)
            for key in (KEY, jax.random.key(4))
        )
        assert not np.allclose(one.params[0].W, other.params[0].W)


def test_raw_keys_train_alike():
    typed, raw = (fit_small(epochs=1, key=key) for key in (jax.random.key(5), jax.random.PRNGKey(5)))
    chex.assert_trees_all_equal(typed.params, raw.params)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 11, 30])
def test_each_example_counts_once_per_epoch(batch_size):
    """Example i is the i-th unit vector, and W_i its prediction: its one step adds 1/(size of its batch) to W_i."""
    m = 11
    config = Config(sizes=(m, 1), head="regression", init="zeros", bias=False)
    result = fit(config, optax.sgd(1.0), Batch(np.eye(m), np.ones(m)), epochs=1, batch_size=batch_size, key=KEY)
    batches = np.split(epoch_order(KEY, 1, m), range(batch_size, m, batch_size))
    expected = np.empty(m)
    for rows in batches:
        expected[rows] = 1 / len(rows)
    np.testing.assert_allclose(result.params[0].W[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(result.history["train_loss"], [0.5], rtol=1e-6)


def test_one_example():
    config = Config(sizes=(2, 4, 1), head="regression", batch_norm=True)
    result = fit(config, SGD, Batch(np.ones((1, 2)), np.ones(1)), epochs=3, batch_size=8, key=KEY)
    assert int(result.state[0].count) == 3
    assert result.history["train_loss"][-1] < result.history["train_loss"][0]


def test_linear_regression_in_numpy(x64):
    """Full-batch gradient descent, again in NumPy, to the last digits of float64."""
    data, W = line(7), np.zeros(2)
    result = fit(LINE, SGD, data, epochs=20, batch_size=7, key=KEY)
    for _ in range(20):
        W -= 0.1 * data.x.T @ (data.x @ W - data.y) / 7
    np.testing.assert_allclose(result.params[0].W[:, 0], W, rtol=1e-12)


def test_learns_xor():
    config = Config(sizes=(2, 8, 1), activation="tanh", head="binary")
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    result = fit(config, ADAM, Batch(x, y), epochs=200, batch_size=3, key=KEY)
    np.testing.assert_array_equal(mlpjax.decide(config, mlpjax.predict(config, *result[:2], x)), y)
    assert result.history["train_metric"][-1] == 1.0
    assert result.history["train_loss"][-1] < 0.05


def test_continues_where_it_stood(x64):
    """Full batches and no masks: two epochs and two more are four."""
    config = Config(sizes=(2, 4, 3), activation="tanh", batch_norm=True)
    run = functools.partial(fit, config, ADAM, SEVEN, batch_size=7)
    whole, first = run(epochs=4, key=KEY), run(epochs=2, key=KEY)
    then = run(epochs=2, key=jax.random.key(9), params=first.params, state=first.state, opt_state=first.opt_state)
    chex.assert_trees_all_close(then[:3], whole[:3], rtol=1e-10, atol=1e-13)
    assert int(then.state[0].count) == int(then.opt_state[0].count) == 4
    forgot = run(epochs=2, key=KEY, params=first.params, state=first.state)
    assert int(forgot.opt_state[0].count) == 2
    assert not np.allclose(forgot.params[0].W, whole.params[0].W)


# --- compilation


def test_one_trace_for_all_steps_and_runs():
    traces = []

    def counted(config, params, state, batch, key=None, *, train=True):
        traces.append(batch.x.shape)
        return mlpjax.backward(config, params, state, batch, key, train=train)

    def run(dropout, l1, l2, **options):
        config = Config(sizes=(2, 4, 3), batch_norm=True, dropout=dropout, l1=l1, l2=l2)
        return fit(config, SGD, classes(7, seed=round(10 * dropout)), batch_size=4, grad_fn=counted, **options)

    run(0.2, 0.01, 0.02, epochs=3, key=KEY)
    first = run(0.5, 0.03, 0.0, epochs=3, key=jax.random.key(1))
    assert len(traces) == 1
    # a chunk of one epoch, whatever their number
    run(0.2, 0.01, 0.02, epochs=1, key=KEY, params=first.params, state=first.state, opt_state=first.opt_state)
    run(0.0, 0.01, 0.02, epochs=1, key=KEY, valid_data=SEVEN)
    run(0.3, 0.01, 0.02, epochs=5, key=KEY, callback=lambda progress: False)
    assert len(traces) == 2


# --- chunks

LENGTHS = (1, 2, 4, 7, 14, 21)
"""Of 7 steps: in chunks of 2 and 4 the last chunk is shorter; 14 and 21 are two epochs and three."""


def set_chunk(monkeypatch, config, batch_size, length):
    weights = sum(a * b for a, b in zip(config.sizes[:-1], config.sizes[1:], strict=True))
    monkeypatch.setattr(mlpjax.chunks, "CHUNK_FLOPS", 6 * weights * batch_size * (length + 0.5))


def test_chunks_change_nothing(monkeypatch):
    """To the bit, many epochs in a chunk or one step."""
    results = []
    for length in (1, 3, 7):
        set_chunk(monkeypatch, RICH, 2, length)
        seen = []
        results.append(fit(RICH, ADAM, classes(13), epochs=2, batch_size=2, key=KEY, callback=seen.append))
        assert [p.step for p in seen if p.epoch == 2] == [min(7, k) for k in range(length, 7 + length, length)]
        assert [p.record is not None for p in seen] == [p.step == 7 for p in seen]
    for length in (7, 14, 15, 35):  # without a callback: chunks of one epoch, two and five
        set_chunk(monkeypatch, RICH, 2, length)
        results.append(fit(RICH, ADAM, classes(13), epochs=2, batch_size=2, key=KEY))
    first, *others = results
    for other in others:
        chex.assert_trees_all_equal(other[:3], first[:3])
        assert columns(other) == columns(first)


# --- weights


@pytest.fixture
def full_batch(x64):
    """Train with full batches in float64: the result depends on the examples, not on their order."""
    config = Config(sizes=(2, 4, 3), activation="tanh", batch_norm=True, l2=0.01)

    def run(x, y, weight=None, **options):
        return fit(config, SGD, Batch(x, y, weight), epochs=5, batch_size=100, key=KEY, **options)

    return run


def test_weight_two_is_a_row_twice_and_zero_its_absence(full_batch):
    x, y, _ = SEVEN
    times = np.array([2, 1, 0, 1, 3, 1, 0])
    weighted = full_batch(x, y, times)
    repeated = full_batch(np.repeat(x, times, axis=0), np.repeat(y, times))
    chex.assert_trees_all_close(weighted[:2], repeated[:2], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(weighted.history["train_loss"], repeated.history["train_loss"], rtol=1e-10)
    np.testing.assert_allclose(weighted.history["train_metric"], repeated.history["train_metric"], rtol=1e-12)


def test_weights_count_by_their_ratios(full_batch):
    x, y, _ = SEVEN
    weight = np.arange(1.0, 8.0)
    chex.assert_trees_all_close(
        full_batch(x, y, weight).params, full_batch(x, y, 100 * weight).params, rtol=1e-10, atol=1e-13
    )


def test_no_weight_at_all(full_batch):
    x, y, _ = SEVEN
    result = full_batch(x, y, np.zeros(7))
    start = mlpjax.init(Config(sizes=(2, 4, 3), activation="tanh", batch_norm=True), KEY)
    chex.assert_trees_all_equal(result[:2], start)
    assert result.stop_reason == "finished"
    # a mean over nothing is no perfect score
    assert np.isnan(result.history["train_loss"]).all()


@pytest.mark.parametrize(
    ("class_weight", "expected"),
    [("balanced", [0.5, 1.0, 2.0, 2.0, 0.5, 0.5, 0.5]), ([0.25, 3.0, 7.0], [0.25, 3.0, 7.0, 7.0, 0.25, 0.25, 0.25])],
)
def test_class_weight_is_a_sample_weight(full_batch, class_weight, expected):
    x = SEVEN.x[:7]
    y = np.array([0, 1, 2, 2, 0, 0, 0])
    if class_weight == "balanced":
        expected = 7 / (3 * np.bincount(y))[y]
    expected = np.asarray(expected, np.float32)
    by_class = full_batch(x, y, class_weight=class_weight)
    chex.assert_trees_all_close(by_class[:2], full_batch(x, y, expected)[:2], rtol=1e-12)
    given = np.arange(1.0, 8.0)
    both = full_batch(x, y, given, class_weight=class_weight)
    chex.assert_trees_all_close(both[:2], full_batch(x, y, given * expected)[:2], rtol=1e-12)


def test_class_weight_leaves_validation_alone():
    result = fit_small(epochs=1, class_weight=[0.1, 5.0, 1.0], valid_data=SEVEN)
    assert result.history["valid_loss"] == [evaluate(SMALL, *result[:2], SEVEN)["loss"]]


def test_accumulated_gradients_train_alike(x64):
    """Parts of the same batches, in the same order: without batch-norm and masks only rounding differs."""
    config = Config(sizes=(2, 4, 3), activation="tanh", l2=0.01)
    run = functools.partial(fit, config, SGD, WEIGHED, epochs=3, batch_size=4, key=KEY)
    whole, parts = run(), run(grad_fn=accumulate(mlpjax.backward, 3))
    chex.assert_trees_all_close(parts[:2], whole[:2], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(parts.history["train_metric"], whole.history["train_metric"], rtol=1e-12)


# --- validation and early stopping


def test_validation_is_evaluate():
    valid = classes(7, weight=True, seed=1)
    kept = []
    result = fit_small(epochs=3, valid_data=valid, callback=lambda progress: kept.append(progress.record) and None)
    expected = evaluate(SMALL, result.params, result.state, valid)
    assert result.history["valid_loss"][-1] == expected["loss"]
    assert result.history["valid_metric"][-1] == expected["metric"]
    assert kept == [{name: column[i] for name, column in result.history.items()} for i in range(3)]
    without = fit_small(epochs=3)
    chex.assert_trees_all_equal(without.params, result.params)


@pytest.mark.parametrize("batch", [3, 2048])
def test_evaluate_in_parts(monkeypatch, batch):
    monkeypatch.setattr(mlpjax.loop, "EVALUATION_BATCH", batch)
    data = WEIGHED
    params, state = mlpjax.init(SMALL, KEY)
    z = np.asarray(mlpjax.forward(SMALL, params, state, data.x)[0], np.float64)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(7), data.y]
    result = evaluate(SMALL, params, state, data)
    assert result["loss"] == pytest.approx(np.average(losses, weights=data.weight), rel=1e-6)
    right = z.argmax(axis=1) == data.y
    assert result["metric"] == pytest.approx(np.average(right, weights=data.weight), rel=1e-6)
    # without weights it is a count over a count, not rounded to float32
    assert evaluate(SMALL, params, state, data._replace(weight=None))["metric"] == right.sum() / 7


def test_evaluate_uses_the_running_statistics():
    config = Config(sizes=(2, 4, 3), batch_norm=True, dropout=0.5, l2=1.0)
    params, state = mlpjax.init(config, KEY)
    state = (state[0]._replace(mean=state[0].mean + 0.5),)
    _, aux = mlpjax.loss(config, params, state, SEVEN, train=False)
    np.testing.assert_allclose(evaluate(config, params, state, SEVEN)["loss"], aux.data_loss, rtol=1e-6)
    assert aux.penalty > 0.1


NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([5, 4, 3, 2, 1], 1, 5, 5),
        ([1, 2, 3, 4, 5], 2, 3, 1),
        ([1, 1, 1, 1, 1], 1, 2, 1),
        ([3, 2, 2.5, 1, 4, 5, 6], 2, 6, 4),
        ([3, 2, 2.5, 1, 4], 4, 5, 4),
        ([NAN, 3, 2, 4, 5, 6], 2, 5, 3),
        ([3, NAN, NAN, 1], 2, 3, 1),
        ([NAN, NAN, NAN], 2, 3, 1),
    ],
)
@pytest.mark.parametrize("monitor", ["loss", "metric"])
def test_patience(monkeypatch, monitor, scores, patience, epochs, best):
    """Validation follows a script; accuracy is better when higher."""
    script = iter(scores)
    constant = {"loss": 0.5, "metric": 0.5}

    def scripted(*args):
        return constant | {monitor: float(next(script)) * (-1 if monitor == "metric" else 1)}

    monkeypatch.setattr(mlpjax.loop, "evaluate_checked", scripted)
    run = functools.partial(fit_small, valid_data=SEVEN)
    result = run(epochs=len(scores), patience=patience, monitor=monitor)
    assert result.history["epoch"] == list(range(1, epochs + 1))
    assert result.epoch == best
    early = epochs < len(scores) or epochs - best >= patience
    assert result.stop_reason == ("early stopping" if early else "finished")
    if early:
        assert f"after epoch {epochs}" in result.message
        assert f"those of epoch {best}" in result.message
    chex.assert_trees_all_equal(result.params, fit_small(epochs=best).params)
    assert int(result.opt_state[0].count) == 3 * epochs


@pytest.mark.parametrize("head", ["multiclass", "regression"])
@pytest.mark.parametrize("monitor", ["loss", "metric"])
def test_result_is_the_best_epoch(head, monitor):
    """Of a run that overfits: the parameters are those whose validation value is the best of the history."""
    config = SMALL if head == "multiclass" else Config(sizes=(2, 4, 3), activation="tanh", head="regression")
    train, valid = SEVEN, classes(40, seed=1)
    if head == "regression":
        train, valid = (data._replace(y=np.eye(3)[data.y]) for data in (train, valid))
    result = fit(config, ADAM, train, epochs=60, batch_size=3, key=KEY, valid_data=valid, patience=5, monitor=monitor)
    column = result.history[f"valid_{monitor}"]
    best = max(column) if (head, monitor) == ("multiclass", "metric") else min(column)
    assert result.stop_reason == "early stopping"
    assert result.epoch == column.index(best) + 1 == len(column) - 5
    assert evaluate(config, result.params, result.state, valid)[monitor] == best


# --- optimisers


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(optax.cosine_decay_schedule(0.3, 6), momentum=0.9, nesterov=True),
        optax.chain(optax.clip_by_global_norm(0.1), optax.adam(optax.linear_schedule(0.1, 0.0, 6))),
        optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    ],
    ids=["sgd_schedule", "clip_adam", "multi_steps"],
)
def test_optimisers_of_optax(x64, optimizer):
    result = fit(LINE, optimizer, line(7), epochs=2, batch_size=3, key=KEY)
    _, (params, _, opt_state) = plain_loop(LINE, optimizer, line(7), epochs=2, batch_size=3, key=KEY)
    chex.assert_trees_all_close((result.params, result.opt_state), (params, opt_state), rtol=1e-11, atol=1e-14)


def test_multi_steps_object():
    multi = optax.MultiSteps(SGD, 2)
    as_object, as_transformation = (
        fit(LINE, optimizer, line(7), epochs=2, batch_size=3, key=KEY)
        for optimizer in (multi, multi.gradient_transformation())
    )
    chex.assert_trees_all_equal(as_object.params, as_transformation.params)


def test_lbfgs_solves_least_squares(x64):
    data = line(7)
    result = fit(LINE, optax.lbfgs(memory_size=3), data, epochs=8, batch_size=7, key=KEY)
    np.testing.assert_allclose(result.params[0].W[:, 0], np.linalg.lstsq(data.x, data.y)[0], rtol=1e-9)


def test_plateau_lowers_the_rate():
    """Nothing improves at rate 0, so after 2 epochs without improvement the scale is halved, and again."""
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=2, cooldown=0)
    result = fit(LINE, optax.chain(optax.sgd(0.0), plateau), line(4), epochs=8, batch_size=4, key=KEY)
    assert float(result.opt_state[1].scale) < 0.3


# --- divergence


class Bomb(NamedTuple):
    """The state of an optimiser that adds ``size`` to the first layer at update ``at``, and is sgd otherwise."""

    count: Any
    at: Any
    size: Any


def _bomb_update(grads, state, params=None):
    shift = jnp.where(state.count == state.at, state.size, 0.0)
    updates = jax.tree.map(lambda grad: -0.01 * grad, grads)
    first = updates[0]._replace(W=updates[0].W + shift)
    return (first, *updates[1:]), state._replace(count=state.count + 1)


BOMB = optax.GradientTransformation(lambda params: Bomb(jnp.int32(0), jnp.int32(-1), jnp.float32(0)), _bomb_update)
POSITIVE = Batch(np.linspace(0.5, 1.5, 26).reshape(13, 2), np.linspace(0.0, 1.0, 13))
FRAGILE = Config(sizes=(2, 4, 1), activation="relu", head="regression")
HUGE, INFINITE, HIDDEN = 1e30, np.inf, -np.inf
"""HUGE parameters are finite and the next loss is not; HIDDEN ones are −∞, which relu turns into a finite loss."""


def diverging(at, size, **options):
    bomb = Bomb(jnp.int32(0), jnp.int32(at), jnp.float32(size))
    return fit(FRAGILE, BOMB, POSITIVE, epochs=3, batch_size=2, key=KEY, opt_state=bomb, **options)


@pytest.mark.parametrize("length", LENGTHS)
def test_divergence_goes_back(monkeypatch, length):
    """The parameters that update ``at`` broke are undone, and those before it had a finite loss.

    So the parameters returned are those after ``at`` updates, wherever chunks and epochs (of 7 steps) end.
    """
    set_chunk(monkeypatch, FRAGILE, 2, length)
    records, _ = plain_loop(FRAGILE, optax.sgd(0.01), POSITIVE, epochs=3, batch_size=2, key=KEY)
    for size in (HUGE, INFINITE, HIDDEN):
        for at in range(20):
            result = diverging(at, size)
            epoch, step = divmod(at + 1, 7)
            assert result.stop_reason == "diverged"
            assert result.diverged_at == (epoch + 1, step + 1), (size, at)
            assert f"epoch {epoch + 1}, step {step + 1} of 7" in result.message
            chex.assert_trees_all_close(result.params, records[at].params, rtol=1e-5, atol=1e-7)
            assert int(result.opt_state.count) == at
            # an epoch is recorded if it ended with finite parameters
            full = at // 7 if size != HUGE else (at + 1) // 7
            assert result.history.get("epoch", []) == list(range(1, full + 1))


@pytest.mark.parametrize("length", [3, 7])
def test_divergence_in_the_very_last_step(monkeypatch, length):
    set_chunk(monkeypatch, FRAGILE, 2, length)
    result = diverging(20, INFINITE)
    assert (result.stop_reason, result.diverged_at) == ("diverged", (3, 7))
    assert int(result.opt_state.count) == 20
    assert np.isfinite(result.params[0].W).all()
    # no loss was seen that is not finite, and the parameters are finite
    assert diverging(20, HUGE).stop_reason == "finished"


def test_divergence_under_early_stopping():
    """The best epoch is returned, unless its validation loss was not finite either."""
    records, _ = plain_loop(FRAGILE, optax.sgd(0.01), POSITIVE, epochs=2, batch_size=2, key=KEY)
    for at, size, after, epoch, words in (
        (10, INFINITE, 7, 1, "the parameters are those of epoch 1"),
        (6, HUGE, 6, 1, "the parameters are the last ones with a finite loss"),
    ):
        result = diverging(at, size, valid_data=POSITIVE, patience=3)
        assert (result.stop_reason, result.epoch) == ("diverged", epoch)
        assert words in result.message
        chex.assert_trees_all_close(result.params, records[after].params, rtol=1e-5, atol=1e-7)


def test_divergence_from_the_start():
    params, _ = mlpjax.init(FRAGILE, KEY)
    broken = (params[0]._replace(W=params[0].W * np.nan), params[1])
    result = diverging(-1, 0.0, params=broken)
    assert (result.stop_reason, result.diverged_at) == ("diverged", (1, 1))
    assert result.history == {}


@pytest.mark.parametrize("length", [1, 3, 7])
def test_huge_learning_rate(monkeypatch, length):
    set_chunk(monkeypatch, FRAGILE, 2, length)
    optimizer = optax.sgd(50.0)
    result = fit(FRAGILE, optimizer, POSITIVE, epochs=3, batch_size=2, key=KEY)
    records, _ = plain_loop(FRAGILE, optimizer, POSITIVE, epochs=3, batch_size=2, key=KEY)
    first_bad = next(i for i, r in enumerate(records) if not np.isfinite(r.aux.data_loss))
    assert result.diverged_at == (first_bad // 7 + 1, first_bad % 7 + 1)
    chex.assert_trees_all_close(result.params, records[first_bad - 1].params, rtol=1e-4)
    chex.assert_tree_all_finite(result.params)


@pytest.mark.parametrize("length", [1, 7])
def test_statistics_that_overflow(monkeypatch, length):
    """The variance of 1e25 is ∞, which batch-norm turns into outputs of 0 and a finite loss."""
    config = Config(sizes=(2, 4, 1), head="regression", batch_norm=True)
    set_chunk(monkeypatch, config, 2, length)
    data = POSITIVE._replace(x=POSITIVE.x * 1e25)
    result = fit(config, SGD, data, epochs=2, batch_size=2, key=KEY)
    assert (result.stop_reason, result.diverged_at) == ("diverged", (1, 2))
    chex.assert_trees_all_equal(result[:2], mlpjax.init(config, KEY))


# --- callbacks, Ctrl-C, threads


@pytest.fixture
def steps_of_one(monkeypatch):
    set_chunk(monkeypatch, SMALL, 3, 1)


def test_progress(steps_of_one):
    seen = []
    result = fit_small(epochs=2, callback=seen.append)
    assert [(p.epoch, p.epochs, p.step, p.steps) for p in seen] == [(e, 2, s, 3) for e in (1, 2) for s in (1, 2, 3)]
    assert [p.record and p.record["epoch"] for p in seen] == [None, None, 1, None, None, 2]
    losses = np.reshape([p.loss for p in seen], (2, 3))
    np.testing.assert_allclose(losses @ [3, 3, 1] / 7, result.history["train_loss"], rtol=1e-6)


@pytest.mark.parametrize(("at", "where"), [(2, "during epoch 1"), (3, "after epoch 1"), (4, "during epoch 2")])
@pytest.mark.parametrize("by", ["callback", "interrupted"])
def test_stops_after_the_chunk(steps_of_one, by, at, where):
    seen = []

    def callback(progress):
        seen.append(progress)
        if len(seen) < at:
            return False
        if by == "callback":
            return True
        return os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    result = fit_small(epochs=3, callback=callback)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (result.stop_reason, len(seen)) == (by, at)
    assert where in result.message
    assert result.epoch == seen[-1].epoch
    assert len(result.history.get("epoch", [])) == at // 3
    assert int(result.opt_state[0].count) == at
    records, _ = plain_loop(SMALL, ADAM, SEVEN, epochs=2, batch_size=3, key=KEY)
    chex.assert_trees_all_close(result.params, records[at].params, rtol=1e-5, atol=1e-6)


def test_second_interrupt_raises():
    def callback(progress):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit_small(epochs=3, callback=callback)
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_error_of_the_callback_restores_the_handler():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        fit_small(epochs=1, callback=lambda progress: 1 / 0)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_of_the_caller_stays():
    caught = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        result = fit_small(epochs=2, callback=lambda progress: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught == [signal.SIGINT] * 2
    assert result.stop_reason == "finished"


def test_in_a_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(fit_small(epochs=2)))
    thread.start()
    thread.join()
    chex.assert_trees_all_equal(results[0].params, fit_small(epochs=2).params)


# --- bad input

X, Y, _ = SEVEN


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD_DATA = {
    "x_1d": (Batch(X[:, 0], Y), r"train_data: x has shape \(7,\): expected \(m, 2\)"),
    "x_columns": (Batch(np.ones((7, 3)), Y), r"x has shape \(7, 3\): expected \(m, 2\)"),
    "x_complex": (Batch(X * 1j, Y), "x has dtype complex128: expected real numbers"),
    "x_text": (Batch(np.full((7, 2), "a"), Y), "expected real numbers"),
    "x_nan": (Batch(with_value(X, (4, 1), np.nan), Y), "train_data: x: row 4, column 1 .* is nan"),
    "x_infinite": (Batch(with_value(X, (0, 0), -np.inf), Y), "row 0, column 0 .* is -inf"),
    "x_too_large": (Batch(with_value(X, (5, 0), 1e39), Y), "row 5, column 0 .* is 1e"),
    "rows": (Batch(X, Y[:6]), "x has 7 rows and y has 6"),
    "empty": (Batch(X[:0], Y[:0]), "train_data: x has no rows: expected at least one example"),
    "y_shape": (Batch(X, np.eye(4)[Y]), r"y has shape \(7, 4\): head 'multiclass' with 3 outputs expects"),
    "y_float": (Batch(X, Y.astype(float)), "must be integers 0 to 2"),
    "y_text": (Batch(X, np.array(list("abcabca"))), "encode labels as integers"),
    "y_large": (Batch(X, with_value(Y, 2, 3)), "train_data: y has a label outside the classes: 3 in row 2"),
    "y_negative": (Batch(X, with_value(Y, 6, -1)), "outside the classes: -1 in row 6"),
    "y_soft": (Batch(X, with_value(np.eye(3)[Y], (1, 1), 0.4)), "row 1 of y sums to 0.4"),
    "weight_shape": (Batch(X, Y, np.ones((7, 1))), r"weight has shape \(7, 1\): expected \(7,\)"),
    "weight_negative": (Batch(X, Y, with_value(np.ones(7), 3, -2)), "train_data: weight is -2.0 in row 3"),
    "weight_nan": (Batch(X, Y, with_value(np.ones(7), 0, np.nan)), "weight is nan in row 0"),
}
BAD_OPTIONS = {
    "epochs_0": ({"epochs": 0}, "epochs is 0: expected an integer ≥ 1"),
    "epochs_float": ({"epochs": 2.0}, "epochs is 2.0: expected an integer"),
    "batch_size_0": ({"batch_size": 0}, "batch_size is 0: expected an integer"),
    "batch_size_float": ({"batch_size": 32.0}, "batch_size is 32.0: expected an integer"),
    "batch_size_bool": ({"batch_size": True}, "batch_size is True: expected an integer"),
    "monitor": ({"monitor": "accuracy"}, "monitor is 'accuracy': expected 'loss' or 'metric'"),
    "patience_0": ({"patience": 0, "valid_data": SEVEN}, "patience is 0"),
    "patience_alone": ({"patience": 3}, "give valid_data"),
    "valid_data": ({"valid_data": Batch(X, Y + 1)}, "valid_data: y has a label outside the classes: 3 in row 2"),
    "class_weight_name": ({"class_weight": "equal"}, "class_weight is 'equal': expected 'balanced'"),
    "class_weight_length": ({"class_weight": [1.0, 2.0]}, "expected 3 finite numbers ≥ 0, one per class"),
    "class_weight_negative": ({"class_weight": [1.0, -2.0, 1.0]}, "expected 3 finite numbers"),
    "class_weight_nan": ({"class_weight": [1.0, NAN, 1.0]}, "expected 3 finite numbers"),
    "params": ({"params": mlpjax.init(Config(sizes=(2, 5, 3)), KEY)[0]}, r"params have weights of shapes \(\(2, 5\)"),
    "state": ({"state": mlpjax.init(Config(sizes=(2, 4, 3), batch_norm=True), KEY)[1]}, "state has 1 records"),
}


def never(*args, **options):
    raise AssertionError("something was trained")


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(case):
    data, message = BAD_DATA[case]
    with pytest.raises(mlpjax.InputError, match=message):
        fit(SMALL, ADAM, data, epochs=1, batch_size=3, key=KEY, grad_fn=never)


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case):
    options, message = BAD_OPTIONS[case]
    with pytest.raises(mlpjax.InputError, match=message):
        fit(SMALL, ADAM, SEVEN, **({"epochs": 1, "batch_size": 3, "key": KEY, "callback": never} | options))


def test_class_weight_needs_classes():
    with pytest.raises(mlpjax.InputError, match="give weights in the batch instead"):
        fit(LINE, SGD, line(7), epochs=1, batch_size=3, key=KEY, class_weight="balanced", grad_fn=never)


def test_binary_step_is_refused():
    """It has a forward and a backward pass, but no gradient gets through it."""
    config = Config(sizes=(2, 4, 3), activation="binary_step")
    params, state = mlpjax.init(config, KEY)
    z, _ = mlpjax.forward(config, params, state, X)
    steps = X @ np.asarray(params[0].W) >= 0
    np.testing.assert_allclose(z, steps @ np.asarray(params[1].W), rtol=1e-5)
    _, grads = jax.jit(mlpjax.backward)(config, params, state, SEVEN)
    assert not np.any(grads[0].W)
    assert np.any(grads[1].W)
    with pytest.raises(mlpjax.InputError, match=r"'binary_step' cannot be trained: its derivative is 0 everywhere"):
        fit(config, ADAM, SEVEN, epochs=1, batch_size=3, key=KEY, grad_fn=never)


@pytest.mark.parametrize(
    ("size", "quantity", "late"), [(HUGE, "L", 1), (INFINITE, "update of W", 0), (HIDDEN, "update of W", 0)]
)
def test_debug_nans_names_the_first_number(size, quantity, late):
    """An update that is not finite by its own step; parameters that are, by the next one's loss."""
    records, _ = plain_loop(FRAGILE, optax.sgd(0.01), POSITIVE, epochs=3, batch_size=2, key=KEY)
    result = diverging(9, size, debug_nans=True)
    fault = result.faulty_step.fault
    epoch, step = divmod(9 + late, 7)
    assert (fault.quantity, fault.at) == (quantity, (epoch + 1, step + 1))
    assert (result.stop_reason, result.diverged_at) == ("diverged", fault.at)
    assert result.message == f"{fault}; the parameters are the last ones with a finite loss"
    chex.assert_trees_all_close(result.params, records[9].params, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(result.faulty_step.train_state.params[1], records[9 + late].params[1], rtol=1e-5)


def test_debug_nans_of_a_finite_run():
    result = diverging(99, HUGE, debug_nans=True)
    assert (result.stop_reason, result.faulty_step) == ("finished", None)
    plain = diverging(99, HUGE)
    assert plain.faulty_step is None
    chex.assert_trees_all_close(result.params, plain.params, rtol=1e-6, atol=1e-8)
