"""`fit(augment=)` and ``mlpjax train --augment``: what a step is given, what it may return, and what stays the same."""

import dataclasses
import functools
import inspect
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config, ImageAugment, VectorAugment, accumulate, cli, fit
from mlpjax.augment_words import IMAGE_NAMES, VECTOR_NAMES, augmentation
from mlpjax.augmenting import AUGMENT_STREAM, augmented, chain
from mlpjax.checks import check_batch
from mlpjax.chunks import Chunk, Run, epoch_order
from mlpjax.config import HeadName
from mlpjax.errors import ConfigError, InputError
from mlpjax.heads import HEADS
from mlpjax.options import TrainOptions
from mlpjax.step import TrainState, train_step
from mlpjax.targets import target_matrix

KEY = jax.random.key(3)
CONFIG = Config(sizes=(4, 5, 3), activation="tanh", batch_norm=True, dropout=0.3, l2=0.01)
PLAIN = Config(sizes=(4, 5, 3), activation="tanh")
SGD = optax.sgd(0.1)


def half(key, batch):
    """Mix the labels of neighbours."""
    return batch._replace(y=(batch.y + jnp.roll(batch.y, 1, axis=0)) / 2)


BOTH = chain(ImageAugment(shape=(2, 2), shift=0.4), half)
RNG = np.random.default_rng(0)
DATA = Batch(RNG.normal(size=(7, 4)), np.arange(7) % 3, RNG.uniform(0.5, 2.0, 7))

fit_seven = functools.partial(fit, CONFIG, SGD, DATA, epochs=2, batch_size=3, key=KEY)
fit_both = functools.partial(fit, PLAIN, SGD, DATA, epochs=2, batch_size=7, augment=BOTH)
apply = jax.jit(lambda augment, key, batch: augment(key, batch))
step = jax.jit(functools.partial(train_step, PLAIN, SGD, mlpjax.backward))


def columns(result):
    return {name: column for name, column in result.history.items() if name != "seconds"}


def start_of(config):
    params, state = mlpjax.init(config, KEY)
    return TrainState(params, state, SGD.init(params))


# --- the numbers


@pytest.mark.slow
def test_strengths_of_zero_change_no_bit():
    zero = chain(ImageAugment(shape=(2, 2), shift=0.0), VectorAugment(mixup=0.0, jitter=0.0))
    without, with_zero = (fit_seven(augment=augment, class_weight="balanced") for augment in (None, zero))
    chex.assert_trees_all_equal(with_zero[:3], without[:3])
    assert columns(with_zero) == columns(without)


def test_a_function_is_an_augmentation():
    negated = fit_seven(augment=lambda key, batch: batch._replace(x=-batch.x))
    expected = fit(CONFIG, SGD, DATA._replace(x=-DATA.x), epochs=2, batch_size=3, key=KEY)
    chex.assert_trees_all_equal(negated[:3], expected[:3])


def test_fit_is_the_plain_loop():
    """Each step on the batch that the augmentation makes from the step's key, here outside of training."""
    result, start = fit_both(key=KEY), start_of(PLAIN)
    y, losses = target_matrix("multiclass", DATA.y, 3, jnp.float32), []
    for t in range(2):
        rows, key = epoch_order(KEY, t + 1, 7), jax.random.fold_in(KEY, t)
        batch = Batch(*(jnp.float32(value)[rows] for value in (DATA.x, y, DATA.weight)))
        start, report = step(start, apply(BOTH, jax.random.fold_in(key, AUGMENT_STREAM), batch), key)
        losses.append(report.data_loss)
    chex.assert_trees_all_close(result.params, start.params, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.history["train_loss"], losses, rtol=1e-5)


def test_key_decides_and_gradients_agree():
    one, same, other = fit_both(key=KEY), fit_both(key=KEY), fit_both(key=jax.random.key(4))
    chex.assert_trees_all_equal(one.params, same.params)
    assert not np.allclose(one.params[0].W, other.params[0].W)
    parts = fit_both(key=KEY, grad_fn=accumulate(mlpjax.autodiff, 2))
    chex.assert_trees_all_close(parts.params, one.params, rtol=1e-4, atol=1e-6)


def test_a_step_of_padding_leaves_everything():
    run = Run(PLAIN, SGD, mlpjax.backward, check_batch(PLAIN, DATA, "data"), 7, 2, KEY, BOTH)
    start = start_of(PLAIN)
    end, report, finite = run.take(start, Chunk(0, 1, np.full((1, 7), -1, np.int32), run.data))
    assert finite
    chex.assert_trees_all_equal(end, start)
    assert report.metric_sum == report.weight_sum == 0


def test_another_strength_does_not_recompile_and_validation_data_stay():
    """With a step size of 0 the start values stay, and so does what they say of the validation data."""
    traces = []

    def counted(*args, **options):
        traces.append(1)
        return mlpjax.backward(*args, **options)

    run = functools.partial(fit, PLAIN, optax.sgd(0.0), DATA, epochs=2, batch_size=7, key=KEY, grad_fn=counted)
    params, state = mlpjax.init(PLAIN, KEY)
    expected = mlpjax.evaluate(PLAIN, params, state, DATA)
    for strength in (0, 3.0):
        result = run(augment=VectorAugment(jitter=strength), valid_data=DATA, params=params, state=state)
        assert result.history["valid_loss"] == [expected["loss"]] * 2
    assert len({expected["loss"], *result.history["train_loss"]}) == 3
    assert len(traces) == 1


