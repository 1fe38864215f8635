"""``deltabias derive``: a rule's bias, term by term."""

import click

from deltabias.cli.door import declared, echo_json, hyper_option, parse_hypers


@click.command()
@click.argument("rule")
@click.option(
    "--order",
    type=click.IntRange(1, 3),
    default=1,
    show_default=True,
    help="Power of the small parameter up to which the bias is derived.",
)
@hyper_option
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "latex", "json"]),
    default="text",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--steps", is_flag=True, help="Print every step of the derivation.")
def derive(
    rule: str, order: int, hypers: tuple[str, ...], style: str, as_json: bool, steps: bool
) -> None:
    """Derive the bias of RULE: a catalogue name, a .toml file, or mathematics.

    In a typed rule such as "g/(sqrt(v)+eps)" every lower-case symbol that is not a hyperparameter
    is a random statistic; in one such as "inv_root(L + damping*I, 4)*M" every upper-case one is a
    random matrix, and I is the identity.
    """
    from deltabias.cli import derivation_text, matrix_text
    from deltabias.derivation import derive as derive_rule
    from deltabias.matrix_derivation import derive_matrix
    from deltabias.matrix_rule import MatrixRule
    from deltabias.rule_file import resolve_rule

    resolved = resolve_rule(rule, declared(parse_hypers(hypers)))
    if isinstance(resolved, MatrixRule):
        if order != 1:
            raise click.UsageError(f"--order {order}: a matrix rule is derived to order 1.")
        derivation, derivation_text = derive_matrix(resolved), matrix_text
    else:
        derivation = derive_rule(resolved, order)
    if as_json or style == "json":
        echo_json(derivation_text.as_record(derivation))
    elif style == "latex":
        click.echo(derivation_text.as_latex(derivation, steps=steps))
    else:
        click.echo(derivation_text.as_text(derivation, steps=steps))
