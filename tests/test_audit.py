"""The audit of gradients: what is right passes, what is wrong is found and named, whoever wrote it."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import one_fast_in

from mlpjax import InputError, check_gradients

X = np.array([-1.3, 0.4, 2.0])


def f(w):
    return jnp.sum(jnp.tanh(w) ** 2)


def df(w):
    return 2 * jnp.tanh(w) * (1 - jnp.tanh(w) ** 2)


def quick(*args, **options):
    """Without compiling: the functions are small, and share what runs."""
    return check_gradients(*args, jit=False, **options)


def verdicts(report):
    return [leaf.verdict for leaf in report.leaves]


# --- what is right ---------------------------------------------------------------------------------------------


def test_a_right_gradient_agrees_with_every_oracle():
    report = quick(f, df, X)
    assert report.ok, str(report)
    (leaf,) = report.leaves
    assert (leaf.path, leaf.shape, leaf.verdict, leaf.wrong) == ("w", (3,), "agrees", 0)
    assert {c.oracle: c.compared for c in leaf.comparisons} == {
        "reverse": 3, "forward": 3, "differences": 3, "complex step": 3,
    }  # fmt: skip
    errors = {c.oracle: c.error for c in leaf.comparisons}
    assert errors["differences"] < 1e-9
    assert all(error < 1e-14 for oracle, error in errors.items() if oracle != "differences")
    assert report.diagnose() == []


def test_compiled_oracles_say_the_same():
    one, other = (check_gradients(f, df, X, jit=jit) for jit in (False, True))
    assert one.ok
    assert other.ok
    assert one.leaves[0].index == other.leaves[0].index or one.leaves[0].relative < 1e-15


def test_it_is_float64_whatever_the_caller_uses():
    """An error of 1e-9, which float32 cannot hold, is found from float32 arguments, and the precision stays."""
    w = jnp.asarray(X, jnp.float32)
    assert quick(f, df, w).ok
    report = quick(f, lambda w: df(w) * (1 + 1e-9), w)
    assert not report.ok
    assert jnp.result_type(float) == jnp.float32
    assert report.environment["dtype"] == "float64"


@functools.partial(jax.tree_util.register_dataclass, data_fields=["w", "b"], meta_fields=["power"])
@dataclasses.dataclass
class Model:
    w: jax.Array
    b: jax.Array
    power: int


@pytest.mark.slow
def test_dicts_and_dataclasses_of_parameters():
    def of_dict(p, x):
        return jnp.mean((x @ p["w"] + p["b"]) ** 2)

    def by_hand(p, x):
        r = x @ p["w"] + p["b"]
        return {"w": 2 * x.T @ r / len(r), "b": 2 * jnp.mean(r)}

    x = np.arange(6.0).reshape(2, 3)
    report = quick(of_dict, by_hand, {"w": X, "b": np.float64(0.3)}, x)
    assert report.ok, str(report)
    assert [leaf.path for leaf in report.leaves] == ["p['b']", "p['w']"]

    def of_model(m):
        return jnp.sum((m.w * m.b) ** m.power)

    def model_by_hand(m):
        return Model(3 * m.w**2 * m.b**3, jnp.sum(3 * m.w**3 * m.b**2), m.power)

    report = quick(of_model, model_by_hand, Model(X, np.float64(0.7), 3))
    assert report.ok, str(report)
    assert [leaf.path for leaf in report.leaves] == ["m.w", "m.b"]


@pytest.mark.slow
def test_several_arguments_and_vector_functions():
    def layer(x, W):
        return jnp.tanh(x @ W)

    def layer_vjp(x, W, wrong=1.0):
        a = layer(x, W)
        return a, lambda da: ((da * (1 - a**2)) @ W.T, wrong * x.T @ (da * (1 - a**2)))

    x, W = np.linspace(-1, 1, 12).reshape(4, 3), np.linspace(0, 1, 6).reshape(3, 2)
    report = quick(layer, layer_vjp, x, W, argnums=(0, 1), returns="vjp")
    assert report.ok, str(report)
    assert [leaf.path for leaf in report.leaves] == ["x", "W"]
    report = quick(layer, functools.partial(layer_vjp, wrong=1.0005), x, W, argnums=(0, 1), returns="vjp")
    assert verdicts(report) == ["agrees", "wrong"]
    assert quick(layer, layer_vjp_of_W, x, W, argnums=-1, returns="vjp").ok


def layer_vjp_of_W(x, W):
    a = jnp.tanh(x @ W)
    return a, lambda da: x.T @ (da * (1 - a**2))


@pytest.mark.slow
def test_random_cotangents_see_what_all_ones_do_not():
    """A sum over normalised values is constant: with a cotangent of ones, every gradient that is 0 in sum passes."""

    def normalise(z):
        centred = z - jnp.mean(z)
        return centred / jnp.sqrt(jnp.mean(centred**2) + 1e-5)

    def without_variance_term(z):
        out = normalise(z)
        inv_std = 1 / jnp.sqrt(jnp.var(z) + 1e-5)
        return out, lambda d: inv_std * (d - jnp.mean(d))

    assert float(jnp.abs(without_variance_term(X)[1](jnp.ones(3))).max()) == 0
    assert verdicts(quick(normalise, without_variance_term, X, returns="vjp")) == ["wrong"]


# --- what is wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_small_fault_is_found_in_a_leaf_of_any_size(size):
    """0.05 % in one element: the same verdict, element and numbers, beside other leaves and in any order."""
    w = np.random.default_rng(0).normal(size=size)
    small = np.array([0.5, -2.0])

    def g(p):
        return sum(jnp.sum(leaf**2) for leaf in p.values())

    def wrong(p):
        grads = {name: 2 * leaf for name, leaf in p.items()}
        at = "a" if p["a"].shape == (size,) else "z"
        return {**grads, at: grads[at].at[7].multiply(1.0005)}

    for names in (("a", "z"), ("z", "a")):
        report = quick(g, wrong, dict(zip(names, (w, small), strict=True)))
        bad = [leaf for leaf in report.leaves if not leaf.ok]
        assert [leaf.path for leaf in bad] == [f"p['{names[0]}']"]
        assert (bad[0].index, bad[0].wrong) == ((7,), 1)
        assert bad[0].got / bad[0].expected == pytest.approx(1.0005, rel=1e-12)
        (first, *_) = report.diagnose()
        assert first.name == "single entries"
        assert "[7]" in first.cause
        assert "1.0005 times" in first.cause


def test_tolerance_does_not_grow_with_the_size():
    tolerances = [quick(lambda w: jnp.sum(w**2), lambda w: 2 * w, np.ones(n)).leaves[0].tolerance for n in (2, 3000)]
    assert tolerances[1] == pytest.approx(tolerances[0], rel=0.5)
    assert max(tolerances) < 1e-10


def test_a_small_leaf_is_not_hidden_by_a_large_one():
    def g(a, b):
        return 1e8 * jnp.sum(a**2) + 1e-4 * jnp.sum(b**2)

    report = quick(g, lambda a, b: (2e8 * a, 2e-4 * b * 1.0005), X, X, argnums=(0, 1))
    assert verdicts(report) == ["agrees", "wrong"]


@pytest.mark.slow
def test_a_leaf_whose_gradient_vanishes_by_cancellation_is_right():
    """Softmax gradients sum to zero: what is left of db under a constant shift is rounding, not a mistake."""

    def g(b, z):
        return jnp.sum(jax.nn.softmax(z + b) * jnp.arange(3.0)) + jnp.sum(z**2)

    def by_hand(b, z):
        y = jax.nn.softmax(z + b)
        dz = y * (jnp.arange(3.0) - jnp.sum(y * jnp.arange(3.0)))
        return jnp.sum(dz), dz + 2 * z

    assert quick(g, by_hand, np.float64(0.3), X, argnums=(0, 1)).ok


# --- kinks ------------------------------------------------------------------------------------------------------


def at_zero(value):
    """ReLU's derivative with a value at 0, times (1, 2, 3)."""
    return lambda x: jnp.where(x > 0, 1.0, jnp.where(x < 0, 0.0, value)) * jnp.arange(1.0, 4.0)


