"""``deltabias demo``: the main job on real input."""

from pathlib import Path

import click

from deltabias.cli.door import echo_json


@click.command()
@click.option("--seeds", type=click.IntRange(1, 100), help="Pairs of training runs [default: 3].")
@click.option("--steps", type=click.IntRange(2), help="Optimizer steps of each run.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Directory of the generated files.",
)
@click.option("--json", "as_json", is_flag=True, help="Every number; the story goes to stderr.")
def demo(seeds: int | None, steps: int | None, out: Path, as_json: bool) -> None:
    """Derive, generate, hold against exact truth, and train a small language model with it."""
    from rich.console import Console

    from deltabias.demo import run_demo

    chosen = {"seeds": None if seeds is None else tuple(range(seeds)), "steps": steps}
    result = run_demo(
        directory=out,
        console=Console(stderr=as_json),
        **{name: value for name, value in chosen.items() if value is not None},
    )
    if as_json:
        echo_json(result)
    if not result["passed"]:
        raise SystemExit(1)
