"""Compiled programs that outlive the process, in a folder of one's own, for those who ask for it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import jax
import jaxlib

from mlpjax.errors import ConfigError


def keep_compiled(folder: str | os.PathLike[str]) -> Path:
    """Keep what this process compiles in ``folder``, and take from there what an earlier one compiled.

    To be called before the first compilation. A folder that does not exist is made, for the user alone (mode 700);
    each version of jaxlib has its own inside. What lies there is code that runs: a folder of somebody else, or one
    that others can write to, is refused.

    Returns:
        The folder of this version.

    Raises:
        ConfigError: for what is no folder, or not private.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keep_compiled(folder).parent == Path(folder)
    ...     jax.config.update("jax_compilation_cache_dir", None)
    True
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"the compilation cache '{path}' is no folder")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = path.stat()
    private = not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if hasattr(os, "getuid") and not (private and about.st_uid == os.getuid()):
        raise ConfigError(
            f"the compilation cache '{path}' belongs to somebody else, or others can write to it, and what lies there "
            f"is code that runs: give a folder of your own, chmod 700"
        )
    mine = path / f"jaxlib-{jaxlib.__version__}"
    mine.mkdir(mode=0o700, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(mine))
    # by default only what takes a second to compile is kept
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return mine
