"""The ledger: what the lecture holds, row by row, and where the code and the proof of each row are.

`ledger.toml` has the rows, the errata (where the lecture prints something wrong, ambiguous or incomplete) and the
traps of automatic differentiation and floating point. This module reads it, and imports no jax.
"""

from __future__ import annotations

import ast
import difflib
import functools
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from mlpjax.errors import InputError


class Section(NamedTuple):
    """A part of the lecture: its title, the prefix of its ids, and the modules of `mlpjax.lecture` with its checks."""

    title: str
    prefix: str
    modules: tuple[str, ...]


SECTIONS = {
    "perceptron": Section("Perceptron", "perceptron", ("perceptron", "perceptron_training")),
    "erm": Section("Empirical risk minimisation", "erm", ("erm",)),
    "logreg": Section(
        "Logistic regression and binary classification",
        "logreg",
        ("logreg", "logreg_likelihood", "logreg_training", "logreg_limits"),
    ),
    "chain-rule": Section("Chain rule and back-propagation", "chain", ("chain_rule", "chain_rule_network")),
    "mlp1": Section("One hidden layer", "mlp1", ("mlp1_universal", "mlp1", "mlp1_versions")),
    "deep": Section("Deep networks", "deep", ("deep",)),
    "activation": Section("Activation functions", "act", ("activation", "activation_vanishing", "activation_list")),
    "problem": Section(
        "Types of problems", "prob", ("problem", "problem_labels", "problem_softmax", "problem_backward")
    ),
    "graph": Section("Computation graph", "graph", ("graph", "graph_nodes")),
    "framework": Section("Frameworks", "fw", ("framework",)),
    "training": Section("Types of training", "train", ("training", "training_methods")),
    "optimiser": Section(
        "Alternatives to gradient descent", "opt", ("optimiser", "optimiser_adaptive", "optimiser_adam")
    ),
    "init": Section("Weight initialisation", "init", ("initialisation", "initialisation_depth")),
    "regularisation": Section(
        "Regularisation",
        "reg",
        ("regularisation", "regularisation_network", "regularisation_dropout", "regularisation_augmentation"),
    ),
    "normalisation": Section(
        "Normalisation", "norm", ("normalisation", "normalisation_batch", "normalisation_network")
    ),
}
"""The sections in the lecture's order."""

TRAP_MODULES = ("traps", "traps_libraries")
"""The modules of `mlpjax.lecture` with the checks of the traps."""

KINDS = {
    "M": "model",
    "F": "formula",
    "D": "derivation step",
    "A": "algorithm",
    "R": "rule or convention",
    "P": "property",
    "C": "code",
    "H": "hyper-parameter",
    "V": "illustration",
}
"""What a row is."""

CLASSES = {
    "W": "wrong",
    "I": "inconsistent",
    "A": "ambiguous or missing",
    "O": "overstated",
    "X": "damaged in the text",
    "T": "typographical",
}
"""What an erratum is; ``W/A`` is two of them."""


class Row(NamedTuple):
    """One row of the lecture.

    ``function`` is ``module.name`` inside the package; ``implied`` marks what the lecture needs and does not state.
    ``rests`` is ``None`` for a row with a check, else ``"reason"`` or ``"figure"``, and ``why`` says why.
    """

    id: str
    slide: str
    kind: str
    lines: str
    formula: str
    shapes: str | None = None
    convention: str | None = None
    function: str | None = None
    figure: str | None = None
    implied: bool = False
    rests: str | None = None
    why: str | None = None

    @property
    def section(self) -> str:
        """The section that the id's prefix names."""
        return section_of(self.id)


class Erratum(NamedTuple):
    """A difference between the lecture and this package: what is printed, what is right, what we do."""

    id: str
    kind: str
    lines: str
    printed: str
    right: str
    ours: str
    rows: tuple[str, ...] = ()
    source: str | None = None


class Trap(NamedTuple):
    """Where automatic differentiation or floating point says something else than the formula."""

    id: str
    where: str
    happens: str
    instead: str
    function: str | None = None


class Ledger(NamedTuple):
    """Rows, errata and traps by id, each in the lecture's order."""

    rows: dict[str, Row]
    errata: dict[str, Erratum]
    traps: dict[str, Trap]

    def errata_of(self, row: str) -> list[Erratum]:
        """The errata that concern a row."""
        return [erratum for erratum in self.errata.values() if row in erratum.rows]


@functools.cache
def load_ledger() -> Ledger:
    """Read the ledger of the package.

    >>> ledger = load_ledger()
    >>> len(ledger.rows), len(ledger.errata), len(ledger.traps)
    (427, 168, 21)
    """
    text = resources.files("mlpjax.lecture").joinpath("ledger.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    rows = {id: Row(id, **fields) for id, fields in tables["row"].items()}
    errata = {
        id: Erratum(id, **{**fields, "rows": tuple(fields.get("rows", ()))}) for id, fields in tables["erratum"].items()
    }
    traps = {id: Trap(id, **fields) for id, fields in tables["trap"].items()}
    return Ledger(rows, errata, traps)


def section_of(id: str) -> str:
    """Name the section of a row's id.

    >>> section_of("act-tanh-deriv")
    'activation'
    """
    prefix = id.partition("-")[0]
    return next(name for name, section in SECTIONS.items() if section.prefix == prefix)


def find(id: str) -> Row | Erratum | Trap:
    """Find a row, an erratum or a trap by its id.

    Raises:
        InputError: there is none; the message names the most similar.

    >>> find("act-sigmoid-deriv").function
    'activations.sigmoid_derivative'
    """
    ledger = load_ledger()
    for table in (ledger.rows, ledger.errata, ledger.traps):
        if id in table:
            return table[id]
    names = [*SECTIONS, *ledger.rows, *ledger.errata, *ledger.traps]
    close = difflib.get_close_matches(id, names, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise InputError(f"nothing in the lecture is called {id!r}: {hint}mlpjax lecture lists the sections")


def rows_about(words: str) -> list[Row]:
    """Find the rows whose slide, id or formula contains some words, upper or lower case.

    >>> [row.id for row in rows_about("mcculloch")]
    ['perceptron-mp-neuron']
    """
    return [
        row for row in load_ledger().rows.values() if words.lower() in f"{row.id} {row.slide} {row.formula}".lower()
    ]


class Place(NamedTuple):
    """Where a name is defined: the file inside the package, the line, and the text that documents it."""

    file: Path
    line: int
    doc: str


def place_of(reference: str) -> Place:
    """Find a function, class or constant of the package, ``module.name``, without importing it.

    Raises:
        LookupError: the module has no such name at its top level.

    >>> place_of("activations.sigmoid").file.name, place_of("activations.PRELU_START").doc
    ('activations.py', 'Start value of the learnt slope (He et al. 2015).')
    """
    module, _, name = reference.rpartition(".")
    file = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    if not file.is_file():
        raise LookupError(f"{reference}: there is no {module}.py in the package")
    body = _parsed(file).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if name in _defined(node):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                return Place(file, node.lineno, ast.get_docstring(node) or "")
            return Place(file, node.lineno, _text(after))
    raise LookupError(f"{reference}: {file.name} has no {name} at its top level")


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets: list[Any] = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _text(node: ast.stmt | None) -> str:
    """The documentation of a constant: the string that follows it."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""
