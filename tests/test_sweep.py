"""The search: its points, its ranking, and that each of its networks is what `fit` makes of it alone."""

import itertools
import math
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax.sweep_points
from mlpjax import Batch, Config, fit, search
from mlpjax.errors import ConfigError, InputError
from mlpjax.optim import OPTIMIZERS, SCHEDULES, make_optimizer
from mlpjax.sweep import Run, Trial, draw, grid, rank
from mlpjax.sweep_points import groups_of, read_points

KEYS = jax.random.split(jax.random.key(3), 2)
ORDER = jax.random.key(5)


def classes(m, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(m) % 3
    return Batch(2 * np.eye(3, 2)[y] + rng.normal(size=(m, 2)), y)


TRAIN, VALID = classes(13, 0), classes(9, 1)
POINT = {"sizes": (2, 4, 3), "activation": "tanh", "batch_size": 4, "lr": 0.05}


# --- points --------------------------------------------------------------------------------------------------


def test_a_grid_has_every_combination_once():
    axes = {"sizes": [(2, 3), (2, 4, 3)], "lr": [0.1, 0.2, 0.3], "optimizer": ["adam", "sgd"]}
    points = grid(axes)
    assert len(points) == len({repr(point) for point in points}) == 12
    assert [point["optimizer"] for point in points[:3]] == ["adam", "sgd", "adam"]
    assert all(point[name] in axes[name] for point in points for name in axes)
    assert grid({}) == [{}]


AXES = {
    "lr": [1e-4, 0.5, 1e-1],
    "l2": [0, 1e-6, 1e-2],
    "weight_decay": [None, 1e-3],
    "dropout": [0.0, 0.1, 0.5],
    "batch_size": [16, 64],
    "sizes": [(2, 3), (2, 4, 3)],
}


def test_draws_stay_in_their_ranges_and_are_spread_over_them():
    points = draw(AXES, 2000, np.random.default_rng(0))
    assert len({repr(point) for point in points}) == 2000
    columns = {name: [point[name] for point in points] for name in AXES}
    rates = np.array(columns["lr"])
    assert ((rates >= 1e-4) & (rates <= 0.5)).all()
    # the middle of a log-uniform draw is the geometric mean
    assert math.log(np.median(rates)) == pytest.approx(math.log(math.sqrt(1e-4 * 0.5)), abs=0.3)
    assert all(rate == float(f"{rate:.4g}") for rate in columns["lr"])
    for name, low, high in (("l2", 1e-6, 1e-2), ("dropout", 0.1, 0.5)):
        values = np.array(columns[name])
        assert np.mean(values == 0) == pytest.approx(1 / 3, abs=0.05)
        assert ((values == 0) | ((values >= low) & (values <= high))).all()
    dropped = np.array(columns["dropout"])
    assert np.mean(dropped[dropped > 0]) == pytest.approx(0.3, abs=0.02)
    for name in ("weight_decay", "batch_size", "sizes"):
        values = [repr(value) for value in columns[name]]
        assert {value: values.count(value) / 2000 for value in set(values)} == {
            repr(value): pytest.approx(0.5, abs=0.05) for value in AXES[name]
        }


def test_the_same_seed_draws_the_same_points():
    a, b, c = (draw(AXES, 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert a == b != c
    assert draw({"lr": np.array([0.1, 0.1000001])}, 1, np.random.default_rng(0)) == [{"lr": 0.1}]


def test_all_of_a_finite_set_can_be_drawn_and_no_more():
    axes = {"batch_size": [1, 2, 3], "schedule": ["cosine", "linear"]}
    rng = np.random.default_rng(0)
    assert sorted(map(repr, draw(axes, 6, rng))) == sorted(map(repr, grid(axes)))
    with pytest.raises(InputError, match="700 draws gave 6 points, not 7"):
        draw(axes, 7, rng)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"lr": []}, "the axis 'lr' is .*: expected a list"),
        ({"lr": 0.1}, "the axis 'lr' is 0.1: expected a list"),
        ({"activation": "relu"}, "the axis 'activation' is 'relu'"),
        ({"lr": [0.1, 0.2, 0.1]}, "the axis 'lr' has 0.1 twice"),
    ],
)
def test_axes_that_are_none(axes, message):
    for points in (lambda: grid(axes), lambda: draw(axes, 1, np.random.default_rng(0))):
        with pytest.raises(InputError, match=message):
            points()


# --- ranking -------------------------------------------------------------------------------------------------


def trial(number, *runs, head="multiclass"):
    """Runs are (loss, metric) or (loss, metric, stop reason)."""
    whole = tuple(Run(1, loss, metric, *(reason or ["finished"]), "m") for loss, metric, *reason in runs)
    return Trial(number, {}, Config(sizes=(2, 3), head=head), whole)


