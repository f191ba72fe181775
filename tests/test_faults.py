"""Every fault of the catalogue is a wrong number, no crash, and none is another in disguise."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import one_fast_in

import mlpjax
from mlpjax import Config, passes
from mlpjax.cases import EXAMPLES, covering_array, make_case
from mlpjax.faults import (
    FAULTS,
    PEERS_13,
    applies,
    catalogue,
    exercise_case,
    faulty,
    random_exercise,
    shows,
    wrong_gradient,
)

SEEDS = (0, 1)
SAME = 1e-9
KINKS = [fault for fault in catalogue() if fault.exercise.at_kink]
EXERCISES = list({repr(fault.exercise): fault.exercise for fault in catalogue()}.values())
ROWS = covering_array(
    {
        "sizes": ((4, 3), (4, 5, 3), (4, 4, 4, 4)),
        "head": ("binary", "multilabel", "multiclass", "regression", "regression_relu"),
        "activation": ("tanh", "prelu", "leaky_relu"),
        "weight": ("none", "given"),
        "batch_norm": (False, True),
        "bias": (True, False),
        "dropout": (None, 0.3),
        "l1": (None, 0.02),
        "l2": (None, 0.3),
        "train": (True, False),
    }
)


def exercise_id(exercise):
    config = exercise.config
    parts = [config.sizes, config.activation, config.head, config.batch_norm, config.dropout, config.l1, config.l2]
    return "-".join(str(part) for part in (*parts, *exercise[1:]))


def flat(grads):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])


@functools.cache
def _changes(index, seed):
    """The right gradient of an exercise as one vector, and the change that each fault that applies makes of it."""
    exercise = EXERCISES[index]
    case = exercise_case(exercise, seed)
    this = passes.run_pass(*case[:4], case.train, case.key)
    right = flat(passes.run_backward(case.config, case.params, this, passes.RULES).params)
    fitting = [f for f in catalogue() if applies(f, exercise.config, exercise.weight != "none", exercise.train)]
    wrong = [flat(wrong_gradient(fault, case.config, case.params, this)) for fault in fitting]
    return right, [fault.name for fault in fitting], np.array(wrong) - right


def abstract(fault, case):
    """The shapes and dtypes that a faulty gradient function returns, without computing anything."""
    config, params, state, batch, key, train = case
    return jax.eval_shape(functools.partial(faulty(fault), config, train=train), params, state, batch, key)


def described(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_the_catalogue_is_told_in_words():
    faults = catalogue()
    assert len(FAULTS) == len(faults) >= 60
    assert len({fault.cause for fault in faults}) == len(faults)
    for fault in faults:
        assert re.fullmatch(r"[A-Za-z0-9.]+(-[A-Za-z0-9.]+)+", fault.name), fault.name
        assert "\n" not in fault.cause + fault.meant
        assert min(len(fault.cause), len(fault.meant)) > 5
        assert re.fullmatch(r"[a-z0-9]+(-[a-zA-Z0-9]+)+", fault.source), fault.source


def test_a_fault_is_one_change():
    for fault in catalogue():
        changes = (fault.before is not None) + (fault.after is not None) + (fault.rules != passes.RULES)
        assert changes == 1, fault.name


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(EXERCISES)), ids=lambda index: exercise_id(EXERCISES[index]))
def test_every_fault_shows_and_is_no_other(x64, index):
    """On the exercises of the faults: those that apply give gradients that are all different."""
    own = [fault.name for fault in catalogue() if fault.exercise == EXERCISES[index]]
    for seed in SEEDS:
        right, names, changes = _changes(index, seed)
        assert set(own) <= set(names)
        assert np.isfinite(changes).all()
        sizes = np.abs(changes).max(axis=1)
        for name in own:
            assert sizes[names.index(name)] > 1e-6 * np.abs(right).max(), name
        visible = [i for i, size in enumerate(sizes) if size > 1e-6 * np.abs(right).max()]
        same = [
            (names[i], names[j])
            for i, j in itertools.combinations(visible, 2)
            if np.abs(changes[i] - changes[j]).max() <= SAME * max(sizes[i], sizes[j])
        ]
        assert not same


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=() if f.name in PEERS_13 else pytest.mark.slow) for f in catalogue()],
    ids=lambda fault: fault.name,
)
def test_only_the_gradient_is_wrong(x64, fault):
    case = exercise_case(fault.exercise)
    (J, aux), wrong = case.call(faulty(fault))
    (J_right, aux_right), right = case.call(mlpjax.backward)
    np.testing.assert_array_equal(J, J_right)
    jax.tree.map(np.testing.assert_array_equal, aux, aux_right)
    assert jax.tree.structure(wrong) == jax.tree.structure(case.params)
    assert described(wrong) == described(right)
    assert np.abs(flat(wrong) - flat(right)).max() > 1e-6 * np.abs(flat(right)).max()


@pytest.mark.slow
def test_the_dtype_is_that_of_the_parameters(x64):
    """Where a number that promotes would make float64 of float32."""
    case_of = functools.cache(lambda index: float32_case(EXERCISES[index]))
    for fault in catalogue():
        _, grads = abstract(fault, case_of(EXERCISES.index(fault.exercise)))
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}, fault.name


def float32_case(exercise):
    config = Config(**{**exercise.config.to_dict(), "param_dtype": "float32"})
    return exercise_case(exercise._replace(config=config))


@pytest.mark.parametrize("row", one_fast_in(4, ROWS), ids=str)
def test_a_fault_that_applies_has_the_shapes_it_needs(row):
    sizes = (*row["sizes"][:-1], 1) if row["head"] == "binary" else row["sizes"]
    options = {name: row[name] for name in ("activation", "head", "batch_norm", "bias", "dropout", "l1", "l2")}
    case = make_case(Config(sizes=sizes, **options), row["weight"], row["train"])
    expected = described(case.params)
    for fault in catalogue():
        if applies(fault, case.config, row["weight"] != "none", row["train"]):
            assert described(abstract(fault, case)[1]) == expected, fault.name


@pytest.mark.parametrize("fault", KINKS, ids=lambda fault: fault.name)
def test_a_kink_is_wrong_at_the_kink_only(x64, fault):
    assert shows(fault, exercise_case(fault.exercise))
    assert not shows(fault, exercise_case(fault.exercise._replace(at_kink=False)))


def test_the_kinks_of_every_table_are_there():
    assert {fault.name for fault in KINKS} == {
        "relu-1-at-0", "relu-half-at-0", "leaky-slope-at-0", "selu-alpha-at-0", "relu-head-1-at-0", "l1-1-at-0",
    }  # fmt: skip


@pytest.mark.slow
def test_the_thirteen_of_the_peers(x64):
    case = make_case(Config(sizes=(20, 16, 5), activation="tanh"), m=32)
    assert len(set(PEERS_13)) == 13
    for name in PEERS_13:
        assert applies(FAULTS[name], case.config)
        assert shows(FAULTS[name], case), name


@pytest.mark.slow
def test_random_exercises(x64):
    for fault in catalogue():
        case = random_exercise(fault, 2)
        assert applies(fault, case.config, case.batch.weight is not None, case.train), fault.name
        assert shows(fault, case), fault.name
        assert 5 <= len(case.batch.x) <= 14
        assert 3 <= len(case.config.sizes) <= 5
        assert all(2 <= n <= 9 for n in case.config.sizes[:-1])


@pytest.mark.slow
def test_random_exercises_come_from_the_seed(x64):
    fault = FAULTS["derivative-of-a"]
    first, again, other = (random_exercise(fault, seed) for seed in (0, 0, 2))
    assert first.config == again.config != other.config
    np.testing.assert_array_equal(first.batch.x, again.batch.x)
    np.testing.assert_array_equal(flat(first.params), flat(again.params))


def test_a_fault_that_never_shows_is_an_error():
    nowhere = FAULTS["db-zero"]._replace(needs=lambda config, weighted, train: False)
    with pytest.raises(RuntimeError, match="db-zero"):
        random_exercise(nowhere, 0)


def test_faults_run_compiled(x64):
    """A faulty gradient function is one like any other."""
    case = make_case(Config(sizes=(3, 7, 6, 4), activation="tanh"), m=EXAMPLES)
    for name in ("W-not-transposed", "one-entry-zero"):
        step = jax.jit(faulty(FAULTS[name]), static_argnames="train")
        np.testing.assert_allclose(flat(case.call(step)[1]), flat(case.call(faulty(FAULTS[name]))[1]), rtol=1e-12)