def relu_sum(x):
    return jnp.sum(jax.nn.relu(x) * jnp.arange(1.0, 4.0))


KINKED = np.array([-1.0, 0.0, 2.0])


@pytest.mark.parametrize(("value", "right"), [(0.0, True), (0.3, True), (1.0, True), (1.7, False), (-0.1, False)])
def test_at_a_kink_any_value_between_the_one_sided_derivatives_is_right(value, right):
    report = quick(relu_sum, at_zero(value), KINKED)
    assert report.ok == right
    assert verdicts(report) == ["kink" if right else "wrong"]
    if not right:
        assert report.leaves[0].index == (1,)


def test_with_a_pinned_value_only_that_one_is_right():
    assert quick(relu_sum, at_zero(0.0), KINKED, kinks="autodiff").ok
    assert verdicts(quick(relu_sum, at_zero(0.3), KINKED, kinks="autodiff")) == ["wrong"]


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7, 1e-9])
def test_a_kink_that_a_step_crosses_excuses_the_differences_only(distance):
    x = np.array([-1.0, distance, 2.0])
    assert quick(relu_sum, at_zero(0.0), x).ok
    assert not quick(relu_sum, lambda x: at_zero(0.0)(x).at[1].multiply(0.9), x).ok


@pytest.mark.slow
def test_where_kinks_meet_both_modes_have_to_agree():
    """relu(x) − relu(−x) is x, and autodiff's derivative at 0 is 0: told apart from a wrong formula."""

    def g(x):
        return jnp.sum(jax.nn.relu(x) - jax.nn.relu(-x))

    def by_hand(x):
        return jnp.where(x == 0, 0.0, 1.0)

    assert verdicts(quick(g, by_hand, KINKED)) == ["kink"]
    assert quick(g, lambda x: jnp.ones_like(x) * 1.001, KINKED).leaves[0].verdict == "wrong"


