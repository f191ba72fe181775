"""What ``mlpjax verify`` can be told. This module imports no jax, so that ``--help`` answers at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from mlpjax.options import check_writable


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Train again as a certificate says, and say where the two runs part, if they do."""

    file: tyro.conf.Positional[Path]
    """Certificate that `mlpjax train --certificate` wrote."""
    data: str | None = None
    """Where the FILE of the data lies; the default is where the certificate says."""
    data_dir: Path | None = None
    """Folder of the MNIST files; the default is $MLPJAX_DATA_DIR, then a cache folder."""
    download: bool = False
    """Download MNIST if it is not there."""
    json: Path | None = None
    """Write the results to this file (JSON)."""

    def validate(self) -> None:
        """Raise `ConfigError` for what no data can make right."""
        check_writable("--json", self.json, {"the certificate": self.file, "--data": self.data})
