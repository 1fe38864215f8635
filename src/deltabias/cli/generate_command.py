"""``deltabias generate``: corrected updates as files, and the check that they have not drifted."""

import shlex
import tempfile
import tomllib
from pathlib import Path

import click

from deltabias.cli.door import declared, echo_json, hyper_option, parse_hypers
from deltabias.errors import GenerateError

OUT = "build"


@click.command()
@click.argument("rule", required=False)
@click.option("--name", help="Name of a typed rule: of its functions and files.")
@hyper_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help=f"Directory for one rule's files [default: {OUT}].",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(["compiled", "triton"]),
    help="Besides eager and foreach functions, for one rule of scalars: a module for torch.compile "
    "or of Triton kernels, and its test. May be given twice.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file has drifted.")
@click.option("--json", "as_json", is_flag=True)
def generate(
    rule: str | None,
    name: str | None,
    hypers: tuple[str, ...],
    out: Path | None,
    backends: tuple[str, ...],
    check: bool,
    as_json: bool,
) -> None:
    """Generate the corrected update of RULE, its test, documentation and certificate.

    Without RULE: the whole catalogue, into the deltabias project that the current directory is in.
    """
    if rule is None:
        given = {"--name": name, "--hyper": hypers, "--out": out, "--backend": backends}
        for option, value in given.items():
            if value:
                raise click.UsageError(f"{option} needs a RULE; without one the catalogue is made.")
        root = project_root(Path.cwd())
        result = _check_catalogue(root) if check else _write_catalogue(root)
    else:
        declared_hypers = declared(parse_hypers(hypers))
        result = _one_rule(rule, name, declared_hypers, out or Path(OUT), backends, check)
    if as_json:
        echo_json(result)
    else:
        _print(result)
    if result["drift"]:
        raise SystemExit(1)


def project_root(start: Path) -> Path:
    """The nearest directory upwards whose pyproject.toml is that of deltabias.

    Raises
    ------
    GenerateError
        if there is none.
    """
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file() and _project_name(file) == "deltabias":
            return folder
    raise GenerateError(
        f"{str(start)!r} is not inside the deltabias project (no pyproject.toml of that name "
        "upwards), so there is nowhere to put the catalogue. Change there, or name a RULE."
    )


def _project_name(file: Path) -> str | None:
    try:
        return tomllib.loads(file.read_text()).get("project", {}).get("name")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None


def _catalogue_files() -> dict[Path, str]:
    from deltabias.codegen.sync import catalogue_files
    from deltabias.rules import SUBJECTS

    return catalogue_files(SUBJECTS)


def _check_catalogue(root: Path) -> dict:
    from deltabias.codegen.sync import compare

    files = _catalogue_files()
    drifts = compare(root, files)
    return _result(
        len(files), [], [_drift(d.path, d.kind, d.diff) for d in drifts], "deltabias generate"
    )


def _write_catalogue(root: Path) -> dict:
    from deltabias.codegen.sync import write

    files = _catalogue_files()
    return _result(len(files), write(root, files), [], "deltabias generate")


def _one_rule(
    text: str,
    name: str | None,
    hypers: dict[str, float],
    out: Path,
    backends: tuple[str, ...],
    check: bool,
) -> dict:
    from deltabias.codegen.sync import write_rule
    from deltabias.rule_file import resolve_rule

    rule = resolve_rule(text, hypers, name=name or "custom")
    if name is not None and rule.name != name:
        raise GenerateError(f"--name {name} is for typed rules; {text!r} is named {rule.name!r}.")
    if not check:
        written = write_rule(rule, out, backends)
        return _result(len(written), written, [], "")
    with tempfile.TemporaryDirectory() as folder:
        fresh = write_rule(rule, Path(folder), backends)
        drifts = [d for d in (_compare_one(path, out / path.name) for path in fresh) if d]
    command = ["deltabias", "generate", text, "--out", str(out)]
    command += ["--name", name] if name else []
    command += [word for pair in hypers.items() for word in ("--hyper", "{}={:g}".format(*pair))]
    command += [word for backend in backends for word in ("--backend", backend)]
    return _result(len(fresh), [], drifts, shlex.join(command))


def _compare_one(fresh: Path, found: Path) -> dict | None:
    from difflib import unified_diff

    if not found.exists():
        return _drift(found, "missing")
    old, new = found.read_text(), fresh.read_text()
    if old == new:
        return None
    lines = unified_diff(old.splitlines(), new.splitlines(), str(found), "rule", n=1, lineterm="")
    return _drift(found, "changed", "\n".join(lines))


def _drift(path: Path, kind: str, diff: str = "") -> dict:
    return {"path": str(path), "kind": kind, "diff": diff}


def _result(files: int, written: list[Path], drift: list[dict], mend: str) -> dict:
    return {
        "files": files,
        "written": [str(path) for path in written],
        "drift": drift,
        "mend": mend if drift else "",
    }


def _print(result: dict) -> None:
    for path in result["written"]:
        click.echo(f"wrote {path}")
    for drift in result["drift"]:
        click.echo(f"{drift['kind']}: {drift['path']}")
        if drift["diff"]:
            click.echo(drift["diff"])
    if result["drift"]:
        click.echo(
            f"{len(result['drift'])} of {result['files']} generated files do not match "
            f"their rules. To mend: {result['mend']}",
            err=True,
        )
    elif not result["written"]:
        click.echo(f"{result['files']} generated files match their rules.")
