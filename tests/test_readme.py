"""The README's own code blocks run, and print what it says they print."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(), re.DOTALL)
PYTHON = [i for i, (language, _) in enumerate(BLOCKS) if language == "python"]


@pytest.mark.parametrize("index", PYTHON)
def test_a_python_block_prints_what_follows_it(index):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(BLOCKS[index][1], f"README block {index}", "exec"), {})
    language, expected = BLOCKS[index + 1]
    assert language == "text"
    assert printed.getvalue() == expected


def test_the_two_commands_are_targets_of_the_makefile():
    commands = next(text for language, text in BLOCKS if language == "console").split("\n")
    makefile = (README.parent / "Makefile").read_text()
    assert [c for c in commands if c] == ["make demo", "make test"]
    assert all(re.search(rf"^{c.split()[1]}:", makefile, re.MULTILINE) for c in commands if c)


def test_every_command_line_is_understood():
    from deltabias.cli import main

    lines = [
        line
        for language, text in BLOCKS
        if language == "console"
        for line in text.splitlines()
        if line.startswith("deltabias ")
    ]
    lines += re.findall(r"`(deltabias [^`]+)`", README.read_text())
    assert lines
    for line in lines:
        command, *arguments = shlex.split(line)[1:]
        context = main.commands[command].make_context(command, arguments, resilient_parsing=False)
        assert context.params


def test_every_link_inside_the_project_leads_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target


def test_the_figure_is_there_in_light_and_dark_and_has_words_for_those_who_do_not_see_it():
    text = README.read_text()
    shown = re.findall(r'(?:srcset|src)="([^"]+)"', text)
    assert len(shown) == 2
    assert all((README.parent / path).read_text().startswith("<?xml") for path in shown)
    (words,) = re.findall(r'alt="([^"]+)"', text)
    assert len(words) > 80
