"""The audit of networks: this package's gradients pass, in every precision; mistakes are found, and named."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax import ACTIVATIONS, HEADS, Config, check_gradients
from mlpjax.activations import Activation
from mlpjax.cases import all_pairs, make_case, on_kink, random_network
from mlpjax.diagnosis import diagnose
from mlpjax.faults import FAULTS, exercise_case, faulty
from mlpjax.networks import FACTORS, PINNED, audit_given, audit_kinks, audit_network, default_networks
from mlpjax.reports import Evidence

PLAIN = make_case(Config(sizes=(3, 6, 2), head="regression", activation="tanh", l2=0.1), "given")


def audited(case, grad_fn=mlpjax.backward, **options):
    f, grad_f = (functools.partial(function, train=case.train) for function in (mlpjax.loss, grad_fn))
    return check_gradients(
        f, grad_f, *case[:5], argnums=1, returns="value_and_grad", has_aux=True, kinks="autodiff", jit=False, **options
    )


def test_the_default_networks_are_all_activations_with_all_heads_and_all_pairs():
    networks = default_networks()
    whole = {(n.config.activation, n.config.head) for n in networks[: len(ACTIVATIONS) * len(HEADS)]}
    assert whole == {(activation, head) for activation in ACTIVATIONS for head in HEADS}
    rest = networks[len(whole) :]
    assert len({n.name for n in networks}) == len(networks)
    assert 20 <= len(rest) < 60
    seen = {(n.weight, n.train, n.config.head, n.config.depth - 1) for n in rest}
    for pair in all_pairs({name: FACTORS[name] for name in ("weight", "train", "head", "hidden")}):
        wanted = dict(pair)
        assert any(
            all(dict(zip(("weight", "train", "head", "hidden"), s, strict=True))[k] == v for k, v in wanted.items())
            for s in seen
        ), pair


@pytest.mark.slow
@pytest.mark.parametrize("number", [36, 71])
def test_the_audit_of_this_package_passes(number):
    """A few of the networks that ``mlpjax audit`` looks at, ∂J/∂x included."""
    network = default_networks()[number]
    report = audit_network(make_case(network.config, network.weight, network.train))
    assert report.ok, str(report)
    assert report.leaves[-1].path == "x"
    assert {c.oracle for c in report.leaves[0].comparisons} >= {"reverse", "forward", "differences"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(7))
def test_no_false_alarm_on_random_networks(seed):
    """A slice of the experiment of 500: kinks, zero weights, zero inputs, one row; one shape, to compile little."""
    config, weight, train = random_network(np.random.default_rng([2, seed]), (3, 4, 2))
    changes = {"activation": "relu", "head": "regression", "sizes": (3, 4, 2), "batch_norm": seed % 2 == 1}
    config = Config.from_dict({**config.to_dict(), **changes, "init": "zeros" if seed % 4 == 0 else "auto"})
    one_row = seed == 5
    case = make_case(config, "none" if one_row else weight, train, 1 if one_row else 7, seed)
    if seed == 6:
        case = case._replace(batch=case.batch._replace(x=np.zeros_like(case.batch.x)))
    case = on_kink(case) if seed % 3 == 0 else case
    for dtype in ("float64", "float32"):
        report = audited(case, dtype=dtype)
        assert report.ok, f"{config} {report}"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_lower_precision_is_judged_by_float64(dtype):
    report = audited(PLAIN, dtype=dtype)
    assert report.ok, str(report)
    assert report.environment["dtype"] == dtype
    assert report.environment["matmul_precision"] == "highest"
    assert report.environment["device"].startswith("cpu")
    assert {leaf.oracle for leaf in report.leaves} == {"float64"}
    assert max(leaf.relative for leaf in report.leaves) > 0
    tolerance = report.environment["rtol"]
    assert not audited(PLAIN, scaled(1 + 4 * tolerance), dtype=dtype).ok
    assert audited(PLAIN, scaled(1 + 4e-3), dtype=dtype, rtol=1e-2).ok


def scaled(factor):
    def grad_fn(*args, **options):
        value, grads = mlpjax.backward(*args, **options)
        return value, jax.tree.map(lambda leaf: (factor * leaf).astype(leaf.dtype), grads)

    return grad_fn


@pytest.mark.slow
def test_dropout_masks_do_not_depend_on_the_precision():
    case = make_case(Config(sizes=(3, 6, 2), head="regression", activation="tanh", dropout=0.5))
    report = audited(case, dtype="float32")
    assert report.ok, str(report)
    assert max(leaf.relative for leaf in report.leaves) < 1e-5


@pytest.mark.slow
def test_what_is_pinned_at_the_kinks():
    kinks = audit_kinks()
    assert all(kink.ok for kink in kinks)
    assert {kink.name for kink in kinks} >= {f"{name}′(0)" for name in PINNED}
    # every activation that is not smooth at 0 is pinned: its one-sided derivatives differ, or its value jumps
    with jax.enable_x64(True):
        for name, one in ACTIVATIONS.items():
            extra = (jnp.full(1, 0.25),) if one.df_dslope is not None else ()
            low, high = (float(one.df(jnp.array([z]), *extra)[0]) for z in (-1e-12, 1e-12))
            jump = float((one.f(jnp.array([1e-12]), *extra) - one.f(jnp.array([-1e-12]), *extra))[0])
            assert name in PINNED or (low == pytest.approx(high, abs=1e-9) and abs(jump) < 1e-9), name


@pytest.mark.slow
def test_a_changed_kink_value_is_found(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "relu", Activation(ACTIVATIONS["relu"].f, lambda z: jnp.where(z < 0, 0.0, 1.0)))
    assert [kink.name for kink in audit_kinks() if not kink.ok] == ["relu′(0)"]
    case = on_kink(make_case(Config(sizes=(3, 6, 2), head="regression", activation="relu")))
    assert not audited(case).ok


# --- diagnosis --------------------------------------------------------------------------------------------------

SOME = [
    "last-sample-dropped", "derivative-of-a", "batch-norm-without-mean-term", "relu-1-at-0", "one-entry-zero",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_a_mistake_is_named_with_the_formula_that_was_meant(name):
    fault = FAULTS[name]
    report = audited(exercise_case(fault.exercise, seed=5), faulty(fault))
    assert not report.ok
    first = report.diagnose()[0]
    assert (first.name, first.meant, first.source) == (name, fault.meant, fault.source)
    assert first.explains > 1 - 1e-6
    assert fault.meant in str(first)


def explained(given, right, leaves=None):
    """The explanations of a gradient of a function that is no network."""
    given, right = ([np.asarray(leaf, np.float64) for leaf in side] for side in (given, right))
    leaves = right if leaves is None else leaves
    paths = tuple(f"p[{i}]" for i in range(len(right)))
    return diagnose(Evidence(None, (), paths, tuple(leaves), tuple(given), tuple(right)))


RNG = np.random.default_rng(0)
W, V, B = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=5)
PARAMETER = RNG.normal(size=(4, 4))
RELATIONS = {
    "scale of all": ([3 * W, 3 * B], [W, B], "scale", "the whole gradient is 3 times"),
    "1/m": ([W / 9, B], [W, B], "scale", "p[0] is 1/9 times"),
    "sign": ([W, -B], [W, B], "sign", "p[1] is −1 times"),
    "missing": ([W, 0 * B], [W, B], "missing", "p[1] is zero"),
    "transpose": ([W.T, B], [W, B], "transpose", "p[0] is the right one transposed"),
    "reversed": ([W, B[::-1]], [W, B], "order", "p[1] is the right one reversed along axis 0"),
    "shifted": ([np.roll(W, 1, 1), B], [W, B], "order", "p[0] is the right one shifted by 1 along axis 1"),
    "order": ([W.ravel()[RNG.permutation(16)].reshape(4, 4), B], [W, B], "order", "p[0] has the right entries in"),
    "swapped": ([V, W], [W, V], "swapped", "p[0] and p[1] are swapped"),
    "term": ([W + 0.2 * PARAMETER, B], [W, B], "term", "p[0] differs by 0.2 times the parameter itself"),
    "sign term": ([W - 0.1 * np.sign(PARAMETER), B], [W, B], "term", "differs by -0.1 times the parameter's sign"),
    "constant": ([W, B + 0.5], [W, B], "term", "p[1] differs by 0.5 everywhere"),
    "clipped": ([np.clip(W, -0.5, 0.5), B], [W, B], "clipped", "p[0] is the right one clipped to ±0.5"),
    "absolute": ([np.abs(W), B], [W, B], "absolute value", "p[0] is the absolute value"),
    "rounded": ([W.astype(np.float16), B], [W, B], "rounded", "p[0] is the right one rounded to float16"),
    "two": ([-W, 2 * B], [W, B], "sign and scale", "p[0] is −1 times the right one; p[1] is 2 times"),
}  # fmt: skip


@pytest.mark.parametrize("name", RELATIONS)
def test_simple_relations_are_named(name):
    given, right, relation, words = RELATIONS[name]
    leaves = [PARAMETER if leaf.ndim == 2 else B for leaf in right]
    (first, *_) = explained(given, right, leaves)
    assert first.name == relation
    assert words in first.cause
    assert first.explains > 0.999


def test_single_entries_are_named():
    given = B.copy()
    given[3] *= 1.0005
    (first,) = explained([W, given], [W, B])
    assert first.name == "single entries"
    assert first.cause.startswith("p[1] is right but for [3] is ")


def test_what_nothing_explains_gets_no_name():
    assert explained([RNG.normal(size=(4, 4)), B], [W, B]) == []
    assert explained([W, B], [W, B]) == []


def test_a_gradient_that_is_not_finite_is_told():
    (first,) = explained([np.full((4, 4), np.nan), B], [W, B])
    assert first.cause == "the gradient is not finite in p[0]"


@pytest.mark.slow
def test_a_gradient_given_as_numbers():
    _, grads = PLAIN.call(mlpjax.backward)
    report = audit_given(PLAIN, grads)
    assert report.ok, str(report)
    assert report.environment["dtype"] == "float32"
    wrong = (grads[0], grads[1]._replace(b=2 * grads[1].b))
    report = audit_given(PLAIN, wrong)
    assert [leaf.path for leaf in report.leaves if not leaf.ok] == ["params[1].b"]
    assert report.diagnose(PLAIN)


# --- the report -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_reads_well_and_round_trips():
    report = audited(PLAIN, scaled(1.01))
    text = str(report)
    assert text.splitlines()[0] == "the gradient is wrong in 4 of 4 leaves, float64"
    assert "params[0].W: wrong: the gradient is not the derivative of f" in text
    plain, coloured = report.table(color=False), report.table(color=True)
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    rows = [line for line in plain.splitlines() if "params" in line]
    assert len(rows) == 4
    assert len({len(line) for line in rows}) == 1
    values = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert values["ok"] is False
    assert [leaf["path"] for leaf in values["leaves"]] == [leaf.path for leaf in report.leaves]
    assert values["leaves"][0]["relative"] == pytest.approx(0.01, rel=0.05)
    assert values["environment"]["versions"]["jax"] == jax.__version__
    with pytest.raises(AssertionError, match="the gradient is wrong in 4 of 4 leaves"):
        assert report.ok, str(report)
