"""Gradient files: a network, a batch and a gradient to examine, in one ``.npz`` that plain NumPy writes.

| array | what | needed |
|---|---|---|
| ``x (m, n_0)``, ``y`` | the batch; ``y`` as `mlpjax.targets.target_matrix` takes it | always |
| ``weight (m,)`` | sample weights | no |
| ``W1 (n_0, n_1)`` … ``WL`` | the weights: z = a W + b, rows are examples | always |
| ``b1 (n_1,)`` …, ``gamma1``, ``beta1``, ``slope1`` … | the other parameters | where the network has them |
| ``dW1`` …, ``db1``, ``dgamma1``, ``dbeta1``, ``dslope1`` … | ∂J/∂v, of the shape of v | for every parameter |
| ``mean1 (n_1,)``, ``var1 (n_1,)``, ``count1`` … | running statistics of batch-norm | with ``train`` False |
| ``config`` | JSON text, fields of `mlpjax.Config`; ``sizes``, ``bias``, ``batch_norm`` follow from the arrays | no |
| ``seed`` or ``key`` | ``jax.random.key(seed)``, or its ``jax.random.key_data`` | with dropout, training |
| ``train`` | whether J is that of training | no: True |

Parameters and gradient are float16, float32 or float64, and stay so. Nothing in a file is unpickled.
"""

from __future__ import annotations

import io
import json
import os
import re
from typing import Any

import jax
import numpy as np
from numpy.lib.npyio import NpzFile

from mlpjax.archives import open_npz, read_array
from mlpjax.cases import Case
from mlpjax.errors import DataError, unknown_name
from mlpjax.files import atomic_write
from mlpjax.gradient_arrays import NUMBERED, NUMBERED_NAME, PLAIN, GradientFile, gradient_file
from mlpjax.parameters import Params


def read_gradient(path: str | os.PathLike[str]) -> GradientFile:
    """Read a gradient file; the arrays are NumPy's, in the file's own dtypes.

    Values of the gradient need not be finite: they are what is examined.

    Raises:
        DataError: the file cannot be read, an array is missing, unknown, of another shape or dtype than the others
            ask for, or not finite; or the config does not fit the arrays.

    >>> import pathlib, tempfile
    >>> rng = np.random.default_rng(0)
    >>> x, y, W1, b1 = rng.normal(size=(4, 3)), np.array([0, 1, 1, 0]), rng.normal(size=(3, 2)), np.zeros(2)
    >>> z = x @ W1 + b1
    >>> yhat = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    >>> dz = yhat - np.eye(2)[y]  # 1/m is forgotten
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "mine.npz")
    ...     np.savez(path, x=x, y=y, W1=W1, b1=b1, dW1=x.T @ dz, db1=dz.sum(axis=0), config='{"head": "multiclass"}')
    ...     case, grads = read_gradient(path)
    >>> case.config.sizes, grads[0].W.dtype
    ((3, 2), dtype('float64'))
    """
    path = os.fspath(path)
    with open_npz(path) as archive:
        _check_names(path, archive.files)
        arrays = {name: _read(path, archive, name) for name in dict.fromkeys(("x", "y", "W1", *archive.files))}
    return gradient_file(path, arrays)


def write_gradient(path: str | os.PathLike[str], case: Case, grads: Params) -> None:
    """Write a gradient file, whole or not at all, with the checks of `read_gradient`.

    Raises:
        DataError: the parts do not fit each other.
        ConfigError: a rate of the config is an array.
        OSError: the file cannot be written.

    >>> import pathlib, tempfile
    >>> case = mlpjax.cases.make_case(mlpjax.Config(sizes=(3, 5, 2), l2=0.1))
    >>> (J, aux), grads = case.call(mlpjax.backward)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "right.npz")
    ...     write_gradient(path, case, grads)
    ...     read_gradient(path).grads[1].W.shape
    (5, 2)
    """
    arrays = {name: np.asarray(value) for name, value in case.batch._asdict().items() if value is not None}
    trees: tuple[tuple[str, Any], ...] = (("", case.params), ("d", grads), ("", case.state))
    for prefix, records in trees:
        for l, record in enumerate(records, start=1):
            fields = record._asdict().items()
            arrays |= {f"{prefix}{field}{l}": np.asarray(value) for field, value in fields if value is not None}
    arrays |= {"config": np.array(json.dumps(case.config.to_dict())), "train": np.array(case.train)}
    if case.key is not None:
        arrays["key"] = np.asarray(jax.random.key_data(case.key))
    gradient_file(os.fspath(path), arrays)
    buffer = io.BytesIO()
    # what passed the checks has no Python objects, so that nothing is pickled
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes any name for allow_pickle
    atomic_write(path, buffer.getvalue())


def _read(path: str, archive: NpzFile, name: str) -> np.ndarray:
    try:
        return read_array(path, archive, name)
    except DataError as error:
        if name != "config":
            raise
        # a dict is what one gives first
        raise DataError(f"{error}, and config as text: json.dumps(config)") from error


def _check_names(path: str, names: list[str]) -> None:
    for name in names:
        if name in PLAIN or NUMBERED_NAME.fullmatch(name):
            continue
        number = "".join(re.findall(r"[0-9]+$", name)) or "1"
        if number.startswith("0"):
            raise DataError(f"{path}: unknown array {name!r}: layers count from 1, so that W1 takes x")
        known = [*PLAIN, *(f"{stem}{number}" for stem in NUMBERED)]
        # to a measure that minds the case, dw2 is as near to db2 as to dW2
        for one in (one for one in known if one.lower() == name.lower()):
            raise DataError(f"{path}: unknown array {name!r}: did you mean {one!r}? Capitals count")
        raise DataError(f"{path}: {unknown_name('array', name, known)}")