def test_trials_are_ranked_by_their_means_then_the_loss_then_the_order():
    trials = [trial(0, (0.4, 0.5), (0.2, 0.9)), trial(1, (0.2, 0.7)), trial(2, (0.1, 0.6)), trial(3, (0.2, 0.7))]
    for order in itertools.permutations(trials):
        assert [t.number for t in rank(order)] == [2, 1, 3, 0]
        assert [t.number for t in rank(order, "metric")] == [1, 3, 0, 2]
    squares = [trial(0, (1.0, 0.3), head="regression"), trial(1, (2.0, 0.2), head="regression")]
    assert [t.number for t in rank(squares, "metric")] == [1, 0], "a squared error is better when it is lower"
    assert trials[0].mean("loss") == pytest.approx(0.3)
    assert trials[0].spread("loss") == pytest.approx(math.sqrt(0.02))
    assert math.isnan(trials[1].spread("loss"))
    assert [trials[0].best_run(monitor) for monitor in ("loss", "metric")] == [1, 1]
    with pytest.raises(ConfigError, match="monitor is 'accuracy': expected 'loss' or 'metric'"):
        rank(trials, "accuracy")


def test_what_has_no_rank_comes_last_with_the_reason():
    nan = math.nan
    trials = [
        trial(0, (0.1, 0.9), (0.1, 0.9, "diverged")),
        trial(1, (nan, nan, "interrupted")),
        trial(2, (math.inf, 0.5)),
        trial(3, (0.9, 0.1, "interrupted")),
        trial(4, (0.1, 0.9, "diverged")),
    ]
    assert [t.number for t in rank(trials)] == [3, 0, 4, 1, 2]
    problems = ["1 of 2 diverged", "m", "a validation value is not finite", "", "diverged"]
    assert [t.problem for t in trials] == problems


# --- optimisers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "schedule"), list(zip(OPTIMIZERS, itertools.cycle(SCHEDULES), strict=False)))
def test_a_traced_optimiser_is_that_of_make_optimizer(x64, name, schedule):
    settings = {"schedule": schedule, "clip": 0.5, "weight_decay": 0.1, "proximal_l1": 0.01}
    point = {"sizes": (2, 3), "optimizer": name, "lr": 0.1, "batch_size": 4, "convention": None, **settings}
    [setting] = read_points([point], m=13, epochs=2)
    params = {"W": jnp.ones((2, 2)), "b": jnp.ones(2)}
    grads = {"W": jnp.array([[1.0, -2.0], [0.1, 0.0]]), "b": jnp.array([3.0, 0.2])}

    def steps(optimizer):
        now, state = params, optimizer.init(params)
        for _ in range(8):
            updates, state = optimizer.update(grads, state, now)
            now = optax.apply_updates(now, updates)
        return now

    got = jax.jit(lambda numbers: steps(setting.rule(numbers)))(setting.numbers)
    expected = steps(make_optimizer(name, 0.1, steps=8, **settings))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


# --- training ------------------------------------------------------------------------------------------------


def alone(point, key, epochs=4):
    """What `fit` makes of a point; each keeps its best epoch."""
    fields = {name: value for name, value in point.items() if name not in ("lr", "batch_size") and value != 0}
    return fit(
        Config(**fields),
        optax.adam(point["lr"]),
        TRAIN,
        epochs=epochs,
        batch_size=point["batch_size"],
        key=key,
        valid_data=VALID,
        patience=epochs,
    )


