"""Mutation testing of the formula modules: a test kills every mutant, or a list says why it is equivalent.

mutmut changes one operator, number, argument or name at a time, and runs against each mutant the tests that meet its
function (`[tool.mutmut]` in pyproject.toml). All of it happens in a temporary copy. Claims: each survivor is in
mutation_equivalents.toml, by its lines before and after, and each entry there still survives. No formula has a loop,
so a mutant that times out is not killed, and one that no test meets is unexplained: both miss the claim.

    uv run --group mutation python experiments/mutation.py                # one mutant at a time
    uv run --group mutation python experiments/mutation.py --children 8   # one for each core

Writes experiments/results/mutation.json, and exits with an error when a claim is missed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from mlpjax.versions import versions

HERE = Path(__file__).parent
COPIED = ("mlpjax", "tests", "pyproject.toml")
OUTCOMES = ("killed", "equivalent", "timeout", "unexplained")


class Change(NamedTuple):
    """A mutant by what it changes: its number moves with every edit of the function."""

    function: str
    before: str
    after: str


def copy_tree(target: Path) -> None:
    """Copy what mutmut mutates and runs."""
    for name in COPIED:
        source = HERE.parent / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)


def mutmut(folder: Path, *arguments: str, **options: object) -> str | None:
    """Run one command of mutmut on the CPU; returns what it printed, if that is captured."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        ["mutmut", *arguments], cwd=folder, env=environment, check=True, encoding="utf-8", **options
    ).stdout


def statuses(folder: Path) -> dict[str, str]:
    """What became of every mutant, by mutmut's name for it."""
    lines = mutmut(folder, "results", "--all", "true", stdout=subprocess.PIPE).splitlines()
    return dict(line.strip().split(": ", 1) for line in lines if "__mutmut_" in line)


def function_of(name: str) -> str:
    """``exponential.elu`` for ``mlpjax.exponential.x_elu__mutmut_3``."""
    _, module, mangled = name.split(".")
    return f"{module}.{mangled.removeprefix('x_').rpartition('__mutmut_')[0]}"


def change_of(folder: Path, name: str) -> Change:
    """Read a mutant's change out of its diff."""
    diff = mutmut(folder, "show", name, stdout=subprocess.PIPE).splitlines()
    lines = [line for line in diff if line[:1] in "-+" and line[:3] not in ("---", "+++")]
    before, after = ("\n".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return Change(function_of(name), before, after)


def main() -> int:
    """Print and write the numbers; returns 1 when a claim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, default=1, help="mutants tested at a time")
    children = parser.parse_args().children
    listed = tomllib.loads((HERE / "mutation_equivalents.toml").read_text(encoding="utf-8"))["equivalent"]
    reasons = {Change(entry["function"], entry["before"], entry["after"]): entry["reason"] for entry in listed}

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder)
        mutmut(folder, "run", "--max-children", str(children))
        status = statuses(folder)
        alive = {mutant: change_of(folder, mutant) for mutant, what in status.items() if what != "killed"}
    seconds = time.perf_counter() - started

    def outcome(mutant: str) -> str:
        what = "equivalent" if status[mutant] == "survived" and alive[mutant] in reasons else status[mutant]
        return what if what in OUTCOMES else "unexplained"

    outcomes = {mutant: outcome(mutant) for mutant in status}
    unexplained = [
        {"status": status[mutant], **change._asdict()}
        for mutant, change in alive.items()
        if outcomes[mutant] != "equivalent"
    ]
    explained = {change for mutant, change in alive.items() if outcomes[mutant] == "equivalent"}
    stale = [change._asdict() for change in reasons if change not in explained]
    modules = {}
    for module in sorted({mutant.split(".")[1] for mutant in status}):
        found = [outcomes[mutant] for mutant in status if mutant.split(".")[1] == module]
        modules[module] = {"mutants": len(found), **{what: found.count(what) for what in OUTCOMES}}
    total = {column: sum(row[column] for row in modules.values()) for column in ("mutants", *OUTCOMES)}

    print(f"\n{'module':<13}" + "".join(f"{column:>12}" for column in total))
    for module, row in {**modules, "total": total}.items():
        print(f"{module:<13}" + "".join(f"{count:>12}" for count in row.values()))
    print(f"{seconds / 60:.1f} minutes")
    for change in unexplained:
        print("unexplained:", json.dumps(change, indent=1, ensure_ascii=False))
    for change in stale:
        print("listed, but killed or gone:", json.dumps(change, indent=1, ensure_ascii=False))
    result = {
        "modules": modules,
        "total": total,
        "unexplained": unexplained,
        "listed_but_killed_or_gone": stale,
        "seconds": round(seconds),
        "children": children,
        "versions": {**versions(), "mutmut": version("mutmut")},
    }
    target = HERE / "results" / "mutation.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(bool(unexplained or stale))


if __name__ == "__main__":
    sys.exit(main())
