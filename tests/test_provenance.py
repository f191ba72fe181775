"""The first number that is not finite is named rightly, wherever it is planted, and nothing else is taken for one.

The plants are those of experiments/provenance.py, one of each kind.
"""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config, DataError, DiskData, InputError, Layer, TrainState, accumulate, autodiff, backward
from mlpjax.chunks import Run
from mlpjax.disk import DiskRun
from mlpjax.loop import Loop
from mlpjax.provenance import FaultyStep, find_fault, first_fault, watched, watched_optimizer
from mlpjax.provenance_quantities import given, of_gradient, of_update
from mlpjax.provenance_replay import REPLAY, replay, write_replay
from mlpjax.sealed import seal, unseal
from mlpjax.snapshots import leaves

FOLDER = Path(__file__).parents[1] / "experiments"
KINDS = (
    *("x", "weight", "parameter", "given_moment", "update", "moment", "new_parameter"),
    *("z", "a", "dz", "dW", "db", "da", "y", "loss"),
)
SLOW = ("statistics", "var", "penalty", "own_loss", "gradient", "descent")
KEY = jax.random.key(3)
NET = Config(sizes=(2, 3, 1), activation="tanh", head="regression")
SGD = optax.sgd(0.0)


@pytest.fixture(scope="module")
def experiment():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import provenance

        yield provenance


def start_of(config, optimizer=SGD, **layers):
    """Parameters of `init`, in which layer l has another field: ``W1=…``."""
    params, state = mlpjax.init(config, KEY)
    for name, value in layers.items():
        l = int(name[1:]) - 1
        params = (*params[:l], params[l]._replace(**{name[0]: jnp.asarray(value, jnp.float32)}), *params[l + 1 :])
    return TrainState(params, state, optimizer.init(params))


def rows_of(m=20, n=2):
    rng = np.random.default_rng(0)
    return Batch(rng.uniform(-1, 1, (m, n)).astype(np.float32), rng.uniform(-1, 1, m).astype(np.float32))


def watched_loop(run, start):
    """A run of `fit` under watched functions, to its end."""
    loop = Loop(run, start, None, None, "loss", None)
    loop.train(threading.Event())
    return loop


def found_in(config, start, batch, *, optimizer=SGD, grad_fn=backward, **more):
    return find_fault(config, optimizer, grad_fn, start, batch, KEY, **more)


def both(grad_fn):
    """A gradient function beside the watched one, as one program."""
    return jax.jit(lambda *args: (grad_fn(*args, KEY), watched(grad_fn)(*args, KEY)))


@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_what_is_planted_is_named(experiment, kind):
    with experiment.failing():
        case = experiment.CASES[kind](np.random.default_rng(8))
        assert not experiment.wrong(case, experiment.faulty_step(case))


def test_every_kind_of_plant_is_tested(experiment):
    assert sorted([*KINDS, *SLOW]) == sorted(experiment.CASES)


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_example_is_the_row_of_the_data(tmp_path, monkeypatch, on_disk):
    """x of row 17 is finite, z = 4e38 is not, and tanh hides it: the loss of every step is finite."""
    data = rows_of()
    data.x[17, 1] = 2e38
    start = start_of(NET, W1=np.array([[0.1, 0.2, 0.3], [0.1, 2.0, 0.1]]))
    settings = (NET, watched_optimizer(SGD), watched(backward))
    if on_disk:
        for name in ("x", "y"):
            np.save(tmp_path / f"{name}.npy", getattr(data, name))
        disk = DiskData(tmp_path / "x.npy", tmp_path / "y.npy", block=3)
        # two steps
        monkeypatch.setattr("mlpjax.disk.CHUNK_BYTES", 2 * 4 * 3 * 4)
        run = DiskRun(*settings, disk.checked(NET), 4, 3, KEY, disk=disk)
    else:
        run = Run(*settings, jax.tree.map(jnp.asarray, data), 4, 3, KEY, together=True)
        run.chunk = 2
    assert run.chunk == 2
    loop = watched_loop(run, start)
    assert loop.stop_reason == "diverged"
    faulty = first_fault(loop, SGD, backward)
    fault = faulty.fault
    assert (fault.quantity, fault.layer, fault.example, fault.unit, fault.value) == ("z", 1, 17, 1, np.inf)
    assert fault.at == loop.diverged_at
    assert fault.at[0] == 1
    assert faulty.rows[fault.row] == 17
    np.testing.assert_array_equal(faulty.batch.x[fault.row], data.x[17])
    assert str(fault) == (
        f"epoch 1, step {fault.at[1]}: z of layer 1 is inf for example 17 (row {fault.row} of the batch), unit 1; "
        "made of |x| ≤ 2e+38, |W| ≤ 2"
    )
    # without, the run ends as if nothing had been
    plain = mlpjax.fit(NET, SGD, data, epochs=1, batch_size=4, key=KEY, params=start.params, state=())
    assert plain.stop_reason == "finished"


