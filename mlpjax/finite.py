"""The one check for values that are not finite in float32, the precision in which data reach a network.

NumPy only.
"""

from __future__ import annotations

import numpy as np

from mlpjax.errors import DataError

FLOAT32_MAX = float(np.finfo(np.float32).max)


def check_finite(x: np.ndarray, name: str) -> None:
    """Refuse an array (m,) or (m, n) that has a value which is not finite in float32.

    Raises:
        DataError: naming the first such row and column, both counted from 0.

    >>> check_finite(np.array([[1.0, 2.0], [3.0, np.nan]]), "x")
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: x: row 1, column 1 (from 0) is nan: expected a finite number; ...
    """
    if x.dtype.name == "bfloat16":
        # the kind of this dtype of ml_dtypes is not "f"; float32 holds every value of it
        x = x.astype(np.float32)
    # minimum and maximum pass a nan on, and take no memory
    if x.dtype.kind != "f" or x.size == 0 or (float(x.min()) >= -FLOAT32_MAX and float(x.max()) <= FLOAT32_MAX):
        return
    row, *column = np.argwhere(~(np.abs(x) <= np.float64(FLOAT32_MAX)))[0].tolist()
    place = f"row {row}" + "".join(f", column {k}" for k in column)
    raise DataError(
        f"{name}: {place} (from 0) is {x[(row, *column)]}: expected a finite number; correct it or leave the row out"
    )
