"""The versions that a result depends on."""

from __future__ import annotations

import platform


def versions() -> dict[str, str]:
    """Return the versions that a result depends on.

    >>> sorted(versions())
    ['jax', 'jaxlib', 'mlpjax', 'numpy', 'optax', 'python']
    """
    import jax
    import jaxlib
    import numpy as np
    import optax

    import mlpjax

    return {
        "mlpjax": mlpjax.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "optax": optax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