@pytest.mark.parametrize("head", HeadName.__args__)
def test_every_head_takes_mixed_labels(head):
    """By hand as by autodiff; and the metric stays defined."""
    n_L = 1 if head == "binary" else 3
    labels = {"binary": np.arange(6) % 2, "multiclass": np.arange(6) % 3, "multilabel": np.eye(6, 3)}
    config = Config(sizes=(4, n_L), head=head)
    params, state = mlpjax.init(config, KEY)
    batch = Batch(np.float32(DATA.x[:6]), labels.get(head, np.ones((6, 3)) * np.arange(6)[:, None]))

    mixed = augmented(config, params, half, batch, KEY)
    assert mixed.y.shape == (6, n_L)
    assert 0.5 in np.asarray(mixed.y)

    @jax.jit
    def both(batch):
        return [f(config, params, state, batch) for f in (mlpjax.backward, mlpjax.autodiff)]

    ((J, aux), by_hand), (_, by_autodiff) = both(mixed)
    chex.assert_trees_all_close(by_hand, by_autodiff, rtol=1e-5, atol=1e-6)
    assert np.isfinite(J)
    assert np.isfinite(HEADS[head].metric(aux.z, mixed.y)).all()


# --- errors


@dataclasses.dataclass
class Unhashable:
    """A function with a record of its own, which jax does not know."""

    strength: float = 0.1

    def __call__(self, key, batch):
        return batch


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (0.1, r"augment is 0.1: expected a function \(key, batch\) -> batch, such as mlpjax.ImageAugment"),
        (ImageAugment, "augment is <class"),
        (Unhashable(), "augment is of type Unhashable, neither a pytree nor hashable"),
        (ImageAugment(shape=(28, 28), flip=0.5), r"images of shape \(28, 28\), 784 features per row; x has 4: give"),
        (lambda key, batch: batch.x, "augment returned a .*: expected mlpjax.Batch"),
        (
            lambda key, batch: batch._replace(x=batch.x[:, :2]),
            r"returned x of shape \(7, 2\) .* expected shape \(7, 4\)",
        ),
        (lambda key, batch: batch._replace(y=batch.y.astype(int)), "returned y of .* dtype int32: expected .* float32"),
        (lambda key, batch: batch._replace(weight=None), "returned weight of None: expected shape"),
    ],
    ids=["number", "class", "unhashable", "images", "array", "features", "dtype", "weight"],
)
def test_errors(augment, message):
    with pytest.raises(InputError, match=message):
        fit(PLAIN, SGD, DATA, epochs=1, batch_size=7, key=KEY, augment=augment)


# --- the command line

DIGITS, GATE = mlpjax.load_dataset("digits"), mlpjax.load_dataset("xor_gate")


def test_words_become_strengths():
    assert augmentation([], DIGITS) is None
    assert augmentation(["rotate=15", "elastic=1.2"], DIGITS) == ImageAugment(shape=(8, 8), rotate=15, elastic=1.2)
    assert augmentation(["jitter=1e-1"], GATE) == VectorAugment(jitter=0.1)
    both = augmentation(["mixup=0.2", "noise=0.1"], DIGITS)
    assert both.args == ((ImageAugment(shape=(8, 8), noise=0.1), VectorAugment(mixup=0.2)),)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rotat=15"], "unknown --augment 'rotat': did you mean 'rotate'[?] known: shift, .*, mixup, jitter"),
        (["rotate"], "--augment rotate is without a number: expected NAME=NUMBER, such as rotate=0.5"),
        (["rotate=ten"], "--augment rotate is 'ten', not a number"),
        (["rotate=1", "rotate=2"], "--augment has rotate twice"),
        (["flip=2"], "--augment: flip is 2.0: expected a probability"),
        (["jitter=nan"], "--augment: jitter is nan: expected a finite number ≥ 0"),
        (["smooth=2"], "--augment smooth is of the elastic field: give elastic too"),
    ],
)
def test_bad_words(words, message):
    with pytest.raises(ConfigError, match=message):
        augmentation(words, DIGITS)


def test_train_command(capsys, tmp_path):
    target = tmp_path / "r.json"
    few = ["train", "--data", "xor_gate", "--hidden", "4", "--epochs", "1"]
    assert cli.main([*few, "--augment", "jitter=0.1", "--json", str(target)]) == cli.OK
    assert json.loads(target.read_text())["options"]["augment"] == ["jitter=0.1"]
    capsys.readouterr()
    assert cli.main([*few, "--augment", "rotate=15"]) == cli.BAD_INPUT
    assert capsys.readouterr().err == (
        "mlpjax: --augment rotate: xor_gate has rows of 2 features, not images (height, width), as mnist and digits "
        "have; for vectors there are mixup and jitter\n"
    )


def test_help_names_every_strength():
    source = inspect.getsource(TrainOptions)
    text = source[source.index("augment: tuple") :].split('"""')[1]
    assert not [name for name in IMAGE_NAMES + VECTOR_NAMES if name not in text]
