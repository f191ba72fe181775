"""What a person sees of a command: results on stdout, progress and messages on stderr. Nothing else prints."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mlpjax.files import atomic_write, json_text

if TYPE_CHECKING:
    from mlpjax.loop import Progress as FitProgress


def write_json(path: Path | None, report: dict[str, Any]) -> None:
    """Write the report, where a file is given."""
    if path is not None:
        atomic_write(path, json_text(report).encode())


def show(title: str, rows: Mapping[str, str]) -> None:
    """Print a table on stdout."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    _console().print(table)


def _console(stderr: bool = False) -> Console:
    """A console that shows paths and labels as they are: [1] is no markup, :x: no picture."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def show_columns(title: str, names: Sequence[str], rows: Iterable[tuple[str, ...]], styles: Sequence[str]) -> None:
    """Print a table with named columns on stdout, one style per row."""
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for row, style in zip(rows, styles, strict=True):
        table.add_row(*row, style=style)
    _console().print(table)


def number(value: float) -> str:
    """Write a number for a person.

    >>> number(0.97493), number(1.5e-5)
    ('0.9749', '1.5e-05')
    """
    return f"{value:.4f}" if np.isfinite(value) and 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def say(text: str) -> None:
    """Print on stderr."""
    print(text, file=sys.stderr)


@contextmanager
def said(kind: type[Warning]) -> Iterator[None]:
    """Print warnings of a category on stderr as one line each."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", kind)
        show_other = warnings.showwarning

        def show_line(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: Any = None,
            line: Any = None,
        ) -> None:
            if issubclass(category, kind):
                say(f"warning: {message}")
            else:
                show_other(message, category, filename, lineno, file, line)

        warnings.showwarning = show_line
        yield


@contextmanager
def counting_bar(total: int, what: str) -> Iterator[Callable[[str], None]]:
    """Show a bar on stderr, where that is a terminal, and yield a function that moves it by one and names the next."""
    columns = [
        TextColumn(what), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    ]  # fmt: skip
    console = _console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, now="")

        def next_is(name: str) -> None:
            bar.update(task, advance=1, now=name)

        yield next_is


@contextmanager
def progress_bar(epochs: int, metric: str, title: str) -> Iterator[Any]:
    """Show a bar on stderr, where that is a terminal, and yield the callback that says the title and moves it."""
    columns = [
        TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    ]  # fmt: skip
    console = _console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=epochs, values="compiling")

        def callback(progress: FitProgress) -> None:
            nonlocal title
            if title:  # not before: the first chunk means that nothing is wrong with the data and the options
                say(title)
                title = ""
            values = f"loss {progress.loss:.4f}"
            if progress.record is not None:
                part = "valid" if "valid_metric" in progress.record else "train"
                values += f", {part} {metric} {progress.record[f'{part}_metric']:.4f}"
            bar.update(task, completed=progress.epoch - 1 + progress.step / progress.steps, values=values)

        yield callback
