"""Heads, softmax and penalties where numbers end; the right answers from NumPy and SciPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special
from test_edges_activations import LARGEST, TINY, assert_right, edges, rngs

from mlpjax import HEADS, PENALTIES, softmax_forms

# --- heads -----------------------------------------------------------------------------------------------------------

ROWS, K = 12, 3
HARD = np.resize(np.eye(K, dtype=np.float32), (ROWS, K))


def times(y, cost):
    """Y ⊙ cost, where a label of 0 costs nothing, not even ∞."""
    return np.where(y == 0, 0, y * np.where(y == 0, 0, cost))


def sigmoid_head(z, y):
    loss = times(y, np.logaddexp(0, -z)) + times(1 - y, np.logaddexp(0, z))
    return special.expit(z), loss.sum(axis=1), special.expit(z) - y


def softmax_head(z, y):
    with np.errstate(all="ignore"):
        shifted = z - z.max(axis=1, keepdims=True)
        yhat = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        log_yhat = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return yhat, times(y, -log_yhat).sum(axis=1), yhat * y.sum(axis=1, keepdims=True) - y


def squares_head(z, y):
    return z, ((z - y) ** 2).sum(axis=1) / 2, z - y


def relu_squares_head(z, y):
    yhat = np.where(z <= 0, 0, z)
    return yhat, ((yhat - y) ** 2).sum(axis=1) / 2, np.where(z <= 0, 0, yhat - y)


IN_FLOAT64 = {
    "binary": sigmoid_head,
    "multilabel": sigmoid_head,
    "multiclass": softmax_head,
    "regression": squares_head,
    "regression_relu": relu_squares_head,
}


@functools.lru_cache
def head_parts(name):
    head = HEADS[name]

    def parts(z, y):
        auto = jax.grad(lambda z: jnp.sum(head.loss(z, y)))(z)
        return head.link(z), head.loss(z, y), head.dz(z, y), auto, head.ddz(z, y, jnp.ones_like(z)), head.metric(z, y)

    return jax.jit(parts)


@pytest.mark.parametrize("name", HEADS)
@given(z=edges((ROWS, K), LARGEST / 4) | edges((ROWS, K)), soft=st.booleans(), rng=rngs)
def test_heads_anywhere(name, z, soft, rng):
    """Ŷ, loss and dz at any score; softmax has none, NaN, in a row with +∞ or NaN, or of −∞ alone."""
    y = np.float32(rng.dirichlet(np.ones(K), ROWS)) if soft else HARD
    yhat, loss, dz, auto, _, _ = head_parts(name)(z, y)
    if name == "multiclass":
        # the difference of two scores is a float32
        with np.errstate(all="ignore"):
            z = z - z.max(axis=1, keepdims=True) + np.float32(0)
    with np.errstate(all="ignore"):
        right = IN_FLOAT64[name](z.astype(np.float64), y.astype(np.float64))
    assert_right(yhat, right[0], 1e-5)
    # the sum of squares ends before its half does
    near_the_end = (right[1] > LARGEST / 8) & (right[1] < 8 * LARGEST)
    assert_right(loss[~near_the_end], right[1][~near_the_end], 1e-5, 1e-6)
    # a subnormal score is 0 to JAX, and on the kink of relu
    known = ~(np.isnan(z) | ((np.abs(z) < TINY) & (z != 0))).any(axis=1)
    assert_right(dz[known], right[2][known], 1e-5, 1e-6)
    finite = np.isfinite(z).all(axis=1) & np.isfinite(loss)
    np.testing.assert_allclose(auto[finite], dz[finite], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=20)
@given(z=edges((ROWS, K), LARGEST / 4))
def test_curvature_and_metric_anywhere(name, z):
    """(∂²L/∂z²) 1 is finite and not negative, 0 for softmax; the metric of a sure and right row is the best."""
    *_, ddz, metric = head_parts(name)(z, HARD)
    assert np.isfinite(ddz).all()
    assert (ddz >= 0).all()
    if name == "multiclass":
        np.testing.assert_array_equal(ddz, 0)
    if HEADS[name].higher_is_better:
        assert set(np.unique(metric)) <= {0, 1}
    sure = np.where(HARD == 1, np.float32(LARGEST / 4), np.float32(-LARGEST / 4))
    if name.startswith("regression"):
        sure = HARD
    best = 1 if HEADS[name].higher_is_better else 0
    np.testing.assert_array_equal(HEADS[name].metric(sure, HARD), best)


@pytest.mark.parametrize("name", ["binary", "multilabel", "multiclass"])
def test_decisions_at_the_edge(name):
    """A probability of exactly ½ is on, below it off; of equal classes it is the lower one; integers and bools too."""
    decide = HEADS[name].decide
    below = np.nextafter(np.float32(0.5), np.float32(0))
    yhat = np.float32([[0.5, below, 1], [-0.0, 0, 1e-45], [1, 1, 0]])
    expected = [2, 2, 0] if name == "multiclass" else [[1, 0, 1], [0, 0, 0], [1, 1, 0]]
    expected = np.array(expected)[:, 0] if name == "binary" else np.array(expected)
    if name == "multiclass":
        # a subnormal number is 0: then the first of the three
        expected = np.where(np.asarray(decide(yhat)) == 0, [2, 0, 0], expected)
    np.testing.assert_array_equal(decide(yhat), expected)
    for dtype in (np.int32, bool):
        np.testing.assert_array_equal(decide(jnp.asarray(yhat >= 1, dtype)), decide(jnp.float32(yhat >= 1)))


def test_nan_is_below_a_half_and_the_largest_class():
    """What decisions and metrics, which have no NaN, make of it, as the heads' docstring says."""
    yhat = jnp.array([[0.4, np.nan, 0.6]])
    assert HEADS["multilabel"].decide(yhat).tolist() == [[0, 0, 1]]
    assert HEADS["multiclass"].decide(yhat).tolist() == [1]
    assert HEADS["binary"].decide(yhat[:, 1:2]).tolist() == [0]
    assert HEADS["multiclass"].metric(yhat, jnp.eye(3)[1:2]).tolist() == [1]
    assert HEADS["multilabel"].metric(yhat, jnp.array([[1.0, 0.0, 1.0]])).tolist() == [1]
    assert np.isnan(HEADS["regression"].metric(yhat, yhat)).all()


