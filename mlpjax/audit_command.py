"""What ``mlpjax audit`` does: the gradients of this package, of one network, or of a person's own file."""

from __future__ import annotations

import json
import time
from typing import Any

from mlpjax.cases import Case, make_case
from mlpjax.cli import OK, WRONG
from mlpjax.config import Config
from mlpjax.display import counting_bar, say, show_columns, write_json
from mlpjax.errors import ConfigError
from mlpjax.files import open_file
from mlpjax.gradient_files import read_gradient
from mlpjax.interrupt import deferred_interrupt
from mlpjax.networks import Kink, Network, audit_given, audit_kinks, audit_network, default_networks
from mlpjax.options import AuditOptions
from mlpjax.reports import GradientReport
from mlpjax.versions import versions

MOST_CONFIG_BYTES = 2**20
"""A longer config is none."""


def audit(options: AuditOptions, started: float) -> int:
    """Run ``mlpjax audit`` and return its exit code: 1 where a gradient is wrong."""
    if options.explain is not None:
        return _explain(options, started)
    if options.config is not None:
        return _one(options, started)
    return _all(options, started)


def _all(options: AuditOptions, started: float) -> int:
    networks = default_networks()
    found: list[tuple[Network, GradientReport]] = []
    say(f"{len(networks)} networks, {options.dtype}: hand-derived gradients against every oracle")
    with deferred_interrupt() as interrupted, counting_bar(len(networks), "network") as next_is:
        for network in networks:
            if interrupted.is_set():
                raise KeyboardInterrupt
            next_is(network.name)
            found.append((network, audit_network(_case(network), options.dtype)))
    kinks = audit_kinks()
    ok = all(report.ok for _, report in found) and all(kink.ok for kink in kinks)
    _show_networks(found)
    _show_kinks(kinks)
    for network, report in found:
        if not report.ok:
            print(f"\n{network.name}\n{report}")
    elements = sum(leaf.size for _, report in found for leaf in report.leaves)
    seconds = time.perf_counter() - started
    wrong = sum(not report.ok for _, report in found) + sum(not kink.ok for kink in kinks)
    verdict = "all right" if ok else f"{wrong} wrong"
    print(f"{len(found)} networks, {elements:,} elements, {len(kinks)} values at kinks: {verdict}, {seconds:.0f} s")
    whole = {
        "ok": ok,
        "networks": [
            {"name": n.name, "config": n.config.to_dict(), "weight": n.weight, "train": n.train, **report.to_dict()}
            for n, report in found
        ],
        "kinks": [{**kink._asdict(), "ok": kink.ok} for kink in kinks],
        "elements": elements,
        "seconds_total": seconds,
        "versions": versions(),
    }
    write_json(options.json, whole)
    return OK if ok else WRONG


def _one(options: AuditOptions, started: float) -> int:
    config = _read_config(options.config or "")
    case = make_case(config, options.weight, options.train, options.examples, options.seed)
    report = audit_network(case, options.dtype, jit=True)
    print(report)
    _write(options, report, started, {"config": config.to_dict()})
    return OK if report.ok else WRONG


def _explain(options: AuditOptions, started: float) -> int:
    given = read_gradient(options.explain or "")
    report = audit_given(given.case, given.grads, options.dtype)
    print(report)
    explanations = report.diagnose(given.case)
    if not report.ok:
        print("likely mistake:" if explanations else "no mistake of the catalogue, and no simple relation, explains it")
        for number, explanation in enumerate(explanations[:3], start=1):
            print(f"  {number}. {explanation}")
    _write(options, report, started, {"explanations": [one._asdict() for one in explanations]})
    return OK if report.ok else WRONG


def _case(network: Network) -> Case:
    return make_case(network.config, network.weight, network.train)


def _read_config(text: str) -> Config:
    """A config from JSON text, or from a file of it."""
    source = "--config"
    if not text.lstrip().startswith("{"):
        source = text
        try:
            with open_file(text) as file:
                content = file.read(MOST_CONFIG_BYTES + 1)
            if len(content) > MOST_CONFIG_BYTES:
                raise ConfigError(f"{source}: has more than {MOST_CONFIG_BYTES:,} bytes: expected a config as JSON")
            text = content.decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{source}: is not a text file: expected a config as JSON") from None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # a long number, deep nesting
        raise ConfigError(f'{source}: is not JSON ({error}): expected such as {{"sizes": [4, 8, 3]}}') from None
    if not isinstance(values, dict):
        raise ConfigError(f'{source}: is a {type(values).__name__}: expected an object, such as {{"sizes": [4, 8, 3]}}')
    try:
        return Config.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _show_networks(found: list[tuple[Network, GradientReport]]) -> None:
    rows, styles = [], []
    for network, report in found:
        worst = max(report.leaves, key=lambda leaf: (not leaf.ok, leaf.relative / (leaf.tolerance or 1.0)))
        verdict = "agrees" if report.ok else "; ".join(report.problems) or worst.verdict
        rows.append(
            (network.name, str(sum(leaf.size for leaf in report.leaves)), worst.path, f"{worst.relative:.0e}", verdict)
        )
        styles.append("" if report.ok else "bold red")
    show_columns("gradients", ("network", "elements", "worst leaf", "rel. error", "verdict"), rows, styles)


def _show_kinks(kinks: list[Kink]) -> None:
    rows = [
        (
            kink.name,
            f"{kink.expected:.5g}",
            f"{kink.hand:.5g}",
            f"{kink.autodiff:.5g}",
            "agrees" if kink.ok else "wrong",
        )
        for kink in kinks
    ]
    styles = ["" if kink.ok else "bold red" for kink in kinks]
    show_columns("at the kinks", ("value", "pinned", "by hand", "by autodiff", "verdict"), rows, styles)


def _write(options: AuditOptions, report: GradientReport, started: float, more: dict[str, Any]) -> None:
    write_json(options.json, {**report.to_dict(), **more, "seconds_total": time.perf_counter() - started})
