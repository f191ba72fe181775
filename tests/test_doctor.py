"""The doctor: every verdict fires where its cause is made, and not where it is not; and nothing else does."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config, ConfigError, DataError, InputError
from mlpjax.doctor import examine
from mlpjax.doctor_command import doctor
from mlpjax.doctor_runs import batch_norm_verdict, overfitting_verdict, rate_verdicts, scaled
from mlpjax.doctor_verdicts import EXPLAINED_BY, LIMITS, Examination, explain, judge, remark
from mlpjax.options import TrainOptions
from mlpjax.preparing import network_config, prepare
from mlpjax.toys import circle, gauss

KEY = jax.random.key(0)
RING = Config(sizes=(2, 16, 1), activation="tanh", head="binary")
STEP = dataclasses.replace(RING, activation="binary_step")


def levels(verdicts):
    return {verdict.name: verdict.level for verdict in verdicts}


def bad(verdicts):
    return {verdict.name for verdict in verdicts if verdict.level != "fine"}


def ring(**fields):
    x, y = circle(200)
    batch = Batch(fields.pop("x", x), fields.pop("y", y))
    config = dataclasses.replace(RING, **fields.pop("config", {}))
    optimizer = fields.pop("optimizer", optax.adam(0.02))
    return examine(config, optimizer, batch, **{"batch_size": 25, "key": KEY, **fields})


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_every_limit_has_a_reason_and_an_order():
    assert set(EXPLAINED_BY) <= set(LIMITS)
    assert all(set(causes) <= set(LIMITS) for causes in EXPLAINED_BY.values())
    assert all(name not in causes for name, causes in EXPLAINED_BY.items())
    assert all(limits.reason and limits.warning != limits.ill for limits in LIMITS.values())


@pytest.mark.parametrize(
    ("name", "value", "level", "threshold"),
    [
        ("imbalance", 9.99, "fine", 10),
        ("imbalance", 10, "warning", 10),
        ("imbalance", 30, "ill", 30),
        ("imbalance", np.nan, "ill", 30),
        ("labels", 4.01, "fine", 4),
        ("labels", 4, "warning", 4),
        ("labels", 3, "ill", 3),
        ("labels", -np.inf, "ill", 3),
    ],
)
def test_limits_in_both_directions(name, value, level, threshold):
    verdict = judge(name, value, "seen", "do")
    assert (verdict.level, verdict.threshold) == (level, threshold)
    assert verdict.advice == ("" if level == "fine" else "do")


def test_consequences_name_their_causes():
    scale = judge("start_scale", 20.0, "large", "smaller")
    loss = judge("start_loss", 20.0, "high", "lower")
    fine = judge("inputs_large", 1.0, "as it should be", "")
    found = Examination(explain([fine, loss, scale]))
    assert [verdict.explained_by for verdict in found.verdicts] == [(), ("start_scale",), ()]
    assert found.causes == (scale,)
    assert [verdict.name for verdict in found.ordered] == ["start_scale", "start_loss", "inputs_large"]
    assert [remark(verdict) for verdict in found.ordered] == ["large; smaller", "high; see start_scale", fine.evidence]
    assert str(found).splitlines()[0] == "2 of 3 measures: ill 2, warning 0"
    assert json.loads(json.dumps(found.to_dict()))["causes"] == ["start_scale"]


# --- short runs ------------------------------------------------------------------------------------------------------


def test_rates():
    assert bad(rate_verdicts(np.inf, {0.1: 0.2, 10.0: np.inf}, 1.0, moved=0.01, best=0.2)) == {"rate_high"}
    assert bad(rate_verdicts(0.1, {0.1: 0.2, 10.0: 0.3}, 1.0, moved=2.0, best=0.1)) == {"rate_high"}
    assert bad(rate_verdicts(0.99, {0.1: 1.0, 10.0: 0.1}, 1.0, moved=1e-5, best=0.1)) == {"rate_low"}
    assert not bad(rate_verdicts(0.3, {0.1: 0.8, 10.0: 0.1}, 1.0, moved=0.01, best=0.1))
    # what reaches less than half of the best fall is no cure
    assert not bad(rate_verdicts(1.0, {0.1: 0.6, 10.0: 1.0}, 1.0, moved=0.01, best=0.1))
    # where no rate gets anywhere, rates are not to blame
    assert not bad(rate_verdicts(1.0, {0.1: 1.0, 10.0: 0.99}, 1.0, moved=0.01, best=0.99))


def test_running_statistics_and_validation():
    assert batch_norm_verdict(0.1, 0.12, 0.7).level == "fine"
    assert batch_norm_verdict(0.1, 0.9, 0.7).level == "ill"
    assert overfitting_verdict(0.1, 0.3, 0.7).level == "fine"
    assert overfitting_verdict(0.1, 1.5, 0.7).level == "ill"


def test_scaled_optimizer():
    """Adam's steps are proportional to the rate: a factor is another rate, over several steps."""
    params = jnp.array([1.0, -2.0])
    twice, direct = scaled(optax.adam(0.1)), optax.adam(0.2)
    state, other = twice.init(params)._replace(factor=jnp.array(2.0)), direct.init(params)
    for grads in ([1.0, 2.0], [-0.5, 0.1]):
        step, state = twice.update(jnp.array(grads), state, params)
        expected, other = direct.update(jnp.array(grads), other, params)
        np.testing.assert_allclose(step, expected, rtol=1e-6)


