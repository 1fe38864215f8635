"""What docs/explain.md says is what happens."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from deltabias.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "explain.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
COMMANDS = [
    (line, BLOCKS[i + 1][1] if len(text.splitlines()) == 1 else None)
    for i, (language, text) in enumerate(BLOCKS)
    if language == "console"
    for line in text.splitlines()
]


def test_there_are_blocks_to_run():
    assert len(COMMANDS) >= 5
    assert "python" in dict(BLOCKS)


@pytest.mark.parametrize(("line", "printed"), COMMANDS)
def test_a_command_of_the_page_runs_and_prints_what_it_says(line, printed):
    result = CliRunner().invoke(main, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output
    assert printed is None or result.output == printed


def test_the_python_of_the_page_prints_what_it_says():
    for i, (language, code) in enumerate(BLOCKS):
        if language == "python":
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(code, f"block {i}", "exec"), {})
            assert said.getvalue() == BLOCKS[i + 1][1]
