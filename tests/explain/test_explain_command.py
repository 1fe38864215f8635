"""``deltabias explain``: what it prints, where, and what it refuses."""

import json
import os
import pty
import select
import subprocess
import sys

import pytest
from click.testing import CliRunner

from deltabias.cli import main
from deltabias.explain import explain, render
from deltabias.rules import get_rule

TYPED = "g/(sqrt(v)+eps)"


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["explain", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("style", ["text", "latex", "html", "json"])
@pytest.mark.parametrize("name", ["adamw", "soap"])
def test_it_prints_the_explanation_in_the_style_asked_for(name, style):
    printed = run(name, "--format", style, "--width", 70).stdout
    assert printed == render(explain(get_rule(name)), style, width=70)


def test_mathematics_and_files_are_explained_too(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nupdate = "g/h"\n[states.g]\nkind = "fresh"\n'
                    '[states.h]\nkind = "fresh"\npositive = true\n')  # fmt: skip
    assert json.loads(run(path, "--format", "json").stdout)["name"] == "mine"
    assert "Coupling" in run(TYPED).stdout
    assert "inv_root(L, 4)" in run("inv_root(L, 4)*M").stdout
    hyper = json.loads(run("g/(v+k)", "--hyper", "k=0.5", "--format", "json").stdout)
    assert hyper["rule"] == "g/(v+k)"


def test_one_step_is_found_by_its_number_and_its_id_and_keeps_its_number():
    by_id = run("adamw", "--step", "corrected").stdout
    explanation = explain(get_rule("adamw"))
    number = explanation.passages.index(explanation.find("corrected")) + 1
    assert run("adamw", "--step", number).stdout == by_id
    assert f"{number}. The corrected update" in by_id
    assert "The claim" not in by_id


def test_the_strategy_and_the_order_are_those_asked_for():
    assert "Strategy jackknife" in run("adamw_mean_of_squares", "--correction", "jackknife").stdout
    assert "Form diagonal" in run("shampoo", "--correction", "diagonal").stdout
    second = json.loads(run(TYPED, "--order", 2, "--format", "json").stdout)
    assert any("cumulant" in s["id"] for s in second["steps"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["adamww"], "Did you mean 'adamw'"),
        (["AdamW"], "Did you mean 'adamw'"),
        (["nope.toml"], "cannot be read"),
        (["g//h"], "//"),
        (["adamw", "--step", "99"], "has steps 1 to"),
        (["adamw", "--step", "0"], "has steps 1 to"),
        (["adamw", "--step", "nowhere"], "there are update"),
        (["adamw", "--correction", "magic"], "use one of plug_in"),
        (["adamw", "--correction", "jackknife"], "Use strategy='delta'"),
        (["shampoo", "--correction", "delta"], "use one of full, diagonal"),
        (["shampoo", "--order", "2"], "order 1"),
        (["adamw", "--width", "3"], "20"),
        (["adamw", "--format", "pdf"], "'text', 'latex', 'html', 'json'"),
        (["adamw", "--hyper", "eps=x"], "no number"),
    ],
)
def test_bad_input_is_told_on_standard_error_with_exit_code_two(arguments, said):
    result = run(*arguments, code=2)
    assert said in result.stderr
    assert result.stdout == ""


COMMAND = [sys.executable, "-m", "deltabias", "explain", "adamw", "--step", "1"]


def test_a_reader_that_goes_away_is_no_error():
    whole = [*COMMAND[:-2], "--format", "json"]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) in (0, 1)


def on_a_terminal(command, environment):
    """What a command writes to a pseudo-terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    written = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait(60) == 0
    return written.decode()


def test_a_terminal_gets_colors_and_a_pager(tmp_path):
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho PAGED\ncat\n")
    pager.chmod(0o755)
    environment = {**os.environ, "PAGER": str(pager), "TERM": "xterm", "COLUMNS": "70"}
    paged = on_a_terminal(COMMAND, environment)
    assert paged.startswith("PAGED")
    assert "\x1b[1m" in paged
    straight = on_a_terminal([*COMMAND, "--no-pager"], environment)
    assert "PAGED" not in straight
    assert "\x1b[1m" in straight


def test_a_pipe_gets_neither():
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60, check=True,
                          env={**os.environ, "PAGER": "false"})  # fmt: skip
    assert "\x1b" not in done.stdout
    assert done.stdout == render(explain(get_rule("adamw")).only(1), width=80)