# --- softmax in its forms --------------------------------------------------------------------------------------------


@jax.jit
def reduced(v):
    return softmax_forms.softmax_reduced(v), HEADS["multiclass"].link(jnp.pad(v, ((0, 0), (0, 1))))


@given(edges((ROWS, K - 1), LARGEST / 4))
def test_softmax_of_one_score_less(v):
    got, expected = reduced(v)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=TINY)
    np.testing.assert_allclose(np.sum(got, axis=1), 1, rtol=1e-6)


@jax.jit
def jacobian_parts(z):
    yhat = HEADS["multiclass"].link(z)
    product = softmax_forms.softmax_vjp(jnp.ones_like(yhat), yhat)
    return jax.vmap(softmax_forms.softmax_jacobian)(yhat), product, softmax_forms.cross_entropy_dyhat(yhat, 0 * yhat)


@given(edges((ROWS, K), LARGEST / 4))
def test_the_jacobian_of_sure_rows(z):
    """Symmetric, its rows sum to 0; its product with 1 is 0; a class that is not true counts for nothing."""
    jacobian, product, dyhat = jacobian_parts(z)
    np.testing.assert_array_equal(jacobian, np.swapaxes(jacobian, 1, 2))
    np.testing.assert_allclose(np.sum(jacobian, axis=2), 0, atol=1e-6)
    np.testing.assert_allclose(product, 0, atol=1e-6)
    np.testing.assert_array_equal(dyhat, 0)


@given(arrays(np.float32, (4, ROWS), elements=st.floats(-30, 30, width=32)), arrays(np.bool_, (4, ROWS)))
def test_the_quotient_rule_where_squares_vanish(exponents, negative):
    """(f/g)′ for numbers between 1e-30 and 1e30, whose squares are outside of float32."""
    f, df, g, dg = np.float32(10.0) ** exponents * np.where(negative, np.float32(-1), np.float32(1))
    exactly = [np.float64(v) for v in (f, df, g, dg)]
    terms = exactly[1] / exactly[2], exactly[0] / exactly[2] * (exactly[3] / exactly[2])
    with np.errstate(over="ignore"):
        got = softmax_forms.quotient_rule(f, df, g, dg)
    representable = np.maximum(*np.abs(terms)) < LARGEST / 10
    error = np.abs(got.astype(np.float64) - (terms[0] - terms[1]))
    assert (error <= 1e-6 * (np.abs(terms[0]) + np.abs(terms[1])) + TINY)[representable].all()


# --- penalties -------------------------------------------------------------------------------------------------------


@jax.jit
def penalty_parts(W, l1, l2):
    def of(name, *strengths):
        rule = PENALTIES[name]
        return rule.f(W, *strengths), rule.df(W, *strengths), rule.ddf(W, jnp.ones_like(W), *strengths)

    return {"l1": of("l1", l1), "l2": of("l2", l2), "elastic_net": of("elastic_net", l1, l2)}


strengths = st.sampled_from((0.0, 1e-4, 1.0, 1e4))


@given(W=edges((3, 4), LARGEST), l1=strengths, l2=strengths)
def test_penalties_anywhere(W, l1, l2):
    """l1 Σ|W| + (l2/2) ΣW²: 0 for a strength of 0 whatever W is, and ∞ only where it is more than float32 holds."""
    exactly = W.astype(np.float64)
    lasso, ridge = l1 * np.abs(exactly).sum(), l2 / 2 * (exactly**2).sum()
    d_lasso, d_ridge = l1 * np.sign(np.where(np.abs(W) < TINY, 0, exactly)), l2 * exactly
    both = (lasso + ridge, d_lasso + d_ridge, l2)
    right = {"l1": (lasso, d_lasso, 0), "l2": (ridge, d_ridge, l2), "elastic_net": both}
    for name, (f, df, ddf) in penalty_parts(W, l1, l2).items():
        assert_right(f, right[name][0], 1e-5)
        subnormal = (np.abs(W) < TINY) & (W != 0)
        # the sign of a subnormal number may be its own, or 0
        assert_right(df[~subnormal], right[name][1][~subnormal], 1e-5)
        assert (np.abs(df[subnormal]) <= l1 + TINY).all()
        np.testing.assert_array_equal(ddf, np.full_like(W, right[name][2]))


def test_a_penalty_passes_nan_and_infinity():
    for name, rule in PENALTIES.items():
        given_strengths = (0.5,) * (2 if name == "elastic_net" else 1)
        assert np.isnan(rule.f(jnp.array([[np.nan, 1.0]]), *given_strengths))
        assert np.isposinf(rule.f(jnp.array([[-np.inf, 1.0]]), *given_strengths))
