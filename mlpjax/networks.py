"""The audit of mlpjax itself: every formula of the network, on networks that combine them.

`default_networks` are every activation with every head, and rows in which all pairs of the other options occur;
`audit_network` compares `mlpjax.backward` and `mlpjax.input_gradient` with every oracle on one of them, and
`audit_kinks` the values that the tables pin where a function has no derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import ACTIVATIONS
from mlpjax.audit import check_gradients
from mlpjax.cases import Case, covering_array
from mlpjax.config import Config
from mlpjax.exponential import SELU_SCALE
from mlpjax.heads import HEADS
from mlpjax.mlp import backward, input_gradient, loss
from mlpjax.parameters import Batch, Params
from mlpjax.penalties import PENALTIES
from mlpjax.reports import GradientReport

FACTORS: dict[str, tuple[Any, ...]] = {
    "hidden": (0, 1, 2, 3, 4),
    "head": ("binary", "multilabel", "multiclass", "regression", "regression_relu"),
    "activation": ("tanh", "relu", "prelu", "mixed"),
    "init": ("auto", "zeros", "he_uniform"),
    "dropout": ("none", "scalar", "tuple"),
    "weight": ("none", "given", "zeros"),
    "batch_norm": (False, True),
    "bias": (False, True),
    "l1": (None, 0.02),
    "l2": (None, 0.3),
    "train": (True, False),
}
"""The options of a network, of which `default_networks` takes all pairs of values."""
PINNED = {
    "binary_step": 0.0,
    "relu": 0.0,
    "leaky_relu": 1.0,
    "prelu": 1.0,
    "elu": 1.0,
    "selu": SELU_SCALE,
}
"""g′(0) of the activations that have no derivative there, or none by one formula."""
_N_IN = 3
_HIDDEN = (5, 4, 7, 6)
_MIXED = ("prelu", "gelu", "selu", "arctan")
_RATES = (0.2, 0.5, None, 0.3, 0.1)


class Network(NamedTuple):
    """A network to audit, by name: the arguments of `mlpjax.cases.make_case`."""

    name: str
    config: Config
    weight: str = "none"
    train: bool = True


class Kink(NamedTuple):
    """A pinned value: what the hand-derived derivative and autodiff say at 0, and what they should."""

    name: str
    hand: float
    autodiff: float
    expected: float

    @property
    def ok(self) -> bool:
        """Whether both say what is pinned."""
        return self.hand == self.autodiff == self.expected


def sizes_of(head: str, hidden: int, classes: int = 2) -> tuple[int, ...]:
    """``(3, …, n_L)`` with so many hidden layers; all networks end alike, so that few shapes have to be compiled.

    Every width and the number of rows differ, so that no transposed product fits by accident.

    >>> sizes_of("binary", 2)
    (3, 7, 6, 1)
    """
    n_L = {"binary": 1, "multiclass": classes}.get(head, 2)
    return (_N_IN, *_HIDDEN[len(_HIDDEN) - hidden :], n_L)


def row_config(row: dict[str, Any]) -> Config:
    """The config of a row of `mlpjax.cases.covering_array` over `FACTORS`.

    >>> row_config(covering_array(FACTORS)[0]).depth
    1
    """
    hidden = row["hidden"]
    return Config(
        sizes=sizes_of(row["head"], hidden),
        activation=_MIXED[:hidden] if row["activation"] == "mixed" else row["activation"],
        dropout={"none": None, "scalar": 0.4, "tuple": _RATES[: hidden + 1]}[row["dropout"]],
        **{name: row[name] for name in ("head", "init", "batch_norm", "bias", "l1", "l2")},
    )


def default_networks() -> list[Network]:
    """Every activation with every head, then all pairs of the other options.

    >>> [network.name for network in default_networks()][:2]
    ['identity × binary', 'identity × multilabel']
    """
    networks = [
        Network(f"{name} × {head}", Config(sizes=sizes_of(head, 1), activation=name, head=head), "given")
        for name in ACTIVATIONS
        for head in HEADS
    ]
    for row in covering_array(FACTORS):
        words = [f"{name}={value}" for name, value in row.items() if value not in (None, False, "none")]
        networks.append(Network(" ".join(words), row_config(row), row["weight"], row["train"]))
    return networks


def audit_network(case: Case, dtype: str = "float64", jit: bool = False) -> GradientReport:
    """Check ∂J/∂params and ∂J/∂x of one network, hand-derived, as `mlpjax.check_gradients` does.

    At a kink only the pinned value counts, which is autodiff's: `audit_kinks` says so.

    >>> audit_network(mlpjax.cases.make_case(Config(sizes=(3, 2), head="regression"))).ok
    True
    """
    f, grad_f = with_input(case, backward)
    x = np.asarray(case.batch.x, np.float64)
    return check_gradients(
        f, grad_f, case.params, x, argnums=(0, 1), returns="value_and_grad", has_aux=True,
        kinks="autodiff", dtype=dtype, jit=jit,
    )  # fmt: skip


def audit_given(case: Case, grads: Params, dtype: str = "float64") -> GradientReport:
    """Check a gradient that somebody gives, a tree like ``case.params``, against that of `mlpjax.loss`.

    A gradient of a lower precision is judged as such. At a kink any value between the one-sided derivatives counts.

    >>> case = mlpjax.cases.make_case(Config(sizes=(3, 2), head="regression"))
    >>> _, grads = case.call(mlpjax.backward)
    >>> audit_given(case, grads).environment["dtype"]
    'float32'
    """
    narrowest = min((np.asarray(leaf).dtype for leaf in jax.tree.leaves(grads)), key=lambda dtype: dtype.itemsize)
    if dtype == "float64" and narrowest != np.float64:
        dtype = narrowest.name

    def f(params: Any) -> Any:
        return case._replace(params=params).call(loss)[0]

    return check_gradients(f, lambda params: grads, case.params, dtype=dtype)


def with_input(case: Case, grad_fn: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """J as a function of ``(params, x)``, and its gradient by ``grad_fn`` and `mlpjax.input_gradient`."""

    def at(params: Any, x: Any) -> Case:
        # the state in the precision of the parameters
        dtype = params[0].W.dtype
        state = jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim else leaf, case.state)
        return case._replace(params=params, state=state, batch=Batch(x, *case.batch[1:]))

    def f(params: Any, x: Any) -> Any:
        return at(params, x).call(loss)

    def grad_f(params: Any, x: Any) -> Any:
        here = at(params, x)
        value, grads = here.call(grad_fn)
        return value, (grads, here.call(input_gradient))

    return f, grad_f


def audit_kinks() -> list[Kink]:
    """The derivatives at 0 that the tables pin: activations, the ReLU head, the penalties; by hand and by autodiff.

    >>> [kink.name for kink in audit_kinks() if not kink.ok]
    []
    """
    kinks = []
    with jax.enable_x64(True):
        zero = jnp.zeros((1, 1))
        slope = jnp.full(1, 0.25)
        for name, expected in PINNED.items():
            one = ACTIVATIONS[name]
            extra = () if one.df_dslope is None else (slope,)
            hand = one.df(zero, *extra)
            auto = jax.grad(lambda z, one=one, extra=extra: jnp.sum(one.f(z, *extra)))(zero)
            kinks.append(Kink(f"{name}′(0)", float(hand[0, 0]), float(auto[0, 0]), expected))
            if one.df_dslope is not None:
                hand = one.df_dslope(zero)
                auto = jax.grad(lambda slope, one=one: jnp.sum(one.f(zero, slope)))(slope)
                kinks.append(Kink(f"∂{name}/∂slope at 0", float(hand[0, 0]), float(auto[0]), 0.0))
        head, y = HEADS["regression_relu"], jnp.ones((1, 1))
        auto = jax.grad(lambda z: jnp.sum(head.loss(z, y)))(zero)
        kinks.append(Kink("regression_relu ∂L/∂z at 0", float(head.dz(zero, y)[0, 0]), float(auto[0, 0]), 0.0))
        for name, penalty in PENALTIES.items():
            strengths = (0.5,) * (2 if name == "elastic_net" else 1)
            hand = penalty.df(zero, *strengths)
            auto = jax.grad(lambda W, penalty=penalty, strengths=strengths: penalty.f(W, *strengths))(zero)
            kinks.append(Kink(f"{name} ∂/∂w at 0", float(hand[0, 0]), float(auto[0, 0]), 0.0))
    return kinks