def test_every_network_is_that_of_fit(x64):
    points = [
        POINT | {"l2": l2, "dropout": dropout, "lr": lr}
        for l2, dropout, lr in ((0, 0, 0.05), (0.1, 0.3, 0.05), (0, 0.3, 1e-5), (0.1, 0, 0.01))
    ]
    seen = []
    found = search(points, TRAIN, VALID, epochs=4, keys=KEYS, callback=lambda p: seen.append(p[:6]))
    assert seen[:2] == [(1, 1, 0, 4, 8, 8), (1, 1, 1, 4, 8, 8)], "one group: rates of 0 are numbers like others"
    assert {t.number: t.point for t in found.trials} == dict(enumerate(points))
    by_number = sorted(found.trials)
    results = {(number, r): alone(points[number], KEYS[r]) for number, r in ((0, 0), (0, 1), (1, 1))}
    for (number, r), expected in results.items():
        run = by_number[number].runs[r]
        assert (run.epoch, run.stop_reason) == (expected.epoch, "finished")
        assert run.loss == pytest.approx(min(expected.history["valid_loss"]), rel=1e-9)
        assert run.metric == expected.history["valid_metric"][run.epoch - 1]
    best = found.trials[0]
    assert (best.number, best.config.dropout, best.config.l2) == (0, None, None)
    assert best.mean("loss") == min(t.mean("loss") for t in found.trials)
    expected = results[0, found.best_key]
    for a, b in zip(jax.tree.leaves(found.result.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_shapes_rules_and_batch_sizes_train_in_groups(monkeypatch):
    axes = {"sizes": [(2, 3), (2, 4, 3)], "optimizer": ["adam", "sgd"], "batch_size": [4, 13], "lr": [0.01, 0.1]}
    settings = read_points(grid(axes), m=13, epochs=1)
    groups = groups_of(settings, 1, None)
    assert [[setting.number for setting in group] for group in groups] == [[2 * i, 2 * i + 1] for i in range(8)]
    settings = read_points(grid({"sizes": [(2, 3)], "lr": [0.1 * i for i in range(1, 8)]}), m=13, epochs=1)
    monkeypatch.setattr(mlpjax.sweep_points, "MOST_AT_ONCE", 7)
    assert [len(group) for group in groups_of(settings, 2, None)] == [3, 2, 2], "of 6, 4 and 4 networks"
    monkeypatch.setattr(mlpjax.population_memory, "device_bytes", lambda: None)
    assert [len(group) for group in groups_of(settings, 9, None)] == [1] * 7, "the keys of a point stay together"


RATES = [POINT | {"lr": lr} for lr in (0.01, 0.1, 0.03)]


@pytest.mark.slow
def test_what_does_not_fit_goes_in_parts_with_the_same_result():
    whole = search(RATES, TRAIN, VALID, epochs=2, keys=KEYS, order_key=ORDER)
    seen = []
    parts = search(RATES, TRAIN, VALID, epochs=2, keys=KEYS, order_key=ORDER, memory=1, callback=seen.append)
    assert max(p.group for p in seen) == seen[0].groups == 3
    assert [t.number for t in parts.trials] == [t.number for t in whole.trials]
    for a, b in zip(parts.trials, whole.trials, strict=True):
        assert a.mean("loss") == pytest.approx(b.mean("loss"), rel=1e-5)
    assert parts.best_key == whole.best_key
    for a, b in zip(jax.tree.leaves(parts.result.params), jax.tree.leaves(whole.result.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        assert a.base is None, "of the other networks nothing stays in memory"


def test_networks_that_diverge_are_ranked_last():
    points = [POINT | {"lr": lr} for lr in (1e38, 0.01)]
    found = search(points, TRAIN, VALID, epochs=2, keys=KEYS, order_key=ORDER, memory=1)
    assert [t.number for t in found.trials] == [1, 0]
    assert found.trials[1].problem == "2 of 2 diverged"
    assert found.trials[1].runs[0].message.startswith("the loss stopped being finite at epoch 1")
    nothing = search(points[:1], TRAIN, VALID, epochs=2, keys=KEYS, order_key=ORDER, memory=1)
    assert nothing.result is None


def test_ctrl_c_ends_with_what_is_there():
    def press(progress):
        if (progress.group, progress.epoch) == (2, 1):
            signal.raise_signal(signal.SIGINT)

    found = search(RATES, TRAIN, VALID, epochs=2, keys=KEYS, order_key=ORDER, memory=1, callback=press)
    assert found.interrupted
    by_number = sorted(found.trials)
    assert [t.number for t in by_number] == [0, 1]
    assert [[run.stop_reason for run in t.runs] for t in by_number] == [["finished"] * 2, ["interrupted"] * 2]
    assert by_number[1].problem == "interrupted before epoch 1"
    assert found.trials[0].number == 0
    assert found.result.params[0].W.shape == (2, 4)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "points is empty: expected one or more"),
        ([POINT | {"learning_rate": 1}], "unknown name in a point 'learning_rate': "),
        ([POINT | {"lr": -1.0}], "learning rate is -1.0: expected a finite number > 0"),
        ([POINT | {"optimizer": "adm"}], "unknown optimizer 'adm': did you mean 'adam'"),
        ([POINT | {"schedule": "step"}], "unknown schedule 'step'"),
        ([POINT | {"batch_size": 0}], "batch_size is 0"),
        ([POINT | {"activation": "rleu"}], "unknown activation 'rleu'"),
        ([POINT, POINT | {"activation": "binary_step"}], "'binary_step' cannot be trained"),
        ([POINT | {"l1": 0.1, "proximal_l1": 0.1}], "L1 penalty is given twice"),
    ],
)
def test_points_that_are_none(points, message):
    with pytest.raises(InputError, match=message):
        search(points, TRAIN, VALID, epochs=1, keys=KEYS)


def test_arguments_that_are_none():
    with pytest.raises(InputError, match="keys is a single key"):
        search([POINT], TRAIN, VALID, epochs=1, keys=KEYS[0])
    with pytest.raises(InputError, match="epochs is 0"):
        search([POINT], TRAIN, VALID, epochs=0, keys=KEYS)
    two = read_points([POINT | {"l1": 0.1}, POINT | {"proximal_l1": 0.1}], m=13, epochs=1)
    assert [(setting.trained.l1, setting.numbers.get("proximal_l1")) for setting in two] == [(0.1, None), (None, 0.1)]