# --- who is wrong -----------------------------------------------------------------------------------------------


def with_rule(factor):
    """sin with a derivative rule of its own, wrong by a factor."""
    sin = jax.custom_jvp(jnp.sin)
    sin.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), factor * jnp.cos(primals[0]) * tangents[0]))
    return lambda x: jnp.sum(sin(x))


def test_a_wrong_rule_in_f_is_not_a_wrong_gradient():
    report = quick(with_rule(1.01), lambda x: 1.01 * jnp.cos(x), X)
    assert not report.ok
    assert verdicts(report) == ["rule"]
    assert report.leaves[0].oracle == "differences"
    assert verdicts(quick(with_rule(1.01), jnp.cos, X)) == ["autodiff"]
    assert verdicts(quick(with_rule(1.01), lambda x: 2 * jnp.cos(x), X)) == ["wrong"]


def test_modes_that_contradict_each_other_are_named():
    g = jax.custom_vjp(lambda x: jnp.sum(x**2))
    g.defvjp(lambda x: (jnp.sum(x**2), x), lambda x, d: (3 * d * x,))
    report = quick(g, lambda x: 2 * x, X)
    assert verdicts(report) == ["autodiff"]
    assert any("forward mode could not be asked" in note for note in report.notes)

    def linear(t):
        """The identity, with a transpose that is not."""
        return jax.lax.custom_linear_solve(lambda v: v, t, lambda _, b: b, lambda _, b: 1.5 * b)

    h = jax.custom_jvp(lambda x: x**2)
    h.defjvp(lambda primals, tangents: (primals[0] ** 2, linear(2 * primals[0] * tangents[0])))
    report = quick(lambda x: jnp.sum(h(x)), lambda x: 3 * x, X)
    assert verdicts(report) == ["modes"]
    assert report.leaves[0].oracle == "forward"


def test_value_and_gradient_of_different_functions():
    """The regressor that averages over outputs in the loss and sums in the gradient."""

    def loss(x):
        return jnp.mean(x**2) / 2

    consistent = quick(loss, lambda x: (jnp.sum(x**2) / 2, x), X, returns="value_and_grad")
    assert any("the pair is of another function than f" in problem for problem in consistent.problems)
    assert verdicts(consistent) == ["wrong"]
    assert "3 times" in consistent.diagnose()[0].cause
    value_only = quick(loss, lambda x: (jnp.sum(x**2) / 2, x / 3), X, returns="value_and_grad")
    assert (value_only.ok, verdicts(value_only)) == (False, ["agrees"])
    assert any("the gradient is that of f" in problem for problem in value_only.problems)
    neither = quick(loss, lambda x: (jnp.sum(x**2), x), X, returns="value_and_grad")
    assert any("derivative of neither" in problem for problem in neither.problems)
    assert quick(loss, lambda x: (jnp.mean(x**2) / 2, x / 3), X, returns="value_and_grad").ok


def test_aux_is_compared():
    def with_aux(x):
        return jnp.sum(x**2), {"mean": jnp.mean(x)}

    def by_hand(factor):
        return lambda x: ((jnp.sum(x**2), {"mean": factor * jnp.mean(x)}), 2 * x)

    assert quick(with_aux, by_hand(1.0), X, returns="value_and_grad", has_aux=True).ok
    report = quick(with_aux, by_hand(1.1), X, returns="value_and_grad", has_aux=True)
    assert report.problems == ("the aux of grad_f is not that of f: ['mean'] 0.403333333, not 0.366666667",)


def test_a_function_that_is_not_deterministic_is_named():
    rng = np.random.default_rng(0)
    report = quick(lambda x: jnp.sum(x) + rng.normal(), jnp.ones_like, X)
    assert not report.ok
    assert report.problems[0].startswith("f is not deterministic")
    report = quick(lambda x: jnp.sum(x), lambda x: jnp.ones_like(x).at[1].set(rng.normal()), X)
    assert report.problems == ("grad_f is not deterministic: two calls with the same arguments differ, most in x",)