def test_a_variance_that_overflows_behind_a_finite_loss():
    config = Config(**{**NET.to_dict(), "batch_norm": True})
    start, data = start_of(config, W1=np.array([[0, 0, 0], [0.1, 0, 1]])), rows_of(4)
    data.x[2, 1] = 1e25
    (plain, _), (seen, _) = (result[0] for result in both(backward)(config, start.params, start.state, data))
    assert np.isfinite(plain)
    assert np.isnan(seen)
    fault = found_in(config, start, data)
    assert str(fault) == "var of layer 1 is inf at [0], and in 1 other place; made of |z| ≤ 1e+25"


def test_what_may_be_infinite_is_no_fault():
    """The best loss so far of a rule that has seen none, and what a row of weight 0 makes of its large numbers."""
    optimizer = optax.chain(optax.adam(0.01), optax.contrib.reduce_on_plateau())
    start = start_of(NET, optimizer, W1=np.full((2, 3), 1e21))
    assert np.isinf(start.opt_state[1].best_value)
    data = rows_of(8)
    data.x[:] = 0
    data.x[5] = 1e18
    batch = data._replace(weight=np.array([1, 1, 1, 1, 1, 0, 1, 1], np.float32))
    assert found_in(NET, start, batch, optimizer=optimizer) is None
    fault = found_in(NET, start, batch._replace(weight=np.ones(8, np.float32)), optimizer=optimizer)
    assert (fault.quantity, fault.layer, fault.row, fault.example) == ("z", 1, 5, 5)


def test_a_batch_without_weight_changes_nothing():
    batch = rows_of(8)._replace(weight=np.zeros(8, np.float32))
    start = start_of(NET, W1=np.full((2, 3), 3e38))
    assert found_in(NET, start, batch) is None
    huge = start_of(Config(**{**NET.to_dict(), "l2": 1.0}), W1=np.full((2, 3), 3e38))
    assert (
        str(found_in(Config(**{**NET.to_dict(), "l2": 1.0}), huge, batch))
        == "penalty of layer 1 is inf; made of |W| ≤ 3e+38"
    )


def test_watched_functions_are_the_functions(x64):
    """One function for one, under its name, with its result; and an optimiser with its state."""
    params, state = mlpjax.init(NET, KEY)
    for grad_fn in (backward, accumulate(autodiff, 3)):
        assert watched(grad_fn) is watched(grad_fn)
        assert watched(grad_fn).__qualname__ == grad_fn.__qualname__
        results = both(grad_fn)(NET, params, state, jax.tree.map(jnp.asarray, rows_of(7)))
        for a, b in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
    optimizer = optax.adam(0.1)
    watching = watched_optimizer(optimizer)
    assert watching is watched_optimizer(optimizer)
    updates, after = jax.jit(watching.update)(params, watching.init(params), params)
    assert jax.tree.structure(after) == jax.tree.structure(optimizer.init(params))
    np.testing.assert_allclose(updates[0].W, -0.1 * np.sign(params[0].W), rtol=1e-6)


