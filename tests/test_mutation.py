"""The tester is tested: one formula at a time is made wrong, and the proofs of `cases` have to notice."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from cases import assert_gradients_agree, assert_loss_matches_oracle, make_case, one_fast_in, sizes_of

from mlpjax import ACTIVATIONS, HEADS, PENALTIES, Config, layers, mlp, passes
from mlpjax.layers import BatchNormState, DropoutCache
from mlpjax.passes import RULES

SMALL_ERROR = 1.0005
"""Wrong by 0.05 %."""
SIZES = (3, 7, 6, 2)


class Mutant(NamedTuple):
    """Put ``wrong`` in the place of an item of a table, of a rule, or of a name of a module; ``case`` shows it."""

    name: str
    home: Any
    at: str
    wrong: Any
    case: Callable[[], Any]


def regression(**options):
    """A case of two hidden layers, or of other ``sizes``."""
    weight, train = options.pop("weight", "none"), options.pop("train", True)
    config = Config(**{"sizes": SIZES, "head": "regression", "activation": "tanh", **options})
    return lambda: make_case(config, weight, train)


def of_activation(name):
    return regression(sizes=(3, 6, 2), activation=name)


def of_head(head):
    return lambda: make_case(Config(sizes=sizes_of(head, 1), head=head, activation="tanh"), "given")


def at_kink(name):
    """Every unit of the hidden layer at exactly 0, with a gradient from above."""

    def case():
        one = make_case(Config(sizes=(3, 6, 2), head="regression", activation=name, bias=False))
        first, second = one.params
        return one._replace(params=(first._replace(W=jnp.zeros((3, 6))), second))

    return case


NORMED = regression(batch_norm=True, weight="given")
NORMED_UNWEIGHTED = regression(batch_norm=True)
NORMED_EVALUATION = regression(batch_norm=True, train=False)
DROPPING = regression(dropout=(0.2, 0.5, 0.3))
WEIGHTED = regression(weight="given")
SQUARE = regression(sizes=(3, 6, 6, 2))
PENALISED = {"l1": regression(l1=0.02), "l2": regression(l2=0.3), "elastic_net": regression(l1=0.02, l2=0.3)}


def times(factor, f):
    return lambda *args: factor * f(*args)


def output(function, index, factor):
    """``function`` with one of its outputs multiplied."""

    def wrong(*args):
        out = list(function(*args))
        out[index] = factor * out[index]
        return tuple(out)

    return wrong


def field_mutants(table, field, case, skip=()):
    """Every entry of a table with a wrong sign, and with a small error of scale."""
    for name, record in table.items():
        if name in skip:
            continue
        for kind, factor in (("sign", -1), ("scale", SMALL_ERROR)):
            wrong = record._replace(**{field: times(factor, getattr(record, field))})
            yield Mutant(f"{name}.{field} {kind}", table, name, wrong, case(name))


def entry(table, name, field, wrong):
    return table[name]._replace(**{field: wrong})


def off_at_zero(name):
    df, value = ACTIVATIONS[name].df, 1.0 if name in ("relu", "binary_step") else 0.5
    return lambda z, *slope: jnp.where(z == 0, value, df(z, *slope))


def activation_backward():
    yield from field_mutants(ACTIVATIONS, "df", of_activation, skip=("binary_step",))
    wrong = entry(ACTIVATIONS, "binary_step", "df", jnp.ones_like)
    yield Mutant("binary_step.df one", ACTIVATIONS, "binary_step", wrong, of_activation("binary_step"))
    for name in ("binary_step", "relu", "leaky_relu", "prelu", "elu", "selu"):
        wrong = entry(ACTIVATIONS, name, "df", off_at_zero(name))
        yield Mutant(f"{name}.df at 0", ACTIVATIONS, name, wrong, at_kink(name))
    wrong = entry(ACTIVATIONS, "relu", "f", lambda z: jnp.maximum(z, 0))
    yield Mutant("relu.f as maximum, ½ at 0 for autodiff", ACTIVATIONS, "relu", wrong, at_kink("relu"))
    slope = ACTIVATIONS["prelu"].df_dslope
    for kind, f in {
        "dropped": lambda z: 0 * z,
        "sign": times(-1, slope),
        "scale": times(SMALL_ERROR, slope),
        "positive part": lambda z: jnp.where(z > 0, z, 0),
    }.items():
        wrong = entry(ACTIVATIONS, "prelu", "df_dslope", f)
        yield Mutant(f"prelu.df_dslope {kind}", ACTIVATIONS, "prelu", wrong, of_activation("prelu"))
    wrong = entry(ACTIVATIONS, "sigmoid", "df", lambda z: z * (1 - z))
    yield Mutant("sigmoid.df of z for a", ACTIVATIONS, "sigmoid", wrong, of_activation("sigmoid"))


def head_and_penalty_backward():
    yield from field_mutants(HEADS, "dz", of_head)
    for name in HEADS:
        dz = HEADS[name].dz
        wrong = entry(HEADS, name, "dz", lambda z, y, dz=dz: dz(z, y) / z.shape[0])
        yield Mutant(f"{name}.dz with 1/m", HEADS, name, wrong, of_head(name))
    wrong = entry(HEADS, "regression_relu", "dz", HEADS["regression"].dz)
    yield Mutant("regression_relu.dz without relu′", HEADS, "regression_relu", wrong, of_head("regression_relu"))
    wrong = entry(
        HEADS, "binary", "loss",
        lambda z, y: jnp.sum(jnp.maximum(z, 0) - y * z + jnp.log1p(jnp.exp(-jnp.abs(z))), axis=1),
    )  # fmt: skip
    zeros = functools.partial(make_case, Config(sizes=(3, 1), head="binary", init="zeros", bias=False))
    yield Mutant("binary.loss with max and |z|, wrong at 0", HEADS, "binary", wrong, zeros)
    yield from field_mutants(PENALTIES, "df", PENALISED.__getitem__)
    for name in PENALTIES:
        wrong = entry(PENALTIES, name, "df", lambda W, *strengths: jnp.zeros_like(W))
        yield Mutant(f"{name}.df missing", PENALTIES, name, wrong, PENALISED[name])
    wrong = entry(PENALTIES, "l2", "df", lambda W, l2: 2 * l2 * W)
    yield Mutant("l2.df twice", PENALTIES, "l2", wrong, PENALISED["l2"])


def layer_backward():
    affine, norm = layers.affine_backward, layers.batch_norm_backward
    for i, name in enumerate(("dx", "dW", "db")):
        for kind, factor in (("sign", -1), ("scale", SMALL_ERROR), ("missing", 0)):
            yield Mutant(f"affine {name} {kind}", RULES, "affine", output(affine, i, factor), WEIGHTED)

    def transposed(which):
        def wrong(dz, cache, compute_dtype):
            dx, dW, db = affine(dz, cache, compute_dtype)
            if dW.shape[0] == dW.shape[1]:
                dx, dW = (dz @ cache.W, dW) if which == "dx" else (dx, dW.T)
            return dx, dW, db

        return wrong

    for which in ("dx", "dW"):
        yield Mutant(f"affine {which} with W transposed", RULES, "affine", transposed(which), SQUARE)

    for i, name in enumerate(("dz", "dgamma", "dbeta")):
        for kind, factor in (("sign", -1), ("scale", SMALL_ERROR), ("missing", 0)):
            yield Mutant(f"batch-norm {name} {kind}", RULES, "batch_norm", output(norm, i, factor), NORMED)

    def norm_terms(mean=1.0, var=1.0, gamma=True, inv_std=True, equal_rows=False):
        def wrong(dout, cache):
            zhat, p = cache.zhat, cache.p
            if equal_rows:
                p = jnp.full_like(p, 1 / p.shape[0])
            _, dgamma, dbeta = norm(dout, cache)
            dzhat = dout * cache.gamma[None, :] if gamma else dout
            sums = mean * jnp.sum(dzhat, axis=0)[None, :] + var * zhat * jnp.sum(dzhat * zhat, axis=0)[None, :]
            dz = dzhat - p[:, None] * sums
            return dz * cache.inv_std[None, :] if inv_std else dz, dgamma, dbeta

        return wrong

    for name, options in {
        "mean term dropped": {"mean": 0.0},
        "variance term dropped": {"var": 0.0},
        "both terms dropped": {"mean": 0.0, "var": 0.0},
        "variance term doubled": {"var": 2.0},
        "gamma dropped": {"gamma": False},
        "1/σ dropped": {"inv_std": False},
        "p as 1/m": {"equal_rows": True},
    }.items():
        yield Mutant(f"batch-norm {name}", RULES, "batch_norm", norm_terms(**options), NORMED)

    for name, wrong in {
        "not rescaled": lambda da, cache: da * (cache.mask > 0),
        "inverted": lambda da, cache: jnp.where(cache.mask == 0, da, 0),
        "no mask": lambda da, cache: da,
        "scale": times(SMALL_ERROR, layers.dropout_backward),
        "sign": times(-1, layers.dropout_backward),
    }.items():
        yield Mutant(f"dropout backward {name}", RULES, "dropout", wrong, DROPPING)


def network_backward():
    recursion = passes.run_backward

    def with_p(change):
        return lambda config, params, this, rules: recursion(config, params, this._replace(p=change(this)), rules)

    for name, change in {
        "1/m for w/Σw": lambda this: jnp.full_like(this.p, 1 / this.p.shape[0]),
        "w not divided": lambda this: this.p * this.weight_sum,
        "w/m for w/Σw": lambda this: this.p * this.weight_sum / this.p.shape[0],
        "w twice": lambda this: this.p * this.p,
    }.items():
        yield Mutant(f"row weights: {name}", passes, "run_backward", with_p(change), WEIGHTED)

    def in_layer(wrong):
        def gradients(config, rules, layer, dW, *others):
            return wrong(config, layer, dW, list(others))

        return gradients

    def rule(*args):
        return gradients_of(args[0], RULES, *args[1:])

    gradients_of = passes._gradients
    for name, wrong in {
        "penalty divided by the width": lambda c, l, dW, o: rule(c, l, dW * len(dW), *o)._replace(W=dW),
        "penalty on b": lambda c, l, dW, o: rule(c, l, dW, o[0] + c.l2 * l.b, *o[1:]),
    }.items():
        yield Mutant(name, passes, "_gradients", in_layer(wrong), PENALISED["l2"])


def formulas_forward():
    yield from field_mutants(ACTIVATIONS, "f", of_activation)
    yield from field_mutants(HEADS, "loss", of_head)
    yield from field_mutants(PENALTIES, "f", PENALISED.__getitem__)
    wrong = entry(ACTIVATIONS, "sigmoid", "f", lambda z: 1 / (1 + jnp.exp(-2 * z)))
    yield Mutant("sigmoid.f of 2z", ACTIVATIONS, "sigmoid", wrong, of_activation("sigmoid"))
    wrong = entry(ACTIVATIONS, "gelu", "f", ACTIVATIONS["gelu_tanh"].f)
    yield Mutant("gelu.f in its tanh form", ACTIVATIONS, "gelu", wrong, of_activation("gelu"))
    wrong = entry(HEADS, "regression", "loss", lambda z, y: jnp.mean((z - y) ** 2, axis=1) / 2)
    yield Mutant("regression.loss averages outputs", HEADS, "regression", wrong, of_head("regression"))


def layers_forward():
    affine, inference = layers.affine_forward, layers.batch_norm_inference
    for name, wrong in {
        "without b": lambda x, W, b, compute_dtype: affine(x, W, None),
        "b subtracted": lambda x, W, b, compute_dtype: affine(x, W, -b),
        "scale": lambda x, W, b, compute_dtype: affine(x, SMALL_ERROR * W, b),
    }.items():
        yield Mutant(f"affine forward {name}", passes, "affine_forward", wrong, WEIGHTED)

    def norm(eps=1e-5, unbiased=False, equal_rows=False, beta_sign=1):
        def wrong(z, gamma, beta, p, _):
            m = z.shape[0]
            p = jnp.full_like(p, 1 / m) if equal_rows else p
            _, cache, (mean, var) = layers.batch_norm_forward(z, gamma, beta, p)
            var = var * m / (m - 1) if unbiased else var
            zhat = (z - mean[None, :]) / jnp.sqrt(var[None, :] + eps)
            return gamma[None, :] * zhat + beta_sign * beta[None, :], cache, (mean, var)

        return wrong

    for name, options in {
        "ε = 1e-3": {"eps": 1e-3},
        "unbiased variance": {"unbiased": True},
        "rows not weighted": {"equal_rows": True},
        "β subtracted": {"beta_sign": -1},
        "β missing": {"beta_sign": 0},
    }.items():
        yield Mutant(f"batch-norm forward {name}", passes, "batch_norm_forward", norm(**options), NORMED)

    def inferred(z, gamma, beta, state, _):
        return inference(z, gamma, beta, state._replace(var=state.var**2))

    yield Mutant("batch-norm inference by σ²", passes, "batch_norm_inference", inferred, NORMED_EVALUATION)

    def moved(momentum, debias=True):
        def wrong(state, mean, var, *_):
            t = state.count + 1
            new = (1 - momentum) / (1 - momentum ** t.astype(mean.dtype)) if debias else 1 - momentum
            average = (old + new * (batch - old) for old, batch in zip(state[:2], (mean, var), strict=True))
            return BatchNormState(*average, t)

        return wrong

    for name, wrong in {"0.99": moved(0.99), "0.1": moved(0.1), "not debiased": moved(0.9, debias=False)}.items():
        yield Mutant(f"running statistics, momentum {name}", passes, "batch_norm_update", wrong, NORMED_UNWEIGHTED)

    def dropped(change):
        def wrong(a, rate, key):
            mask = change(layers.dropout_forward(a, rate, key)[1].mask, rate)
            return a * mask, DropoutCache(mask)

        return wrong

    for name, change in {
        "not rescaled": lambda mask, rate: mask * (1 - rate),
        "divided by the rate": lambda mask, rate: mask * (1 - rate) / rate,
        "inverted": lambda mask, rate: jnp.where(mask == 0, 1 / (1 - rate), 0.0),
    }.items():
        yield Mutant(f"dropout forward {name}", passes, "dropout_forward", dropped(change), DROPPING)

    def off_by_one(config, l, a, train, key):
        return layers.dropout_forward(a, config.dropout_rate(l), jax.random.fold_in(key, l + 1))

    yield Mutant("dropout key of the next layer", passes, "_drop", off_by_one, DROPPING)

    weights = passes.row_weights
    for name, change in {
        "ignored": lambda p, total: jnp.full_like(p, 1 / p.shape[0]),
        "not normalised": lambda p, total: p * total,
        "divided by m": lambda p, total: p * total / p.shape[0],
    }.items():

        def wrong(weight, m, dtype, change=change):
            p, total = weights(weight, m, dtype)
            return change(p, total), total

        yield Mutant(f"row weights {name}", passes, "row_weights", wrong, WEIGHTED)


BACKWARD = [*activation_backward(), *head_and_penalty_backward(), *layer_backward(), *network_backward()]
FORWARD = [*formulas_forward(), *layers_forward()]


def put_in(mutant, monkeypatch):
    if mutant.home is RULES:
        monkeypatch.setattr(passes, "RULES", RULES._replace(**{mutant.at: mutant.wrong}))
    else:
        setter = monkeypatch.setitem if isinstance(mutant.home, dict) else monkeypatch.setattr
        setter(mutant.home, mutant.at, mutant.wrong)


def test_there_are_many_mutants():
    names = [mutant.name for mutant in BACKWARD + FORWARD]
    assert len(set(names)) == len(names) >= 150


@pytest.mark.parametrize("mutant", one_fast_in(4, BACKWARD), ids=lambda mutant: mutant.name)
def test_wrong_gradients_are_caught(x64, monkeypatch, mutant):
    """A formula of the backward pass is wrong: autodiff of the loss says otherwise."""
    case = mutant.case()
    put_in(mutant, monkeypatch)
    with pytest.raises(AssertionError, match=r"\["):
        assert_gradients_agree(case, differences=False)


@pytest.mark.parametrize("mutant", FORWARD, ids=lambda mutant: mutant.name)
def test_wrong_values_are_caught(x64, monkeypatch, mutant):
    """A formula of the forward pass is wrong: autodiff differentiates the wrong one, but the loops say otherwise."""
    case = mutant.case()
    put_in(mutant, monkeypatch)
    with pytest.raises(AssertionError, match=r"\["):
        assert_loss_matches_oracle(case)


def unmutated():
    """One case for each that a mutant uses."""
    return {str(case.config) + str(case.train): case for case in (mutant.case() for mutant in BACKWARD + FORWARD)}


def test_without_a_mutant_nothing_is_caught(x64):
    """The same cases pass as they are: it is the mutant that is caught."""
    cases = unmutated()
    for case in cases.values():
        assert_gradients_agree(case, differences=False)
        assert_loss_matches_oracle(case)
    assert len(cases) > 30


@pytest.mark.parametrize("name", ["tanh", "prelu"])
def test_differences_alone_catch_a_small_error(x64, monkeypatch, name):
    """Wrong by 0.05 % in loss and gradient alike, as far as autodiff can see: differences of J still notice."""
    case = of_activation(name)()
    grad_fn = mlp.backward

    def wrong(*args, **kwargs):
        out, grads = grad_fn(*args, **kwargs)
        return out, (grads[0]._replace(W=SMALL_ERROR * grads[0].W), *grads[1:])

    monkeypatch.setattr("mlpjax.backward", wrong)
    monkeypatch.setattr("mlpjax.autodiff", wrong)
    with pytest.raises(AssertionError, match=r"\[0\]\.W"):
        assert_gradients_agree(case)