def test_values_that_are_not_finite_are_named_with_the_oracle():
    report = quick(lambda x: jnp.sum(x**2), lambda x: (2 * x).at[2].set(jnp.nan), X)
    (leaf,) = report.leaves
    assert (leaf.verdict, leaf.oracle, leaf.index, leaf.wrong) == ("not finite", "hand", (2,), 1)

    def root(x):
        return jnp.sum(jnp.where(x > 0, jnp.sqrt(jnp.abs(x)), 0))

    (leaf,) = quick(root, lambda x: jnp.array([0.5, 0.0]), np.array([1.0, 0.0])).leaves
    assert (leaf.verdict, leaf.oracle, leaf.index, leaf.wrong) == ("not finite", "reverse", (1,), 1)
    json.loads(report.to_json(), parse_constant=pytest.fail)


# --- bad input --------------------------------------------------------------------------------------------------

BAD = {
    "an integer argument": ((f, df, np.arange(3)), {}, "w is of dtype int64: a gradient is with respect to real"),
    "a Python integer": ((f, df, 3), {}, "w is of dtype int64"),
    "an argument that is NaN": ((f, df, np.array([1, np.nan])), {}, r"w\[1\] is nan: expected finite"),
    "an argument JAX does not know": ((f, df, object()), {}, "w is of type object, which JAX does not know as a"),
    "an empty tree": ((f, df, {}), {}, "argument w has no elements"),
    "a function that is not finite": (
        (lambda x: jnp.sum(jnp.log(x)), df, -X), {}, "f\\(…\\) is nan: f has to be finite",
    ),
    "a function of integers": ((lambda x: jnp.argmax(x), df, X), {}, "is of dtype int.*: expected real"),
    "a vector function": ((jnp.tanh, df, X), {}, r"has shape \(3,\): a gradient is of a scalar; use returns='vjp'"),
    "an aux that was not announced": (
        (lambda x: (jnp.sum(x), 1.0), df, X), {}, "f returns a tuple: .*has_aux=True",
    ),
    "another tree": (
        (lambda p: jnp.sum(p["a"]), lambda p: {"b": p["a"]}, {"a": X}), {},
        r"another tree than .*: got \{'b': f\[3\]\}, expected \{'a': f\[3\]\}",
    ),
    "another shape": (
        (lambda p: jnp.sum(p["a"]), lambda p: {"a": p["a"][None]}, {"a": X}), {},
        r"another shape at p\['a'\]: got \{'a': f\[1, 3\]\}, expected \{'a': f\[3\]\}",
    ),
    "no pair": ((f, df, X), {"returns": "value_and_grad"}, r"grad_f returned a .*: expected \(value, grad"),
    "no function": ((jnp.tanh, lambda x: (x, x), X), {"returns": "vjp"}, "expected a function of a cotangent"),
    "argnums": ((f, df, X), {"argnums": 1}, "argnums is 1: expected positions among the 1 arguments"),
    "returns": ((f, df, X), {"returns": "gard"}, "unknown returns 'gard': did you mean 'grad'"),
    "dtype": ((f, df, X), {"dtype": "float23"}, "unknown dtype 'float23': did you mean"),
    "kinks": ((f, df, X), {"kinks": "pinned"}, "unknown kinks 'pinned'"),
    "rtol": ((f, df, X), {"rtol": -1.0}, "rtol is -1.0: expected a number between 0 and 1"),
    "max_elements": ((f, df, X), {"max_elements": 0}, "max_elements is 0: expected an integer ≥ 1"),
    "an argument twice": ((f, df, X), {"argnums": (0, 0)}, "an argument stands there twice"),
    "a negative seed": ((f, df, X), {"seed": -1}, "seed is -1: expected an integer ≥ 0"),
    "no function at all": ((f, 3, X), {}, "grad_f is a int: expected a function"),
    "a complex gradient": ((f, lambda w: df(w) + 0j, X), {}, "values of dtype complex128: expected real"),
    "a loop of unknown length": (
        (lambda x: jax.lax.while_loop(lambda v: v < 9, lambda v: 2 * v, x), lambda x: x, 1.0), {},
        "f cannot be traced and differentiated by JAX",
    ),
    "a branch on a value": ((lambda x: x * x if x > 0 else x, lambda x: 2 * x, 1.0), {}, "f cannot be traced"),
    "has_aux with vjp": ((f, df, X), {"returns": "vjp", "has_aux": True}, "has_aux goes with returns='grad'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_clear_error(name):
    args, options, message = BAD[name]
    with pytest.raises(InputError, match=message):
        quick(*args, **options)


# --- functions that are hard to judge ----------------------------------------------------------------------------

X2 = np.array([[1.0, 2.0], [3.0, -4.0]])


def two_leaves(s, factor=1.0):
    """A leaf whose gradient is s times that of the other."""
    return (
        lambda p: jnp.sum(jnp.sin(p["a"])) + s * jnp.sum(jnp.sin(p["b"])),
        lambda p: {"a": jnp.cos(p["a"]), "b": factor * s * jnp.cos(p["b"])},
        {"a": np.array([0.3, 1.0]), "b": np.array([0.5, 2.0])},
    )


@pytest.mark.parametrize("s", [1e-6, 1e-14, 1e-30])
def test_a_leaf_counts_by_its_own_scale(s):
    f, df, p = two_leaves(s)
    assert quick(f, df, p).ok
    assert verdicts(quick(f, two_leaves(s, 1.0005)[1], p)) == ["agrees", "wrong"]


@pytest.mark.slow
def test_constants_and_indices_of_numpy():
    """A closure over float64 data, and int64 indices, in either precision."""

    def f(W):
        return jnp.sum(jnp.tanh(X2 @ W))

    def picked(W, i):
        return jnp.sum(W[i] ** 2)

    def picked_by_hand(W, i):
        return jnp.zeros_like(W).at[i].add(2 * W[i])

    for dtype in ("float64", "float32"):
        report = quick(f, lambda W: X2.T @ (1 - jnp.tanh(X2 @ W) ** 2), np.ones((2, 2)), dtype=dtype)
        assert report.ok, str(report)
        report = quick(picked, picked_by_hand, np.ones(4), np.array([0, 2, 2]), dtype=dtype)
        assert report.ok, str(report)


STIFF = {
    "a plateau": (lambda x: jnp.sum(jnp.log(x**2 + 1e-14)), np.array([1e-7, 1.0, 4.0])),
    "a peak": (lambda x: jnp.exp(-(((x - 1e4) / 1e-3) ** 2)), np.array(1e4 + 1e-3)),
    "underflow": (lambda x: jnp.sum(x**2), np.full(3, 1e-165)),
    "overflow of float32": (lambda x: 1e100 * jnp.sum(jnp.sin(x)), X),
    "constant rows under batch-norm": (
        lambda x: jnp.sum((x - jnp.mean(x)) / jnp.sqrt(jnp.var(x) + 1e-12) * jnp.arange(4.0)), np.ones(4),
    ),
    "a large offset": (
        lambda x: jnp.sum((x - jnp.mean(x)) / jnp.sqrt(jnp.var(x) + 1e-5) * jnp.arange(3.0)), 1e6 + X,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", one_fast_in(len(STIFF), STIFF))
def test_differences_that_do_not_resolve_a_function_accuse_nobody(name):
    g, x = STIFF[name]
    report = quick(g, jax.grad(g), x)
    assert report.ok, str(report)
    assert not quick(g, lambda x: 1.0005 * jax.grad(g)(x), x).ok


def test_a_pullback_that_ignores_its_cotangent_is_wrong():
    def with_pull(pull):
        return lambda x: (jnp.sum(x**2), lambda ct: pull(x, ct))

    assert quick(lambda x: jnp.sum(x**2), with_pull(lambda x, ct: 2 * x * ct), X, returns="vjp").ok
    assert not quick(lambda x: jnp.sum(x**2), with_pull(lambda x, ct: 2 * x), X, returns="vjp").ok


def test_a_value_that_cancels_is_the_same_value():
    report = quick(
        lambda x: jnp.sum(x) - jnp.sum(x[::-1]),
        lambda x: (x[0] + x[1] + x[2] - (x[2] + x[1] + x[0]), 0 * x),
        np.array([0.1, 0.2, 0.3]),
        returns="value_and_grad",
    )
    assert report.ok, str(report)


def test_low_precision_checks_value_and_determinism_too():
    rng = np.random.default_rng(0)
    report = quick(f, lambda w: (f(w) + 1, df(w)), X, returns="value_and_grad", dtype="float32")
    assert any("value and gradient belong to different functions" in problem for problem in report.problems)
    report = quick(f, lambda w: df(w) * (1 + 1e-6 * rng.normal()), X, dtype="float32")
    assert any("grad_f is not deterministic" in problem for problem in report.problems)
    with pytest.raises(InputError, match="not finite in float16"):
        quick(f, df, 1e6 * X, dtype="float16")
