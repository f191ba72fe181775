"""What ``mlpjax verify`` does: train again as a certificate says, and compare epoch by epoch as it goes."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any, NamedTuple

import jax

from mlpjax.certificate import Difference, RunCertificate, first_differing_epoch
from mlpjax.certificate_file import CertificateFile, facts, read_certificate, result_facts
from mlpjax.cli import INTERRUPTED, OK, WRONG, complain
from mlpjax.commands import fit_arguments
from mlpjax.data import DATASETS
from mlpjax.display import progress_bar, show, write_json
from mlpjax.environment import THREADS, differences, environment
from mlpjax.errors import DataError
from mlpjax.heads import HEADS
from mlpjax.interrupt import deferred_interrupt, late_interrupt
from mlpjax.loop import Progress
from mlpjax.options import TrainOptions
from mlpjax.preparing import Prepared, prepare, score
from mlpjax.train import FitResult, fit
from mlpjax.verify_options import VerifyOptions

_NAMES = {"params": "parameters", "state": "batch-norm statistics", "opt_state": "the optimiser's state"}
_WIDEST = 60
"""Longer values are cut in the table."""


class Found(NamedTuple):
    """What training again showed.

    ``again`` certifies it; ``place`` is where it parts from the certificate; ``ends`` how the end differs where no
    epoch does.
    """

    again: RunCertificate
    place: Difference | None
    ends: dict[str, tuple[Any, Any]]
    interrupted: bool

    @property
    def same(self) -> bool:
        """Whether nothing that was compared differs."""
        return self.place is None and not self.ends


def verify(options: VerifyOptions, started: float) -> int:
    """Run ``mlpjax verify`` and return its exit code: 1 where the runs part."""
    with late_interrupt():
        certified = read_certificate(options.file)
    single = _with_data(certified.options, options)
    data = prepare(single)
    arguments = fit_arguments(single, data)
    # one interrupt ends fit; what follows it is quick, and completes
    with deferred_interrupt():
        here = facts(data, arguments["config"], environment())
        changed = differences(certified.facts, here)
        found = _train_again(certified, single, data, arguments)
        report = {
            "certificate": str(options.file),
            "identical": found.same and not found.interrupted,
            "last_epoch": found.again.epochs[-1].epoch,
            "first_difference": None if found.place is None else found.place._asdict(),
            "ends": found.ends,
            "differs": changed,
            "facts": here,
            "seconds_total": time.perf_counter() - started,
        }
        try:
            write_json(options.json, report)
        finally:  # a full disk does not cost the result
            show(
                f"{options.file}: {'the same bits' if found.same else 'not the same'}", _rows(certified, found, changed)
            )
    if found.interrupted:
        last = certified.epochs[-1].epoch
        complain(f"interrupted: the same up to epoch {found.again.epochs[-1].epoch} of {last} so far")
        return INTERRUPTED
    return OK if found.same else WRONG


def _with_data(single: TrainOptions, options: VerifyOptions) -> TrainOptions:
    """The certificate's options, for the data as they lie here."""
    data = single.data if options.data is None else options.data
    # a name out of a file opens no device and waits for no pipe
    if options.data is None and data not in DATASETS and not os.path.isfile(data):
        raise DataError(f"the certificate's data {data!r} are neither a known set nor a file here: give --data FILE")
    single = dataclasses.replace(single, data=data, data_dir=options.data_dir, download=options.download)
    single.validate()
    return single


def _train_again(certified: CertificateFile, single: TrainOptions, data: Prepared, arguments: dict[str, Any]) -> Found:
    """Train until the runs part, or as far as the certificate goes."""
    last, config, key = certified.epochs[-1].epoch, arguments["config"], jax.random.key(single.seed)
    # a run that ended by itself is followed to its end: why it ended is certified too
    whole = certified.result["stop_reason"] != "interrupted"
    theirs = {row.epoch: (row,) for row in certified.epochs}
    title = f"{data.describe()}; network {'-'.join(map(str, config.sizes))}; {last} epochs are certified"
    with progress_bar(single.epochs, HEADS[config.head].metric_name, title) as bar:

        def enough(progress: Progress) -> bool:
            bar(progress)
            if progress.record is None:
                return False
            differs = first_differing_epoch(theirs.get(progress.epoch, ()), again.epochs[-1:]) is not None
            return differs or progress.epoch >= last + whole

        again = RunCertificate(enough)
        again.certify_start(config, arguments["optimizer"], key)
        if place := first_differing_epoch(certified.epochs, again.epochs):
            return Found(again, place, {}, False)
        result = fit(**arguments, key=key, callback=again)
    if place := first_differing_epoch(certified.epochs, again.epochs):
        return Found(again, place, {}, False)
    interrupted = result.stop_reason == "interrupted"
    return Found(
        again, None, {} if interrupted or not whole else _ends(certified, data, arguments, result), interrupted
    )


def _ends(
    certified: CertificateFile, data: Prepared, arguments: dict[str, Any], result: FitResult
) -> dict[str, tuple[Any, Any]]:
    """What differs in how two runs ended."""
    if result.stop_reason == "callback":
        last = certified.epochs[-1].epoch
        return {"epochs": (last, f"more than {last}")}
    config, batches = arguments["config"], data.batches.items()
    scores = {name: score(config, result.params, result.state, batch) for name, batch in batches}
    return differences(certified.result, result_facts(result, scores))


def _rows(certified: CertificateFile, found: Found, changed: dict[str, tuple[Any, Any]]) -> dict[str, str]:
    """The rows of the table: where the runs part, then what differs around them."""
    place, epochs = found.place, found.again.epochs
    rows = {}
    if place is None:
        rows["epochs"] = f"the same bits up to epoch {epochs[-1].epoch} of {certified.epochs[-1].epoch}"
    else:
        where = f"epoch {place.epoch}" if place.epoch else "the start"
        rows["they part at"] = f"{where}: {', '.join(_NAMES[part] for part in place.parts)}"
        theirs = next(row.loss for row in certified.epochs if row.epoch == place.epoch)
        if theirs != epochs[-1].loss:
            rows["loss there"] = _pair(theirs, epochs[-1].loss)
    rows |= {name: _pair(*pair) for name, pair in (found.ends | changed).items()}
    if place is not None and isinstance(threads := changed.get("machine.threads", (None,))[0], int):
        rows["try"] = f"{THREADS[0]}={threads} mlpjax verify …, so that XLA takes as many threads"
    if not changed:
        rows["around them"] = "the same data, versions, flags and device"
    return rows


def _pair(theirs: Any, here: Any) -> str:
    return f"{_word(theirs)} in the certificate, {_word(here)} here"


def _word(value: Any) -> str:
    word = "nothing" if value is None else repr(value) if isinstance(value, float) else str(value)
    return word if len(word) <= _WIDEST else f"{word[: _WIDEST - 1]}…"
