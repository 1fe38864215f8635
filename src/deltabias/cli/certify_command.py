"""``deltabias certify``: a rule's certificate, written and checked by Coq."""

from pathlib import Path

import click

from deltabias.cli.door import declared, echo_json, hyper_option, parse_hypers


@click.command()
@click.argument("rule")
@click.option("--name", help="Name of a typed rule: of its certificate's file.")
@click.option(
    "--order",
    type=click.Choice(["2", "4"]),
    default="2",
    show_default=True,
    help="Order of the derivatives in the expansion: 2 leaves 1/m², 4 leaves 1/m³.",
)
@click.option(
    "--box",
    "boxes",
    multiple=True,
    metavar="NAME=LOW:HIGH",
    help="Range of a statistic or hyperparameter, for maps whose derivatives have no bound by "
    "form. Repeatable.",
)
@hyper_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Directory for NAME.v, written only once it is checked [default: nothing is written].",
)
@click.option(
    "--time-limit", type=float, default=60, show_default=True, help="Seconds for the certificate."
)
@click.option("--json", "as_json", is_flag=True)
def certify(
    rule: str,
    name: str | None,
    order: str,
    boxes: tuple[str, ...],
    hypers: tuple[str, ...],
    out: Path | None,
    time_limit: float,
    as_json: bool,
) -> None:
    """Prove the bias of RULE: a catalogue name, a .toml file, or mathematics.

    Prints each theorem, the seconds and the axioms it stands on. Exit code 0: certified; 1: Coq
    rejects a statement; 2: bad input, no Coq, a time limit, or a rule that the theory does not
    cover: then nothing is claimed and nothing is written.
    """
    from deltabias.certify.check import check, parse_boxes, write
    from deltabias.certify.coq import Rejected
    from deltabias.codegen.coq.subject import certificate_of
    from deltabias.rule_file import resolve_rule
    from deltabias.rules import SPECTRAL_MAPS

    resolved = SPECTRAL_MAPS.get(rule) or resolve_rule(
        rule, declared(parse_hypers(hypers)), name=name or "custom"
    )
    certificate = certificate_of(resolved, int(order), parse_boxes(boxes))
    try:
        verdict = check(certificate, limit=time_limit, say=lambda line: click.echo(line, err=True))
    except Rejected as reason:
        click.echo(f"rejected: {reason}", err=True)
        raise SystemExit(1) from reason
    path = write(certificate, out) if out is not None else None
    if as_json:
        echo_json(_record(verdict, path))
    else:
        click.echo(_text(verdict, path))


def _record(verdict, path: Path | None) -> dict:
    certificate = verdict.certificate
    return {
        "rule": certificate.subject,
        "certified": True,
        "order": certificate.order,
        "domain": list(certificate.domain),
        "theorems": [
            {"name": t.name, "kind": t.kind, "says": t.says} for t in certificate.theorems
        ],
        "not_certified": list(certificate.not_certified),
        "axioms": list(verdict.axioms),
        "seconds": verdict.seconds,
        "coq": verdict.coq,
        "file": None if path is None else str(path),
    }


def _text(verdict, path: Path | None) -> str:
    certificate = verdict.certificate
    lines = [
        f"{certificate.subject} is certified at order {certificate.order} on "
        f"{', '.join(certificate.domain)}.",
        "",
    ]
    for theorem in certificate.theorems:
        lines += [f"  {theorem.name} ({theorem.kind.replace('_', ' ')})", f"    {theorem.says}"]
    lines += ["", "Not certified:"]
    lines += [f"  - {left}" for left in certificate.not_certified]
    axioms = ", ".join(verdict.axioms) or "none"
    lines += ["", f"Coq {verdict.coq}, {verdict.seconds:.1f} s. Axioms: {axioms}."]
    return "\n".join([*lines, *([f"Wrote {path}."] if path else [])])
