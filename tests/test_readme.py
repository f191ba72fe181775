"""The README's programs run, and print what it says."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_snippets_run_and_print_what_the_readme_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    programs = [text for kind, text in BLOCKS if kind == "python"]
    printed, population, optimised, audited, traced = (text for kind, text in BLOCKS if kind == "text")
    namespace = {}
    exec(programs[0], namespace)
    assert capsys.readouterr().out == printed
    assert sum(bool(line.strip()) for line in programs[0].splitlines()) < 20
    exec(programs[1], namespace)
    assert namespace["result"].history["valid_metric"][-1] > 0.9
    assert namespace["mlpjax"].load(tmp_path / "digits.npz").classes == tuple(range(10))
    for program, said in zip(programs[2:6], (population, optimised, audited, traced), strict=True):
        exec(program, namespace)
        assert capsys.readouterr().out == said


def test_the_two_commands_stand_at_the_top():
    commands = [text.strip() for kind, text in BLOCKS if kind == "bash"][:2]
    assert commands == ["pip install uv && uv run mlpjax train", "uv run pytest"]