# --- whole examinations ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy():
    return ring(valid_data=Batch(*circle(80, seed=1)), config={"dropout": 0.1, "l2": 1e-5})


def test_healthy(healthy):
    assert healthy.causes == ()
    assert bad(healthy.verdicts) == set(), str(healthy)
    assert {"penalty", "dropout", "leak", "overfitting", "labels", "saturation"} <= set(levels(healthy.verdicts))
    assert not {"targets", "batch_norm", "gradient"} & set(levels(healthy.verdicts))


@pytest.mark.slow
def test_the_same_key_gives_the_same_verdicts(healthy):
    assert ring(valid_data=Batch(*circle(80, seed=1)), config={"dropout": 0.1, "l2": 1e-5}) == healthy


def test_sick_runs():
    assert [verdict.name for verdict in ring(optimizer=optax.adam(1e-5)).causes] == ["rate_low"]
    assert [verdict.name for verdict in ring(config={"l2": 1.0}).causes] == ["penalty"]


@pytest.mark.slow
def test_command(tmp_path, capsys):
    """A table on stdout, what is to be changed below it, and all of it as JSON; the exit code is that of success."""
    options = TrainOptions(data="gauss", hidden=(4,), lr=30.0, json=tmp_path / "r.json", dropout=(0.0,))
    data = prepare(options)
    config = network_config(options, data.dataset)
    assert doctor(options, data, config, optax.sgd(options.lr), mlpjax.backward, 0.0) == 0
    out, err = capsys.readouterr()
    assert "evidence and advice" in out
    assert out.splitlines()[-1].startswith("to be changed: rate_high")
    assert err.startswith("gauss: binary of 2 classes, 400 train, 100 test; network 2-4-1; examining")
    report = json.loads(options.json.read_text(encoding="utf-8"))
    assert report["doctor"]["causes"][0] == "rate_high"
    assert {verdict["level"] for verdict in report["doctor"]["verdicts"]} <= {"fine", "warning", "ill"}


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (InputError, "train_data is of type tuple: expected mlpjax.Batch", {"train_data": (1, 2)}),
        (DataError, "all weights are 0", {"train_data": Batch(*gauss(20), np.zeros(20))}),
        (DataError, "train_data: x has shape", {"train_data": Batch(np.ones((4, 3)), np.zeros(4))}),
        (DataError, "valid_data: x has shape", {"valid_data": Batch(np.ones((4, 3)), np.zeros(4))}),
        (ConfigError, "epochs is 0", {"epochs": 0}),
        (ConfigError, "batch_size is 0", {"batch_size": 0}),
        (ConfigError, "'binary_step' cannot be trained", {"config": STEP}),
        (InputError, "key is 0", {"key": 0}),
        (ConfigError, "class_weight is 'even'", {"class_weight": "even"}),
    ],
)  # fmt: skip
def test_errors(error, message, arguments):
    usual = {"config": RING, "optimizer": optax.sgd(0.1), "train_data": Batch(*gauss(20)), "batch_size": 5, "key": KEY}
    with pytest.raises(error, match=message):
        examine(**{**usual, **arguments})
