"""The laws of the objective and its gradient, on networks and numbers that hypothesis draws."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import mlpjax
from mlpjax import ACTIVATIONS, Batch, Config, accumulate
from mlpjax.cases import labels
from mlpjax.step import take

M, MORE = 8, 12
"""Rows of a batch, and of one in which rows are repeated or absent."""
STRUCTURES = (
    Config(sizes=(3, 6, 5, 1), head="binary", activation=("tanh", "prelu"), l2=0),
    Config(sizes=(3, 6, 1), head="binary", activation="silu", batch_norm=True),
    Config(sizes=(3, 6, 2), head="multilabel", activation="leaky_relu", bias=False, l1=0),
    Config(sizes=(3, 6, 5, 2), head="multilabel", activation=("relu", "tanh"), batch_norm=True, l1=0, l2=0),
    Config(sizes=(3, 6, 2), head="multiclass", activation="gelu"),
    Config(sizes=(3, 6, 5, 2), head="multiclass", activation=("prelu", "arctan"), batch_norm=True, l2=0),
    Config(sizes=(3, 6, 5, 2), head="regression", activation=("relu", "selu"), l1=0, l2=0),
    Config(sizes=(3, 6, 5, 2), head="regression", activation=("elu", "gelu_tanh"), batch_norm=True, bias=False),
    Config(sizes=(3, 6, 1), head="regression_relu", activation="softplus", l1=0),
    Config(sizes=(3, 6, 1), head="regression_relu", activation="sigmoid", batch_norm=True, l1=0),
    Config(sizes=(3, 4), head="multiclass", l1=0, l2=0),
)
"""Every head with and without batch-norm, every set of penalties; the strengths are drawn."""
NORMED = tuple(config for config in STRUCTURES if config.batch_norm)
PLAIN = tuple(config for config in STRUCTURES if not config.batch_norm)
PENALISED = tuple(config for config in STRUCTURES if (config.l1, config.l2) != (None, None))
WEIGHTS = ("equal", "one size", "partly 0", "one", "many sizes")
many = settings(max_examples=100)
rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)

value_and_grads = jax.jit(mlpjax.backward)


@functools.lru_cache
def shapes_of(config):
    """The trees of parameters and state."""
    return jax.eval_shape(lambda key: mlpjax.init(config, key), jax.random.key(0))


def numbers_for(config, zeros, rng):
    """Parameters, with a share of weights that are 0, and state of a network that was trained for up to 3 steps."""
    params, state = shapes_of(config)

    def normal(leaf, shift=0.0):
        return None if leaf is None else shift + rng.normal(size=leaf.shape)

    params = tuple(
        layer._replace(
            W=normal(layer.W) / np.sqrt(len(layer.W)) * (rng.random(layer.W.shape) >= zeros),
            b=normal(layer.b),
            gamma=normal(layer.gamma, 1.0),
            beta=normal(layer.beta),
            slope=normal(layer.slope),
        )
        for layer in params
    )
    count = np.int32(rng.integers(0, 4))
    state = tuple(type(s)(normal(s.mean), rng.uniform(0.1, 3.0, s.var.shape), count) for s in state)
    return params, state


def weights_for(kind, m, rng):
    """Weights (m,): equal, of one size, of many sizes, partly 0, or all 0 but one."""
    if kind == "many sizes":
        return 10.0 ** rng.uniform(-6, 6, m)
    weight = np.ones(m) if kind == "equal" else rng.uniform(0.5, 2.0, m)
    zeros = {"partly 0": m // 2, "one": m - 1}.get(kind, 0)
    weight[rng.permutation(m)[:zeros]] = 0.0
    return weight


@st.composite
def networks(
    draw,
    configs=STRUCTURES,
    scales=(1e-3, 1.0, 30.0),
    shapes=("generic", "constant", "twin"),
    kinds=WEIGHTS,
    zeros=0.1,
    m=M,
):
    """A case of m weighted rows: a structure, strengths from 0 to 1, a scale of x, and numbers from a seed."""
    config = draw(st.sampled_from(configs))
    drawn = {name: draw(st.sampled_from((0.0, 0.01, 1.0))) for name in ("l1", "l2")}
    config = dataclasses.replace(config, **{name: v for name, v in drawn.items() if getattr(config, name) is not None})
    scale, shape, kind = (draw(st.sampled_from(values)) for values in (scales, shapes, kinds))
    rng = draw(rngs)
    x, y = rng.normal(size=(m, config.sizes[0])), labels(config.head, m, config.sizes[-1], rng)
    if shape == "constant":
        x[:, 0] = 1.0
    if shape == "twin":
        half = m // 2
        x[:half], y[:half] = x[m - half :], y[m - half :]
    return Case(config, *numbers_for(config, zeros, rng), Batch(scale * x, y, weights_for(kind, m, rng)))


def rounding(case):
    """The relative error to allow; batch-norm multiplies that of z by |z|/σ, most where one row has all the weight."""
    config, (x, _, weight) = case.config, case.batch
    # 1 − tanh² has the rounding of 1, however small it is
    if "tanh" in config.activations and np.nanmax(np.abs(x)) > 10:
        return 1e-7
    if not config.batch_norm:
        return 1e-12
    return 1e-9 if weight is not None and weight.max() > 0.9 * weight.sum() else 1e-10


def whole(case):
    """J, its parts, the new state, the gradients; and the scores, which belong to rows."""
    (J, aux), grads = jax.device_get(value_and_grads(*case[:4]))
    return (J, aux.data_loss, aux.penalty, aux.state, grads), aux.z


def with_rows(case, index, weight):
    return case._replace(batch=Batch(case.batch.x[index], case.batch.y[index], weight))


def repeated(case, rng):
    """The same sum twice: rows of integer weight kᵢ (times any wᵢ), and kᵢ copies of each row."""
    # copies of one row have no variance: batch-norm makes their rounding 1/√ε times as large, layer by layer
    few = rng.permutation(M)[: rng.integers(3 if case.config.batch_norm else 1, M + 1)]
    k = np.bincount(rng.choice(few, MORE), minlength=M)
    weight = np.where(case.batch.weight > 0, case.batch.weight, 1.0)
    copies = np.repeat(np.arange(M), k)
    return with_rows(case, slice(None), k * weight), with_rows(case, copies, weight[copies])


def with_absent(case, rng, filler):
    """The case with rows of weight 0 strewn in, whatever is in them."""
    at = np.sort(rng.permutation(MORE)[:M])
    label = filler if case.batch.y.dtype.kind == "f" else -1
    x, y, weight = (
        np.full((MORE, *v.shape[1:]), f, v.dtype) for v, f in zip(case.batch, (filler, label, 0), strict=True)
    )
    x[at], y[at], weight[at] = case.batch
    return case._replace(batch=Batch(x, y, weight))


def padded(case):
    """The case with the rows −1 of `take` behind it."""
    rows = np.concatenate([np.arange(M), np.full(MORE - M, -1)])
    return case._replace(batch=jax.device_get(take(Batch(*map(jnp.asarray, case.batch[:2]), case.batch.weight), rows)))


def rename(config, params, state, orders):
    """Parameters (or gradients) and state under another order of the units of each hidden layer."""
    inputs, outputs = (range(config.sizes[0]), *orders), (*orders, range(config.sizes[-1]))
    params = tuple(
        jax.tree.map(lambda leaf, after=after: leaf[..., after], layer)._replace(W=layer.W[np.ix_(before, after)])
        for layer, before, after in zip(params, inputs, map(list, outputs), strict=True)
    )
    return params, tuple(s._replace(mean=s.mean[o], var=s.var[o]) for s, o in zip(state, orders, strict=False))


def orders_for(config, rng):
    return tuple(rng.permutation(n) for n in config.sizes[1:-1])


@pytest.mark.slow
@many
@given(networks(), rngs)
def test_integer_weights_are_multiplicities(x64, case, rng):
    """J(x, y, k ⊙ w) = J with kᵢ copies of row i, each of weight wᵢ; kᵢ = 2: twice, kᵢ = 0: absent."""
    weighted, copied = repeated(case, rng)
    assert_close(whole(weighted)[0], whole(copied)[0], rounding(weighted))


@pytest.mark.slow
@many
@given(networks(), rngs, st.sampled_from((0.0, 1e6, np.nan, -np.inf)))
def test_a_row_of_weight_0_is_absent(x64, case, rng, filler):
    """J(X ∪ X₀, w ∪ 0) = J(X, w), whatever X₀ and its labels are."""
    assert_close(whole(with_absent(case, rng, filler))[0], whole(case)[0], rounding(case))


@pytest.mark.slow
@many
@given(networks((*NORMED[:3], PLAIN[-1])))
def test_padding_is_neutral(x64, case):
    """J over m rows and any padding = (1/m) Σ Lᵢ + penalty; so are the scores of the m rows."""
    unweighted = with_rows(case, slice(None), None)
    (got, z), (expected, z_expected) = whole(padded(unweighted)), whole(unweighted)
    assert_close((got, z[:M]), (expected, z_expected), rounding(case))


@many
@given(networks(), st.integers(-20, 20), st.floats(1e-3, 1e3))
def test_only_ratios_of_weights_count(x64, case, exponent, factor):
    """J(c w) = J(w) for c > 0; to the bit if c is a power of 2."""
    scaled = [with_rows(case, slice(None), c * case.batch.weight) for c in (2.0**exponent, factor)]
    assert_close(whole(scaled[0]), whole(case), 0.0)
    assert_close(whole(scaled[1])[0], whole(case)[0], rounding(case))


@many
@given(networks(), rngs)
def test_order_of_examples(x64, case, rng):
    """J(P X, P y, P w) = J(X, y, w) and Z(P X) = P Z(X) for a permutation P of the rows."""
    order = rng.permutation(M)
    (got, z), (expected, z_expected) = whole(with_rows(case, order, case.batch.weight[order])), whole(case)
    assert_close((got, z), (expected, z_expected[order]), rounding(case))


@many
@given(networks(), rngs)
def test_order_of_hidden_units(x64, case, rng):
    """J(π θ) = J(θ) and ∇J(π θ) = π ∇J(θ), where π permutes the units of every hidden layer."""
    orders = orders_for(case.config, rng)
    params, state = rename(case.config, case.params, case.state, orders)
    (*parts, state_after, grads), z = whole(case)
    grads, state_after = rename(case.config, grads, state_after, orders)
    assert_close(whole(case._replace(params=params, state=state)), ((*parts, state_after, grads), z), rounding(case))


@functools.lru_cache
def accumulated(chunks):
    return jax.jit(accumulate(mlpjax.backward, chunks))


@pytest.mark.parametrize(("chunks", "configs"), [(3, PLAIN[::2]), (5, PLAIN[1::2])], ids=["3", "5"])
@given(data=st.data(), silent=st.integers(0, 4))
def test_accumulation_over_uneven_chunks(x64, chunks, configs, data, silent):
    """Σ_k (w_k/w) ∇J_k = ∇J for 3 + 3 + 2 and 2 + 2 + 2 + 2 + 0 rows, one chunk of weight 0 or none."""
    case, size = data.draw(networks(configs)), -(-M // chunks)
    weight = case.batch.weight.copy()
    if weight[np.arange(M) // size != silent].any():
        weight[np.arange(M) // size == silent] = 0.0
    case = with_rows(case, slice(None), weight)
    got, expected = (jax.device_get(f(*case[:4])) for f in (accumulated(chunks), value_and_grads))
    assert_close(got, expected, rounding(case))


@many
@given(networks(PENALISED), rngs)
def test_the_penalty_does_not_depend_on_the_batch(x64, case, rng):
    """∇J − ∇(data loss) = l1 sign(W) + l2 W and J − data loss = l1 Σ|W| + (l2/2) ΣW², for any X, y, w, m."""
    l1, l2 = (rate or 0.0 for rate in (case.config.l1, case.config.l2))
    rates = {name: 0.0 for name in ("l1", "l2") if getattr(case.config, name) is not None}
    free = dataclasses.replace(case.config, **rates)
    value = sum(l1 * np.abs(layer.W).sum() + l2 / 2 * (layer.W**2).sum() for layer in case.params)
    penalties = []
    for other in (case, repeated(case, rng)[1], with_rows(case, slice(None), np.zeros(M))):
        (J, data_loss, penalty, _, grads), _ = whole(other)
        (_, data_loss_free, none, _, grads_free), _ = whole(other._replace(config=free))
        expected = tuple(
            grad._replace(W=grad.W + l1 * np.sign(layer.W) + l2 * layer.W)
            for grad, layer in zip(grads_free, case.params, strict=True)
        )
        assert_close((data_loss, grads), (data_loss_free, expected), 1e-14)
        assert (J, none) == (data_loss + penalty, 0.0)
        penalties.append(penalty)
    assert_close(penalties, [value] * 3, 1e-14)
    assert penalties[0] == penalties[2]


@jax.jit
def after_updates(case, steps):
    """Scores of training, and of evaluation after a number of updates of the statistics alone."""
    config, params, state, (x, _, weight), *_ = case

    def scores(state, train):
        return mlpjax.forward(config, params, state, x, train=train, weight=weight)

    state = jax.lax.fori_loop(0, steps, lambda _, state: scores(state, True)[1], state)
    return scores(state, True)[0], scores(state, False)[0]


@pytest.mark.parametrize("steps", [1, 10, 100])
@given(networks(NORMED, kinds=WEIGHTS[:3]))
def test_training_and_evaluation_agree(x64, steps, case):
    """Z(train) = Z(eval) after any number of updates on one batch, whatever mean and variance began with."""
    start = tuple(s._replace(count=np.int32(0)) for s in case.state)
    trained, evaluated = after_updates(case._replace(state=start, key=None, train=None), steps)
    assert_close(trained, evaluated, 1e-12)


@jax.jit
def both_gradients(case):
    return mlpjax.backward(*case[:4]), mlpjax.autodiff(*case[:4])


@pytest.mark.slow
@many
@given(networks(m=1), rngs)
def test_a_batch_of_one(x64, case, rng):
    """J = L₁ + penalty is finite, ∇J is autodiff's; under batch-norm z̃ = β, so that x does not matter."""
    case = case._replace(key=None, train=None)
    hand, auto = jax.device_get(both_gradients(case))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(hand))
    assert_close(hand, auto, 1e-12)
    (_, aux), grads = hand
    if case.config.batch_norm:
        *hidden, last = case.params
        names, slopes = case.config.activations, [() if l.slope is None else (l.slope,) for l in hidden]
        a = ACTIVATIONS[names[-1]].f(hidden[-1].beta[None, :], *slopes[-1])
        z = a @ last.W + (0.0 if last.b is None else last.b[None, :])
        assert_close(aux.z, z, 1e-13)
        other = case._replace(batch=case.batch._replace(x=rng.normal(size=case.batch.x.shape)))
        assert_close(jax.device_get(both_gradients(other))[0][0][1].z, aux.z, 0.0)
        assert not any(np.any(grad.gamma) for grad in grads[:-1])
