"""What the doctor measures of data, of a start and of a first step: each fires where it should, and only there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config, Layer
from mlpjax.doctor_data import Sample, constant_loss, data_verdicts, fresh_loss, labels_verdict
from mlpjax.doctor_signals import FirstStep, first_step, loss_by_batches, signals, start_verdicts, step_verdicts
from mlpjax.doctor_verdicts import explain
from mlpjax.faults import FAULTS, faulty
from mlpjax.step import TrainState
from mlpjax.toys import blobs, circle, plane

KEY = jax.random.key(0)
RING = Config(sizes=(2, 16, 1), activation="tanh", head="binary")


def levels(verdicts):
    return {verdict.name: verdict.level for verdict in verdicts}


def bad(verdicts):
    return {verdict.name for verdict in verdicts if verdict.level != "fine"}


def sample(x, y):
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    return Sample(x, y.reshape(len(y), -1), np.ones(len(x)))


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "y", "expected"),
    [
        ("binary", [[1], [0], [0], [0]], 0.25 * np.log(4) + 0.75 * np.log(4 / 3)),
        ("multiclass", [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], np.log(4) - 0.75 * np.log(3)),
        ("multilabel", [[1, 1], [0, 1], [1, 1], [0, 1]], np.log(2)),
        ("regression", [[1], [1], [3], [3]], 0.5),
        ("regression_relu", [[-1], [-1], [-3], [-3]], 2.5),
    ],
)
def test_losses_of_constants(head, y, expected):
    """Entropies and variances, worked by hand."""
    np.testing.assert_allclose(constant_loss(head, sample(np.zeros((4, 1)), y)), expected, rtol=1e-5)


@pytest.mark.parametrize("s", [1.0, 3.0])
def test_losses_of_fresh_networks(s):
    """Of z ~ N(0, s²): by quadrature for the binary head, ½(E[y²] + s²) for regression; s is that of x, or 1."""
    case = sample(np.full((40, 1), s if s > 1 else 0.1), np.arange(40) % 2)
    z, w = np.polynomial.hermite_e.hermegauss(60)
    expected = np.average(np.logaddexp(0, s * z), weights=w)
    np.testing.assert_allclose(fresh_loss("binary", case, [0]), expected, rtol=0.05)
    np.testing.assert_allclose(fresh_loss("regression", case, [0]), (0.5 + s**2) / 2, rtol=0.05)


def test_losses_count_weights():
    case = sample(np.zeros((2, 1)), [0, 4])._replace(weight=np.array([3.0, 1.0]))
    assert constant_loss("regression", case) == pytest.approx((3 * 1 + 9) / 8)


def features(n=8, m=120):
    return np.random.default_rng(0).normal(size=(m, n))


DATA = {
    "inputs_large": lambda x: x * 50,
    "inputs_small": lambda x: x / 1000,
    "inputs_uneven": lambda x: x * np.array([1] * 7 + [1000]),
    "inputs_constant": lambda x: x * np.array([1] * 4 + [0] * 4),
}


@pytest.mark.parametrize("name", DATA)
def test_inputs(name):
    x = features()
    case = sample(DATA[name](x), x[:, 0] > 0)
    assert bad(data_verdicts(RING, case, None, [0])) == {name}


def test_healthy_data():
    x = features()
    assert not bad(data_verdicts(RING, sample(x, x[:, 0] > 0), sample(features(m=40) + 0.1, x[:40, 0] > 0), [0]))


def test_classes_and_copies():
    x = features(m=160)
    rare = sample(x, x[:, 0] > np.sort(x[:, 0])[-5])
    assert levels(data_verdicts(RING, rare, None, [0]))["imbalance"] == "ill"
    weighted = rare._replace(weight=np.where(rare.y[:, 0] > 0, 39.0, 1.0))
    assert levels(data_verdicts(RING, weighted, None, [0]))["imbalance"] == "fine"
    twice = sample(np.tile(x, (2, 1)), np.tile(x[:, 0] > 0, 2))
    assert bad(data_verdicts(RING, twice, sample(x[:9], x[:9, 0] > 0), [0])) == {"duplicates", "leak"}


@pytest.mark.parametrize(
    ("head", "y", "level"),
    [
        ("regression", np.arange(40) % 4, "warning"),
        ("regression", np.arange(40) / 4, "fine"),
        ("regression", np.arange(40), "fine"),
        ("regression", np.eye(4)[np.arange(40) % 4], "ill"),
        ("multilabel", np.eye(4)[np.arange(40) % 4], "ill"),
        ("multilabel", np.eye(4)[np.arange(40) % 4] + np.eye(4)[0] * (np.arange(40) % 4 > 0)[:, None], "fine"),
        ("multiclass", np.eye(4)[np.arange(40) % 4], "fine"),
        ("regression_relu", np.linspace(-1, 1, 40), "ill"),
        ("regression_relu", np.linspace(0, 1, 40), "fine"),
    ],
)
def test_head(head, y, level):
    case = sample(features(m=40), y)
    config = Config(sizes=(8, case.y.shape[1]), head=head)
    assert levels(data_verdicts(config, case, None, [0]))["head"] == level


def test_targets():
    x, y = plane(100)
    config = Config(sizes=(2, 1), head="regression")
    assert not bad(data_verdicts(config, sample(x, y), None, [0]))
    assert bad(data_verdicts(config, sample(x, y + 100), None, [0])) == {"targets"}


@pytest.mark.parametrize("make", [circle, blobs, plane])
def test_labels(make):
    x, y = make(200)
    y = np.eye(5)[y] if make is blobs else y
    assert labels_verdict(sample(x, y), [0]).level == "fine"
    assert labels_verdict(sample(x, np.roll(y, 3, axis=0)), [0]).level == "ill"


# --- the network before it trains ------------------------------------------------------------------------------------


def start(config, change=lambda l, layer: layer, x=None):
    """The verdicts on a start."""
    params, state = mlpjax.init(config, KEY)
    params = tuple(change(l, layer) for l, layer in enumerate(params, 1))
    x = features(config.sizes[0], 64) if x is None else x
    case = sample(x, x[:, 0] > 0)
    seen = signals(config, params, state, Batch(jnp.asarray(case.x), jnp.asarray(case.y)))
    return list(start_verdicts(config, params, seen, seen, fresh_loss(config.head, case, [0])))


def layers(n, activation, **more):
    return Config(sizes=(8,) * n + (1,), activation=activation, head="binary", **more)


def test_healthy_starts():
    for activation in ("relu", "tanh", "sigmoid"):
        assert not bad(start(layers(3, activation)))
    assert not bad(start(Config(sizes=(8, 1), head="binary")))


STARTS = {
    "start_scale": ("tanh", lambda l, layer: layer._replace(W=12 * layer.W) if l == 3 else layer),
    "symmetry": ("tanh", lambda l, layer: layer._replace(W=jnp.full_like(layer.W, 0.1))),
    "dead_units": ("relu", lambda l, layer: layer._replace(b=layer.b - 50 * (jnp.arange(8) < 5)) if l == 2 else layer),
    "saturation": ("sigmoid", lambda l, layer: layer._replace(b=layer.b + 9) if l == 2 else layer),
}


@pytest.mark.parametrize("name", STARTS)
def test_starts(name):
    activation, change = STARTS[name]
    verdicts = explain(start(layers(3, activation), change))
    assert {verdict.name for verdict in verdicts if verdict.level != "fine" and not verdict.explained_by} == {name}


@pytest.mark.parametrize(
    ("name", "activation", "factor"), [("gradients_vanish", "sigmoid", 1.0), ("gradients_explode", "relu", 2.5)]
)
def test_gradients_by_depth(name, activation, factor):
    def change(l, layer):
        return layer._replace(W=factor * layer.W)

    assert levels(start(layers(10, activation), change))[name] != "fine"
    assert levels(start(layers(3, activation), change))[name] == "fine"


def test_batch_norm_makes_large_weights_harmless():
    config = layers(3, "relu", batch_norm=True)
    assert not bad(start(config, lambda l, layer: layer._replace(W=20 * layer.W) if l < 3 else layer))


def test_losses_of_batches():
    """Each batch by its own statistics, in evaluation by the running ones."""
    config = layers(3, "tanh", batch_norm=True)
    params, state = mlpjax.init(config, KEY)
    x = jnp.asarray(features(8, 22))
    data = Batch(x, jnp.asarray(x[:, 0] > 0, float))
    got = loss_by_batches(config, params, state, data, 5)
    parts = [jax.tree.map(lambda part, i=i: part[5 * i : 5 * i + 5], data) for i in range(4)]
    expected = np.mean([mlpjax.loss(config, params, state, part)[0] for part in parts])
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    seen = signals(config, params, state, data)
    np.testing.assert_allclose(seen.loss, mlpjax.loss(config, params, state, data)[0], rtol=1e-6)
    np.testing.assert_allclose(seen.running, mlpjax.loss(config, params, state, data, train=False)[0], rtol=1e-6)
    assert abs(seen.running - seen.loss) > 1e-3


def test_signals_against_numpy(x64):
    """dz by hand for one hidden layer of tanh, and the share of entries with 1 − a² < 1/20."""
    rng = np.random.default_rng(0)
    W1, b1, W2, x, y = (rng.normal(size=s) for s in ((3, 4), 4, (4, 1), (6, 3), (6, 1)))
    config = Config(sizes=(3, 4, 1), activation="tanh", head="regression")
    seen = signals(config, (Layer(2 * W1, b1), Layer(W2, np.zeros(1))), (), Batch(x, y))
    a = np.tanh(2 * x @ W1 + b1)
    dz2 = (a @ W2 - y) / 6
    dz1 = dz2 @ W2.T * (1 - a**2)
    np.testing.assert_allclose(seen.loss, np.mean((a @ W2 - y) ** 2) / 2, rtol=1e-12)
    np.testing.assert_allclose(seen.dz, [np.sqrt(np.mean(dz**2)) for dz in (dz1, dz2)], rtol=1e-12)
    np.testing.assert_allclose(seen.flat, [np.mean(1 - a**2 < 0.05)], rtol=1e-12)
    assert 0 < seen.flat[0] < 1


def test_first_step():
    """Plain gradient steps move W by α‖dW‖ over ‖W‖ or √n_out; and a wrong gradient is seen."""
    config = Config(sizes=(2, 4, 1), activation="tanh", head="binary")
    params, state = mlpjax.init(config, KEY)
    optimizer = optax.sgd(0.5)
    batch = Batch(jnp.asarray(circle(20)[0]), jnp.asarray(circle(20)[1], float))
    begin = TrainState(params, state, optimizer.init(params))
    (_, grads) = mlpjax.backward(config, params, state, batch)
    found = first_step(config, begin, batch, KEY, optimizer=optimizer, grad_fn=mlpjax.backward, check=True)
    sizes = [max(float(np.linalg.norm(layer.W)), layer.W.shape[1] ** 0.5) for layer in params]
    expected = [0.5 * np.linalg.norm(layer.W) / size for layer, size in zip(grads, sizes, strict=True)]
    np.testing.assert_allclose(found.updates, expected, rtol=1e-5)
    assert not bad(step_verdicts(found, True))
    wrong = faulty(FAULTS["derivative-forgotten"])
    found = first_step(config, begin, batch, KEY, optimizer=optimizer, grad_fn=wrong, check=True)
    assert bad(step_verdicts(found, True)) == {"gradient"}


def test_updates():
    assert bad(step_verdicts(FirstStep([1e-3, 3.0], 0.0), False)) == {"updates_large"}
    assert bad(step_verdicts(FirstStep([1e-3, 1e-12], 0.0), False)) == {"updates_small"}
