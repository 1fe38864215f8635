"""``deltabias report`` on matrix rules: what scripts rely on, and refusals."""

import json

import pytest
from click.testing import CliRunner

from deltabias.cli import main

SMALL = ["--dim", "3", "--replicates", "256"]


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["report", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_the_json_has_the_share_of_every_mode_with_its_error():
    record = json.loads(run("shampoo", "--law", "wishart", *SMALL, "--json").stdout)
    for mode in ("plug_in", "cross_fit", "eigenvalue_only", "diagonal", "sketch", "full"):
        assert set(record["modes"][mode]) == {"removed", "standard_error"}
    assert record["modes"]["full"]["removed"] > record["modes"]["eigenvalue_only"]["removed"]
    assert record["statistic"] == "mean_of_squares"
    assert record["of"] == "preconditioner"
    assert (record["dim"], record["columns"], record["microbatches"]) == (3, 3, 16)


def test_people_get_a_table_and_a_figure(tmp_path):
    figure = tmp_path / "shares.svg"
    said = run("inv_root(L + damping*I, 2)*M", *SMALL, "--damping", 0.1, "--figure", figure).stdout
    for word in ("eigenvalue_only", "mean_of_squares", "damping=0.1", "coupling", "worst entry"):
        assert word in said
    assert figure.read_text().startswith("<?xml")


def test_damping_may_be_said_as_a_hyperparameter():
    arguments = ["shampoo", *SMALL, "--json"]
    apart = run(*arguments, "--hyper", "damping=0.2").stdout
    assert apart == run(*arguments, "--damping", 0.2).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shampoo", "--betas", 0.9, 0.95], "--betas has no meaning for a matrix rule"),
        (["shampoo", "--eps", 1e-8, "--steps", 1], "has no meaning for a matrix rule"),
        (["adamw", "--dim", 8], "--dim has no meaning for a scalar rule"),
        (["adamw", "--of", "update"], "--of has no meaning for a scalar rule"),
        (["adamw", "--condition", 20], "--condition has no meaning for a scalar rule"),
        (["shampoo", "--dim", 0], "dim=0 must be"),
        (["shampoo", "--microbatches", 1], "one microbatch"),
        (["shampoo", "--law", "laplace"], "choose one of wishart"),
        (["shampoo", "--condition", 0.1], "at least 1"),
        (["shampoo", "--damping", -1], "outside [0, inf)"),
        (["shampoo", "--statistic", "square_of_mean"], "optim.Shampoo"),
        (["shampoo", "--damping", 1, "--hyper", "damping=1"], "pass one"),
        (["shampoo", "--hyper", "dim=3"], "is the name of an option"),
        (["shampoo", "--figure", "a.png", "--replicates", 64], "must end in .svg"),
        (["muon", "--law", "wishart"], "no preconditioner"),
        (["shampo"], "Did you mean"),
    ],
)
def test_bad_input_is_exit_code_2_with_a_message(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = run(*arguments, code=2)
    assert refused.stdout == ""
    assert message in " ".join(refused.stderr.split())
    assert list(tmp_path.iterdir()) == []
