"""The commands of the command line by their names, each with the dataclass from which its options are generated."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import tyro

from mlpjax.options import AuditOptions, EvaluateOptions, LectureOptions, TrainOptions
from mlpjax.sweep_options import SweepOptions
from mlpjax.verify_options import VerifyOptions

Command: TypeAlias = (
    Annotated[TrainOptions, tyro.conf.subcommand("train")]
    | Annotated[SweepOptions, tyro.conf.subcommand("sweep")]
    | Annotated[EvaluateOptions, tyro.conf.subcommand("evaluate")]
    | Annotated[VerifyOptions, tyro.conf.subcommand("verify")]
    | Annotated[AuditOptions, tyro.conf.subcommand("audit")]
    | Annotated[LectureOptions, tyro.conf.subcommand("lecture")]
)

OPTIONS = {
    "train": TrainOptions,
    "sweep": SweepOptions,
    "evaluate": EvaluateOptions,
    "verify": VerifyOptions,
    "audit": AuditOptions,
    "lecture": LectureOptions,
}