def test_the_order_of_computation():
    config = Config(
        sizes=(2, 3, 4, 1), activation=("prelu", "tanh"), head="regression", batch_norm=True, dropout=0.5, l2=0.1
    )
    optimizer = optax.sgd(0.1, momentum=0.9)
    params, state = mlpjax.init(config, KEY)
    before = TrainState(params, state, optimizer.init(params))
    batch = jax.tree.map(jnp.asarray, rows_of(8)._replace(weight=np.ones(8, np.float32)))

    def passes(params, state, batch):
        result = backward(config, params, state, batch, KEY)
        return of_gradient(backward, config, params, state, batch, KEY, True, result)

    seen = jax.eval_shape(passes, params, state, batch)
    order = """
        x0 weight0 p0
        z1 mean1 var1 zhat1 z_tilde1 running_mean1 running_var1 a1 mask1 a_dropped1
        z2 mean2 var2 zhat2 z_tilde2 running_mean2 running_var2 a2 mask2 a_dropped2
        z3 y L data_loss penalty1 penalty2 penalty3 J
        dz3 dW_penalty3 dW3 db3 da2 dz_tilde2 dgamma2 dbeta2 dz2 dW_penalty2 dW2
        da1 dz_tilde1 dslope1 dgamma1 dbeta1 dz1 dW_penalty1 dW1
        running_mean1 running_var1 running_mean2 running_var2
        dW1 dgamma1 dbeta1 dslope1 dW2 dgamma2 dbeta2 dW3 db3
    """
    assert [f"{one.name}{'' if one.layer is None else one.layer}" for one in seen] == order.split()
    names = [one.name for one in given(before)]
    assert names[:4] == ["W", "gamma", "beta", "slope"]
    assert names[-1] == "moment trace of b"
    assert [one.name for one in of_update(params, before.opt_state, params)][-1] == "new b"


def test_a_loss_of_the_users_own():
    """The example of a fault is the first that is enough; there is none if it takes several."""

    def own(config, params, state, batch, key=None, *, train=True):
        def objective(params):
            z, _ = mlpjax.forward(config, params, state, batch.x)
            differ = jnp.ptp(batch.y) > 0 if config.bias else True
            J = jnp.sum(z) + jnp.log(jnp.min(jnp.where(differ, jnp.abs(batch.y), 1)))
            return J, mlpjax.Aux(state, J, jnp.zeros(()), jnp.ones(()), z)

        return jax.value_and_grad(objective, has_aux=True)(params)

    batch = rows_of(4)
    batch.y[2] = 0
    for bias, example in ((True, None), (False, 12)):
        config = Config(**{**NET.to_dict(), "bias": bias})
        fault = found_in(config, start_of(config), batch, grad_fn=own, rows=[10, 11, 12, 13])
        assert (fault.quantity, fault.value, fault.example) == ("J", -np.inf, example)


