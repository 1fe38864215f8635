"""``deltabias explain``: a rule's bias and correction, step by step, in words and formulas."""

import shutil
import sys

import click

from deltabias.cli.door import declared, hyper_option, parse_hypers

WIDEST = 100
"""Columns of a wide terminal that are used: longer lines of text are hard to read."""


@click.command()
@click.argument("rule")
@click.option("--step", metavar="N", help="Only this step, by its number or its id.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "latex", "html", "json"]),
    default="text",
    show_default=True,
    help="Text for a terminal, a LaTeX document, a page of HTML, or JSON.",
)
@click.option(
    "--correction",
    metavar="STRATEGY",
    help="The strategy that is explained [default: the one of the generated code].",
)
@click.option(
    "--order",
    type=click.IntRange(1, 3),
    default=1,
    show_default=True,
    help="Power of the small parameter up to which the bias is derived.",
)
@hyper_option
@click.option("--no-pager", is_flag=True, help="Print at once, also to a terminal.")
@click.option(
    "--width",
    type=click.IntRange(min=20),
    metavar="COLUMNS",
    help="Of text [default: the terminal's, 100 at most].",
)
def explain(
    rule: str,
    step: str | None,
    style: str,
    correction: str | None,
    order: int,
    hypers: tuple[str, ...],
    no_pager: bool,
    width: int | None,
) -> None:
    """Explain RULE step by step: its update, its bias term by term, its corrected form.

    RULE is a catalogue name, a .toml file, or mathematics, as for `derive`. Every formula is one
    of the objects that the generated code is printed from.
    """
    from deltabias.explain import explain as explain_rule
    from deltabias.explain import render
    from deltabias.rule_file import resolve_rule

    resolved = resolve_rule(rule, declared(parse_hypers(hypers)))
    explanation = explain_rule(resolved, order=order, strategy=correction)
    if step is not None:
        explanation = explanation.only(step)
    terminal = style == "text" and sys.stdout.isatty()
    width = width or min(WIDEST, shutil.get_terminal_size().columns)
    text = render(explanation, style, width=max(width, 20), color=terminal)
    if terminal and not no_pager:
        click.echo_via_pager(text, color=True)
    else:
        click.echo(text, nl=False)
