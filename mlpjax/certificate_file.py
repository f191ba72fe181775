"""The certificate that ``mlpjax train`` writes, and that ``mlpjax verify`` reads with distrust.

A certificate is JSON. It names nothing that is written to, and of the options only those that decide numbers; where
the data lie is for the reader to say. Whoever wrote it decides what ``mlpjax verify`` trains, so that every value is
checked as the command line checks it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_type_hints

from mlpjax.certificate import EpochHashes, RunCertificate
from mlpjax.certificate_values import FileError, fields, integer, option_value, text
from mlpjax.config import Config
from mlpjax.environment import Environment
from mlpjax.errors import InputError, unknown_name
from mlpjax.files import json_text, open_file
from mlpjax.loop import StopReason
from mlpjax.options import TrainOptions
from mlpjax.preparing import Prepared, data_fingerprint, fingerprint
from mlpjax.train import FitResult

FORMAT, FORMAT_VERSION = "mlpjax certificate", 1
MOST_BYTES = 2**24
"""A larger file is none: `mlpjax.options.MOST_CERTIFIED` epochs take less."""
NOT_NUMBERS = ("doctor", "download", "resume", "checkpoint_seconds", "checkpoint_chunks", "checkpoint_keep")
"""Options that decide no numbers, beside those that name files and folders."""

_HINTS = {
    name: hint
    for name, hint in get_type_hints(TrainOptions).items()
    if Path not in get_args(hint) and name not in NOT_NUMBERS
}
_SHA256 = re.compile("[0-9a-f]{64}")


class CertificateFile(NamedTuple):
    """What a certificate says, checked.

    ``options`` are those of ``mlpjax train``; ``facts`` what does not have to be the same anywhere else: the
    ``environment``, and the ``config`` and ``data`` that the options led to; ``result`` how the run ended.
    """

    options: TrainOptions
    facts: dict[str, Any]
    epochs: list[EpochHashes]
    result: dict[str, Any]


def certificate_report(
    options: TrainOptions,
    data: Prepared,
    config: Config,
    certificate: RunCertificate,
    result: FitResult,
    scores: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """What is written into the file."""
    seen = certificate.to_dict()
    values = dataclasses.asdict(options)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "options": {name: values[name] for name in _HINTS},
        "facts": facts(data, config, seen["environment"]),
        "result": result_facts(result, scores),
        "epochs": seen["epochs"],
    }


def facts(data: Prepared, config: Config, environment: Environment) -> dict[str, Any]:
    """What a run was made of. ``batches_sha256`` is of the parts as the network saw them: cut and scaled."""
    parts = [array for batch in data.batches.values() for array in (batch.x, batch.y)]
    return {
        "data": {"sha256": data_fingerprint(data.dataset), "batches_sha256": fingerprint(parts)},
        "config": config.to_dict(),
        **environment,
    }


def result_facts(result: FitResult, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """How a run ended, as JSON has it."""
    ended = {
        "stop_reason": result.stop_reason,
        "epoch": result.epoch,
        "diverged_at": result.diverged_at,
        **{f"{part}_{name}": value for part, values in scores.items() for name, value in values.items()},
    }
    return json.loads(json_text(ended))


def read_certificate(path: str | os.PathLike[str]) -> CertificateFile:
    """Read a certificate.

    Raises:
        InputError: the file is no certificate, or is of another format version; an option is unknown or out of its
            range. Nothing that is not written by ``mlpjax train --certificate`` is taken for a number.
        OSError: if the file cannot be read.

    >>> read_certificate("README.md")
    Traceback (most recent call last):
        ...
    mlpjax.errors.InputError: README.md: no certificate that mlpjax can use: it is not JSON ...
    """
    with open_file(path) as file:
        content = file.read(MOST_BYTES + 1)
    try:
        return _certificate(_parse(content))
    except InputError as error:
        raise InputError(f"{os.fspath(path)}: no certificate that mlpjax can use: {error}") from None


def _parse(content: bytes) -> Any:
    """Read strict JSON: no name twice, no NaN."""
    if len(content) > MOST_BYTES:
        raise FileError(f"it has more than {MOST_BYTES:,} bytes")

    def refuse(word: str) -> NoReturn:
        raise FileError(f"it has {word}, which is no JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise FileError("it has a name twice in one record")
        return found

    try:
        return json.loads(content.decode(), parse_constant=refuse, object_pairs_hook=unique)
    except FileError:
        raise
    except (ValueError, RecursionError) as error:
        raise FileError(f"it is not JSON ({error}); expected what mlpjax train --certificate wrote") from None


def _certificate(whole: Any) -> CertificateFile:
    form = whole.get("format") if isinstance(whole, dict) else None
    if form != FORMAT:
        raise FileError("it does not say that it is one; expected what mlpjax train --certificate wrote")
    if (version := whole.get("format_version")) != FORMAT_VERSION or isinstance(version, bool):
        raise FileError(
            f"format version {version!r:.40}: this mlpjax reads version {FORMAT_VERSION}; a newer one may read it"
        )
    names = ("format", "format_version", "options", "facts", "result", "epochs")
    _, _, options, about, result, epochs = fields("it", whole, names)
    read = read_options(options)
    return CertificateFile(read, _facts(about), _epochs(epochs, read.epochs), _result(result))


def read_options(values: Any) -> TrainOptions:
    """Check options as the command line does, and what it leaves to the data; an option not named has its default."""
    if not isinstance(values, dict):
        raise FileError(f"options is a {type(values).__name__}: expected a record")
    for name in values:
        if name not in _HINTS:
            raise FileError(unknown_name("option", text("an option's name", name), _HINTS))
    options = TrainOptions(**{name: option_value(name, _HINTS[name], value) for name, value in values.items()})
    options.validate()
    return options


def _facts(about: Any) -> dict[str, Any]:
    """Check the sections: records of short texts, numbers and lists of these."""
    if not isinstance(about, dict) or len(about) > 20 or not all(isinstance(part, dict) for part in about.values()):
        raise FileError("facts: expected a record of few records")
    for name, section in about.items():
        text("a section", name)
        if len(section) > 1000:
            raise FileError(f"{name} has {len(section):,} entries: expected at most 1,000")
        for entry, value in section.items():
            text(f"an entry of {name}", entry)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str):
                    text(f"{name}.{entry}", item)
                elif isinstance(item, dict | list):
                    raise FileError(f"{name}.{entry}: expected a text or a number")
    return about


def _epochs(rows: Any, last: int) -> list[EpochHashes]:
    if not isinstance(rows, list):
        raise FileError("epochs: expected a list")
    found: list[EpochHashes] = []
    for row in rows:
        epoch, loss, *hashes = fields("an entry of epochs", row, EpochHashes._fields)
        integer("epoch", epoch, found[-1].epoch + 1 if found else 0, last)
        if loss is not None and not isinstance(loss, float | int):
            raise FileError(f"loss of epoch {epoch}: expected a number or null")
        for value in hashes:
            if not isinstance(value, str) or not _SHA256.fullmatch(value):
                raise FileError(f"epoch {epoch}: expected SHA-256 of 64 hexadecimal digits")
        found.append(EpochHashes(epoch, loss, *hashes))
    if not found or found[-1].epoch == 0:
        raise FileError("it has no epoch to compare: the run ended in its first")
    return found


def _result(result: Any) -> dict[str, Any]:
    if not isinstance(result, dict) or len(result) > 100:
        raise FileError("result: expected a record")
    if result.get("stop_reason") not in get_args(StopReason):
        raise FileError(f"stop_reason: expected one of {', '.join(get_args(StopReason))}")
    for name, value in result.items():
        text("a name in result", name)
        if isinstance(value, dict) or (isinstance(value, str) and not value.isprintable()):
            raise FileError(f"{name}: expected a text or a number")
    return result