def test_without_the_option_the_program_is_the_same_text(experiment):
    """As in a process that has not imported the code; this one has used it."""
    command = [sys.executable, str(experiment.TEXT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == experiment.text_hash()


# --- replay files


ADAM: dict[str, Any] = {"name": "adam", "lr": 0.01, "clip": 1.0}


def faulty_step(config=NET, optimizer=None, key=KEY):
    """A step with z = 4e38 in row 2."""
    optimizer = mlpjax.optim.make_optimizer(**ADAM) if optimizer is None else optimizer
    batch = jax.tree.map(jnp.asarray, rows_of(4))
    batch = batch._replace(x=batch.x.at[2, 1].set(2e38))
    start = start_of(config, optimizer, W1=np.array([[0.1, 0.2, 0.3], [0.1, 0.1, 2.0]]))
    fault = find_fault(config, optimizer, backward, start, batch, key, rows=np.array([7, 3, 11, 0]))
    return FaultyStep(fault._replace(at=(2, 5)), config, start, batch, key, np.array([7, 3, 11, 0], np.int32))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "fault.npz"
    write_replay(path, faulty_step(), optimizer=ADAM, grad="hand")
    return path


def test_a_replay_finds_the_fault_again(written):
    again, faulty = replay(written), faulty_step()
    assert again.fault == faulty.fault
    assert (again.fault.example, again.fault.at) == (11, (2, 5))
    assert again.config == faulty.config
    pairs = zip(leaves(again[2:4]), leaves(faulty[2:4]), strict=True)
    for (path, a), (same, b) in pairs:
        assert path == same
        np.testing.assert_array_equal(a, b)


def test_a_replay_of_functions_that_have_no_name(tmp_path):
    """An optimiser with a key, bfloat16 and an infinite number in its state; a raw key."""
    noisy = optax.chain(optax.sgd(0.1, 0.9, accumulator_dtype=jnp.bfloat16), optax.add_noise(0.1, 0.5, KEY))
    optimizer = optax.chain(noisy, optax.contrib.reduce_on_plateau())
    faulty = faulty_step(Config(**{**NET.to_dict(), "dropout": 0.1}), optimizer, jax.random.PRNGKey(1))
    write_replay(tmp_path / "f.npz", faulty)
    with pytest.raises(InputError, match="does not name the run's optimizer: give it, replay"):
        replay(tmp_path / "f.npz", grad_fn=backward)
    with pytest.raises(InputError, match="does not name the run's grad_fn"):
        replay(tmp_path / "f.npz", optimizer)
    assert replay(tmp_path / "f.npz", optimizer, backward).fault == faulty.fault
    assert replay(tmp_path / "f.npz", optimizer, accumulate(backward, 2)).fault.quantity == "z"
    with pytest.raises(DataError, match="an array that neither the config nor the optimiser has a use for"):
        replay(tmp_path / "f.npz", optax.sgd(0.1), backward)


def test_a_damaged_replay_is_refused(written, tmp_path):
    content = written.read_bytes()
    path = tmp_path / "damaged.npz"
    for at in (0, 60, len(content) // 2, len(content) - 70, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DataError, match=r"^[^\n]*damaged.npz: [^\n]*$"):
            replay(path)
    for end in (0, 10, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match="cut short"):
            replay(path)


@pytest.mark.parametrize(
    ("header", "arrays", "message"),
    [
        ({"config": {"sizes": [2, 9, 1], "head": "regression"}}, {}, r"W is float32 of shape \(2, 3\): expected"),
        ({"config": {"sizes": [10**9, 10**9, 10**9]}}, {}, r"expected float32 of shape \(1000000000, 1000000000\)"),
        ({"config": {"sizes": [2] * 9}}, {}, "weights of 2 layers: the config expects 8"),
        ({"config": {"sizes": [2, 1], "head": "huber"}}, {}, "unknown head 'huber'"),
        ({"optimizer": {"name": "adamm", "lr": 1}}, {}, "unknown optimizer 'adamm': did you mean 'adam'"),
        ({"optimizer": {"lr": 1}}, {}, "missing 1 required positional argument"),
        ({"optimizer": {"name": "sgd", "lr": 0.1}}, {}, "has a use for"),
        ({"grad": "eval"}, {}, "unknown grad 'eval'"),
        ({"accumulate": 10**12}, {}, "a batch of 4 has no more parts than examples"),
        ({"accumulate": 0}, {}, "accumulate is 0: expected an integer"),
        ({"key_impl": "no_such"}, {}, "no_such"),
        ({"at": ["one", 1]}, {}, "invalid literal"),
        ({"x64": True}, {}, "was written with JAX_ENABLE_X64=1: set that"),
        ({"batch": {"x": [[4, 2], "O"], "y": [[4], "float32"]}}, {}, "x is O: expected real numbers"),
        ({}, {"key": np.zeros(3, np.uint32)}, "replay"),
        ({}, {"rows": np.zeros(3, np.int32)}, r"rows is int32 of shape \(3,\): expected integers \(4,\)"),
        ({}, {"rows": np.zeros(4)}, "rows is float64"),
        ({}, {"more": np.zeros(4)}, "more is an array that neither"),
        ({}, {"train_state/opt_state[1].t": np.zeros((), np.float32)}, "expected int32 of shape"),
    ],
)
def test_a_made_up_replay_is_refused(written, tmp_path, header, arrays, message):
    """Sealed, but not what `write_replay` writes."""
    old_header, old_arrays = unseal(REPLAY, written.read_bytes(), "fault.npz")
    path = tmp_path / "made.npz"
    path.write_bytes(seal(REPLAY, {**old_header, **header}, {**old_arrays, **arrays}))
    with pytest.raises(DataError, match=message) as raised:
        replay(path)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(path))


def test_a_replay_may_find_nothing(tmp_path):
    """The step of another run: finite numbers only."""
    optimizer = mlpjax.optim.make_optimizer(**ADAM)
    faulty = faulty_step()._replace(train_state=start_of(NET, optimizer))
    write_replay(tmp_path / "f.npz", faulty, optimizer=ADAM, grad="autodiff")
    assert replay(tmp_path / "f.npz", grad_fn=backward) is None
    without_b = tuple(Layer(W=layer.W) for layer in faulty.train_state.params)
    faulty = faulty._replace(train_state=TrainState(without_b, (), optimizer.init(without_b)))
    write_replay(tmp_path / "f.npz", faulty, optimizer=ADAM, grad="hand")
    assert replay(tmp_path / "f.npz") is None
