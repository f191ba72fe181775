"""Where the libraries' optimisers differ: each library's form of a rule, and its default constants, in one table."""

from __future__ import annotations

from typing import Any

from mlpjax.errors import ConfigError, unknown_name

LIBRARIES = ("torch", "keras", "optax", "sklearn")

CONVENTIONS: dict[str, dict[str | None, dict[str, Any]]] = {
    "sgd": {None: {}, "torch": {}, "keras": {}, "optax": {}, "sklearn": {}},
    "momentum": {
        None: {"form": "ema"},
        "torch": {"form": "heavy_ball"},
        "keras": {"form": "rate_inside"},
        "optax": {"form": "heavy_ball"},
        "sklearn": {"form": "rate_inside"},
    },
    "nesterov": {
        None: {"form": "ema"},
        "torch": {"form": "one_rate"},
        "keras": {"form": "rate_inside"},
        "optax": {"form": "one_rate"},
        "sklearn": {"form": "rate_inside"},
    },
    "adagrad": {
        None: {"eps": 1e-8, "eps_inside": True, "start": 0.0},
        "torch": {"eps": 1e-10, "eps_inside": False, "start": 0.0},
        "keras": {"eps": 1e-7, "eps_inside": True, "start": 0.1},
        "optax": {"eps": 1e-7, "eps_inside": True, "start": 0.1},
    },
    "adadelta": {
        None: {"alpha": 1.0, "rho": 0.95, "eps": 1e-6},
        "torch": {"alpha": 1.0, "rho": 0.9, "eps": 1e-6},
        "keras": {"alpha": 1e-3, "rho": 0.95, "eps": 1e-7},
        "optax": {"alpha": 1.0, "rho": 0.9, "eps": 1e-6},
    },
    "rmsprop": {
        None: {"gamma": 0.9, "eps": 1e-8, "eps_inside": True},
        "torch": {"gamma": 0.99, "eps": 1e-8, "eps_inside": False},
        "keras": {"gamma": 0.9, "eps": 1e-7, "eps_inside": True},
        "optax": {"gamma": 0.9, "eps": 1e-8, "eps_inside": True},
    },
    "adam": {
        None: {"eps": 1e-8, "eps_hat": False},
        "torch": {"eps": 1e-8, "eps_hat": False},
        "keras": {"eps": 1e-7, "eps_hat": True},
        "optax": {"eps": 1e-8, "eps_hat": False},
        "sklearn": {"eps": 1e-8, "eps_hat": True},
    },
    "adam_slide": {None: {"eps": 1e-8}},
}
"""By rule and library; ``None`` is the package's own, the lecture's or the paper's.

Momentum: ``ema`` is the lecture's average; ``heavy_ball`` lacks its 1 − β; with ``rate_inside`` the velocity holds α,
so that a schedule acts on new gradients only; ``one_rate`` looks ahead with the α of the step that was taken. β is 0.9
everywhere, though torch, keras and optax have no momentum by default. AdaGrad's sum starts at ``start``. With
``eps_hat`` Adam's ε stands beside the uncorrected root: it is ε̂ of the paper.
"""


def library_form(rule: str, convention: str | None, **given: Any) -> dict[str, Any]:
    """The form and constants of a rule by a convention; what is ``given``, and not ``None``, goes before them.

    Raises:
        ConfigError: for an unknown convention, or a library that has no such rule.

    >>> library_form("rmsprop", "torch", eps=1e-6)
    {'gamma': 0.99, 'eps': 1e-06, 'eps_inside': False}
    >>> library_form("rmsprop", "sklearn")
    Traceback (most recent call last):
        ...
    mlpjax.errors.ConfigError: sklearn has no 'rmsprop': expected a convention that has it: torch, keras, optax
    """
    forms = CONVENTIONS[rule]
    if convention is not None and convention not in LIBRARIES:
        raise ConfigError(unknown_name("convention", convention, LIBRARIES))
    if convention not in forms:
        having = ", ".join(name for name in forms if name is not None)
        expected = f"expected a convention that has it: {having}" if having else "no library has it; leave it out"
        raise ConfigError(f"{convention} has no {rule!r}: {expected}")
    return {**forms[convention], **{name: value for name, value in given.items() if value is not None}}
