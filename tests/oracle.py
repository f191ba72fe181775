"""The network a second time: Python floats and loops, as the lecture writes it. Nothing of mlpjax is used here."""

import math
from typing import NamedTuple

import jax
import numpy as np

EPS, MOMENTUM = 1e-5, 0.9
SELU_LAMBDA, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848


def sigmoid(z, slope=None):
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def gelu_tanh(z, slope=None):
    return 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


ACTIVATIONS = {
    "identity": lambda z, slope=None: z,
    "binary_step": lambda z, slope=None: 1.0 if z >= 0 else 0.0,
    "sigmoid": sigmoid,
    "tanh": lambda z, slope=None: math.tanh(z),
    "arctan": lambda z, slope=None: math.atan(z),
    "relu": lambda z, slope=None: max(0.0, z),
    "leaky_relu": lambda z, slope=None: max(0.01 * z, z),
    "prelu": lambda z, slope=None: z if z >= 0 else slope * z,
    "elu": lambda z, slope=None: z if z >= 0 else math.expm1(z),
    "selu": lambda z, slope=None: SELU_LAMBDA * (z if z >= 0 else SELU_ALPHA * math.expm1(z)),
    "softplus": lambda z, slope=None: max(z, 0.0) + math.log1p(math.exp(-abs(z))),
    "gelu": lambda z, slope=None: 0.5 * z * math.erfc(-z / math.sqrt(2)),
    "gelu_tanh": gelu_tanh,
    "silu": lambda z, slope=None: z * sigmoid(z),
}
KINKED = ("binary_step", "relu", "leaky_relu", "prelu", "elu", "selu")
"""The activations that are not smooth at 0."""


def softmax(z):
    e = [math.exp(z_c - max(z)) for z_c in z]
    return [e_c / sum(e) for e_c in e]


LINKS = {
    "binary": lambda z: [sigmoid(z_o) for z_o in z],
    "multilabel": lambda z: [sigmoid(z_o) for z_o in z],
    "multiclass": softmax,
    "regression": list,
    "regression_relu": lambda z: [max(0.0, z_c) for z_c in z],
}


def cross_entropy_of_labels(yhat, y):
    """−Σ_o y_o log ŷ_o + (1 − y_o) log(1 − ŷ_o), from probabilities."""
    return -sum(t * math.log(p) + (1 - t) * math.log(1 - p) for p, t in zip(yhat, y, strict=True))


def cross_entropy_of_classes(yhat, y):
    """−Σ_c y_c log ŷ_c, from probabilities."""
    return -sum(t * math.log(p) for p, t in zip(yhat, y, strict=True))


def half_squares(yhat, y):
    return sum((p - t) ** 2 for p, t in zip(yhat, y, strict=True)) / 2


LOSSES = {
    "binary": cross_entropy_of_labels,
    "multilabel": cross_entropy_of_labels,
    "multiclass": cross_entropy_of_classes,
    "regression": half_squares,
    "regression_relu": half_squares,
}


def target_rows(head, y, n_L):
    """One list of n_L targets per example."""
    y = np.asarray(y)
    if head == "multiclass" and y.ndim == 1:
        return [[float(label == c) for c in range(n_L)] for label in y]
    return [[float(t) for t in np.atleast_1d(row)] for row in y]


class Result(NamedTuple):
    J: float
    data_loss: float
    penalty: float
    z: np.ndarray
    state: list  # (mean, var, count) per layer with batch-norm
    margin: float  # how near a pre-activation comes to a kink


def affine(a, W, b):
    m, n_in, n_out = len(a), len(W), len(W[0])
    z = np.zeros((m, n_out))
    for i in range(m):
        for k in range(n_out):
            z[i, k] = sum(a[i][j] * W[j][k] for j in range(n_in)) + (0.0 if b is None else b[k])
    return z


def batch_statistics(z, weights):
    total = sum(weights)
    n = z.shape[1]
    mean = np.array([sum(w * z[i, k] for i, w in enumerate(weights)) / total for k in range(n)])
    var = np.array([sum(w * (z[i, k] - mean[k]) ** 2 for i, w in enumerate(weights)) / total for k in range(n)])
    return mean, var


def moved(state, mean, var):
    """The running statistics after a batch: the plain exponential average from 0, corrected for its start."""
    t = int(state.count) + 1
    was, now = 1 - MOMENTUM ** (t - 1), 1 - MOMENTUM**t
    average = [
        (MOMENTUM * np.asarray(old) * was + (1 - MOMENTUM) * new) / now
        for old, new in ((state.mean, mean), (state.var, var))
    ]
    return (*average, t)


def drop(config, l, a, train, key):
    rates = config.dropout if isinstance(config.dropout, tuple) else (None, *[config.dropout] * (len(config.sizes) - 2))
    if not train or rates[l] is None:
        return a
    keep = np.asarray(jax.random.bernoulli(jax.random.fold_in(key, l), 1 - np.float32(rates[l]), a.shape))
    return np.where(keep, a / (1 - rates[l]), 0.0)


def objective(config, params, state, batch, key=None, *, train=True):
    """J and all that belongs to it, example by example."""
    x = np.asarray(batch.x, np.float64)
    weights = [1.0] * len(x) if batch.weight is None else [float(w) for w in batch.weight]
    L, margin, new_state = len(config.sizes) - 1, math.inf, []
    names = (config.activation,) * (L - 1) if isinstance(config.activation, str) else config.activation
    a = drop(config, 0, x, train, key)
    for l in range(1, L + 1):
        layer = jax.tree.map(np.asarray, params[l - 1])
        z = affine(a, layer.W, layer.b)
        if l == L:
            break
        if config.batch_norm:
            if train:
                mean, var = batch_statistics(z, weights)
                new_state.append(moved(state[l - 1], mean, var))
            else:
                mean, var = np.asarray(state[l - 1].mean), np.asarray(state[l - 1].var)
                new_state.append(tuple(state[l - 1]))
            for k in range(z.shape[1]):
                z[:, k] = layer.gamma[k] * (z[:, k] - mean[k]) / math.sqrt(var[k] + EPS) + layer.beta[k]
        if names[l - 1] in KINKED:
            margin = min(margin, np.abs(z).min())
        slopes = [None] * z.shape[1] if layer.slope is None else layer.slope
        f = ACTIVATIONS[names[l - 1]]
        a = np.array([[f(float(z[i, k]), slopes[k]) for k in range(z.shape[1])] for i in range(len(z))])
        a = drop(config, l, a, train, key)
    if config.head == "regression_relu":
        margin = min(margin, np.abs(z).min())
    targets = target_rows(config.head, batch.y, config.sizes[-1])
    total = sum(weights)
    data_loss = 0.0
    for i, w in enumerate(weights):
        if w > 0:
            data_loss += w / total * LOSSES[config.head](LINKS[config.head](list(z[i])), targets[i])
    all_weights = [float(w) for layer in params for w in np.asarray(layer.W).ravel()]
    penalty = (config.l1 or 0.0) * sum(abs(w) for w in all_weights)
    penalty += (config.l2 or 0.0) / 2 * sum(w * w for w in all_weights)
    return Result(data_loss + penalty, data_loss, penalty, z, new_state, float(margin))
