"""Checks of the section *One hidden layer*: versions 1, 2 and 3, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

import mlpjax
from mlpjax import counting, one_hidden
from mlpjax.activations import sigmoid_derivative, tanh_derivative
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.config import Config
from mlpjax.lecture._one_hidden import Case, M, all_examples, by_hand, drawn, one_example
from mlpjax.logistic_unit import bce_da
from mlpjax.one_hidden import Forward, Gradients
from mlpjax.parameters import Batch, Params

Form = Callable[[Case], Any]


def mlp1_v1_forward_1() -> tuple[Claim, ...]:
    """Version 1, hidden layer: each unit of each example by itself."""
    params, x, _ = drawn()
    forward, (z1, a1, _, _) = one_hidden.forward_v1(params, x), by_hand(params, x)
    return agree("z[1] by Python numbers", forward.z1, z1), agree("a[1] = tanh z[1]", forward.a1, a1)


def mlp1_v1_forward_2() -> tuple[Claim, ...]:
    """Version 1, output layer."""
    params, x, _ = drawn()
    forward, (_, _, z2, a2) = one_hidden.forward_v1(params, x), by_hand(params, x)
    return agree("z[2] by Python numbers", forward.z2, z2), agree("a[2] = σ(z[2])", forward.a2, a2)


def _rows(params: Params, x: Any) -> Forward:
    return jax.jit(jax.vmap(partial(one_hidden.forward_example, params)))(x[:, None, :])


def mlp1_v2_forward_1() -> tuple[Claim, ...]:
    """Version 2, hidden layer: a row vector times W[1]; one after the other or by jax.vmap."""
    params, x, _ = drawn()
    forward, z1 = one_hidden.forward_v2(params, x), x @ params[0].W + params[0].b
    return (
        agree("z[1]", forward.z1, z1),
        agree("a[1] = tanh z[1]", forward.a1, np.tanh(z1)),
        agree("jax.vmap of one example", _rows(params, x).a1[:, 0], np.tanh(z1)),
    )


def mlp1_v2_forward_2() -> tuple[Claim, ...]:
    """Version 2, output layer: a row vector times W[2]."""
    params, x, _ = drawn()
    forward, (_, a1, _, a2) = one_hidden.forward_v2(params, x), by_hand(params, x)
    return (
        agree("z[2]", forward.z2, a1 @ params[1].W + params[1].b),
        agree("a[2] = σ(z[2])", forward.a2, a2),
        agree("jax.vmap of one example", _rows(params, x).a2[:, 0], a2),
    )


@printed("err-v2-da-sign", lambda case: -(case.y / case.forward.a2 + (1 - case.y) / (1 - case.forward.a2)))
@printed("err-list-dash", lambda case: -bce_da(case.forward.a2, case.y))
def mlp1_v2_back_da2(form: Form = lambda case: bce_da(case.forward.a2, case.y)) -> tuple[Claim, ...]:
    """∂L/∂a[2] = −(y/a − (1 − y)/(1 − a)), for a label 0 and a label 1."""
    case, a = one_example(), np.array([[0.3]])
    at_zero = case._replace(y=np.zeros((1, 1)), forward=Forward(None, None, None, a))
    return (
        agree("against jax.grad", form(case), case.auto["a2"]),
        agree("y = 0, a = 0.3: 1/0.7", form(at_zero), [[1 / 0.7]]),
    )


def mlp1_v2_back_dz2() -> tuple[Claim, ...]:
    """∂L/∂z[2] = ∂L/∂a[2] ⊙ σ′(z[2]), which is a[2] − y."""
    case = one_example()
    product = bce_da(case.forward.a2, case.y) * sigmoid_derivative(case.forward.z2)
    return agree("against jax.grad", case.found.dz2, case.auto["z2"]), agree("as the product", case.found.dz2, product)


def mlp1_v2_back_dW2() -> tuple[Claim, ...]:
    """∂L/∂W[2] = a[1]ᵀ ∂L/∂z[2]: a column times a row."""
    case = one_example()
    outer = np.outer(case.forward.a1, case.found.dz2)
    return agree("against jax.grad", case.found.dW2, case.auto["W2"]), agree("np.outer", case.found.dW2, outer)


def mlp1_v2_back_db2() -> Claim:
    """∂L/∂b[2] = ∂L/∂z[2]."""
    case = one_example()
    return agree("against jax.grad", case.found.db2, case.auto["b2"])


@printed("err-v2-wT-shape", lambda case: case.found.dz2 @ np.reshape(case.params[1].W[0], (1, 2)).T)
def mlp1_v2_back_da1(form: Form = lambda case: case.found.da1) -> Claim:
    """∂L/∂a[1] = ∂L/∂z[2] W[2]ᵀ with W[2]ᵀ of shape (n_2, n_1); of the shape (1, n_2)ᵀ it gives one number."""
    case = one_example()
    return agree("against jax.grad with respect to a[1]", form(case), case.auto["a1"])


@printed("err-v2-dz1-garbled", lambda case: case.found.da1 * case.forward.a1 * case.forward.z1)
def mlp1_v2_back_dz1(form: Form = lambda case: case.found.dz1) -> tuple[Claim, ...]:
    """∂L/∂z[1] = ∂L/∂a[1] ⊙ g′(z[1])."""
    case = one_example()
    return (
        agree("against jax.grad with respect to z[1]", form(case), case.auto["z1"]),
        agree("with 1 − tanh²", form(case), case.auto["a1"] * (1 - np.tanh(case.forward.z1) ** 2)),
    )


def mlp1_v2_back_dW1() -> tuple[Claim, ...]:
    """∂L/∂W[1] = a[0]ᵀ ∂L/∂z[1], a[0] being x."""
    case = one_example()
    outer = np.outer(case.x, case.auto["z1"])
    return agree("against jax.grad", case.found.dW1, case.auto["W1"]), agree("np.outer", case.found.dW1, outer)


def mlp1_v2_back_db1() -> Claim:
    """∂L/∂b[1] = ∂L/∂z[1]."""
    case = one_example()
    return agree("against jax.grad", case.found.db1, case.auto["b1"])


def mlp1_v3_forward_1() -> tuple[Claim, ...]:
    """Version 3, hidden layer: all rows at once are the rows of version 2, each on its own."""
    params, x, _ = drawn()
    forward, (z1, a1, _, _) = one_hidden.forward_v3(params, x), by_hand(params, x)
    return agree("Z[1] by Python numbers", forward.z1, z1), agree("A[1] = tanh Z[1]", forward.a1, a1)


def mlp1_v3_forward_2() -> tuple[Claim, ...]:
    """Version 3, output layer; the same as `mlpjax.forward`."""
    params, x, _ = drawn()
    forward, (_, _, z2, a2) = one_hidden.forward_v3(params, x), by_hand(params, x)
    z, _ = mlpjax.forward(Config(sizes=(3, 4, 2), activation="tanh", head="multilabel"), params, (), x)
    return (
        agree("Z[2] by Python numbers", forward.z2, z2),
        agree("A[2] = σ(Z[2])", forward.a2, a2),
        agree("mlpjax.forward", z, z2),
    )


def mlp1_v3_layout() -> tuple[Claim, ...]:
    """Rows are examples: another order of rows gives that order of outputs, and the transpose is refused."""
    params, x, _ = drawn()
    order = np.array([3, 0, 4, 1, 2])
    a2 = np.asarray(one_hidden.forward_v3(params, x).a2)
    try:
        one_hidden.forward_v3(params, x.T)
        refused = "taken"
    except ValueError as error:
        refused = str(error)
    return (
        agree("permuted examples", one_hidden.forward_v3(params, x[order]).a2, a2[order]),
        equal("shape (m, n_2)", a2.shape, (M, 2)),
        holds("features first", "(3, 5)" in refused, refused),
    )


@printed("err-L-vs-J", lambda case: np.asarray(case.forward.a2 - case.y) / M)
def mlp1_v3_back_dZ2(form: Form = lambda case: case.found.dz2) -> tuple[Claim, ...]:
    """dZ[2] = A[2] − Y is per example, m ∂J/∂Z[2]; and it sums over outputs, of which some libraries take the mean."""
    case = all_examples()
    mean = jax.jit(jax.grad(lambda z: optax.sigmoid_binary_cross_entropy(z, case.y).mean()))(case.forward.z2)
    return (
        agree("m · jax.grad of J with respect to Z[2]", form(case), M * case.auto["z2"]),
        agree("m · n_2 · the gradient of the mean over both", form(case), M * 2 * mean),
    )


@printed("err-double-mean", lambda case: case.forward.a1.T @ (case.found.dz2 / M) / M)
def mlp1_v3_back_dW2(form: Form = lambda case: case.found.dW2) -> Claim:
    """dW[2] = (1/m) A[1]ᵀ dZ[2]: the 1/m comes in here, once."""
    case = all_examples()
    return agree("against jax.grad of J", form(case), case.auto["W2"])


def mlp1_v3_back_db2() -> tuple[Claim, ...]:
    """db[2] = (1/m) Σᵢ dZ[2], in the shape of b[2]."""
    case = all_examples()
    mean = np.mean(case.forward.a2 - case.y, axis=0)
    return agree("against jax.grad of J", case.found.db2, case.auto["b2"]), agree(
        "mean of A[2] − Y", case.found.db2, mean
    )


def mlp1_v3_back_dA1() -> Claim:
    """dA[1] = dZ[2] W[2]ᵀ, per example."""
    case = all_examples()
    return agree("m · jax.grad of J with respect to A[1]", case.found.da1, M * case.auto["a1"])


def mlp1_v3_back_dZ1() -> tuple[Claim, ...]:
    """dZ[1] = dA[1] ⊙ g′(Z[1]), per example."""
    case = all_examples()
    product = M * case.auto["a1"] * tanh_derivative(case.forward.z1)
    return (
        agree("m · jax.grad of J with respect to Z[1]", case.found.dz1, M * case.auto["z1"]),
        agree("as the product", case.found.dz1, product),
    )


def mlp1_v3_back_dW1() -> Claim:
    """dW[1] = (1/m) Xᵀ dZ[1]."""
    case = all_examples()
    return agree("against jax.grad of J", case.found.dW1, case.auto["W1"])


def mlp1_v3_back_db1() -> Claim:
    """db[1] = (1/m) Σᵢ dZ[1]."""
    case = all_examples()
    return agree("against jax.grad of J", case.found.db1, case.auto["b1"])


def mlp1_v123_equal() -> tuple[Claim, ...]:
    """The three versions are one function, and its dW, db those of `mlpjax.backward`."""
    params, x, y = drawn()
    results = []
    for version in one_hidden.VERSIONS.values():
        forward = version.forward(params, x, "tanh")
        results.append((*forward, *version.backward(params, x, y, forward, "tanh")))
    names = (*Forward._fields, *Gradients._fields)
    config = Config(sizes=(3, 4, 2), activation="tanh", head="multilabel")
    _, (first, second) = jax.jit(mlpjax.backward)(config, params, (), Batch(x, y))
    grads = Gradients(*results[0][4:])
    return (
        *(agree(f"{name}: 2 against 1", two, one) for name, one, two in zip(names, *results[:2], strict=True)),
        *(agree(f"{name}: 3 against 1", three, one) for name, one, three in zip(names, *results[::2], strict=True)),
        agree("mlpjax.backward, dW[1]", first.W, grads.dW1),
        agree("mlpjax.backward, db[2]", second.b, grads.db2),
    )


def mlp1_vectorisation_speed() -> tuple[Claim, ...]:
    """Version 3 does the multiplications of version 2 in 6 matrix products, whatever m; version 2 in 5 m small ones."""
    products, multiplications = {}, {}
    for version in (2, 3):
        for m in (5, 50):
            params, x, y = drawn()
            x, y = np.tile(x, (m // M, 1)), np.tile(y, (m // M, 1))
            counts = counting.count_operations(partial(_both_passes, version), params, x, y)
            products[version, m], multiplications[version, m] = counts["dot_general"], counts["multiplications"]
    return (
        equal("products of version 3 for m = 5, 50", [products[3, 5], products[3, 50]], [6, 6]),
        equal("products of version 2 for m = 5, 50", [products[2, 5], products[2, 50]], [25, 250]),
        holds(
            "multiplications: those of version 2, and m n_0 n_1 for dX",
            multiplications[3, 50] - multiplications[2, 50] == 50 * 3 * 4,
            multiplications[3, 50],
        ),
    )


def _both_passes(version: int, params: Params, x: Any, y: Any) -> Gradients:
    forward, backward = one_hidden.VERSIONS[version]
    return backward(params, x, y, forward(params, x, "tanh"), "tanh")
