"""The demo's result as tables for people: every number comes out of the result."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def chapter(console: Console, number: int, title: str) -> None:
    """A heading."""
    console.print()
    console.rule(f"[bold]{number}  {escape(title)}", align="left")


def terms(console: Console, result: dict) -> None:
    """The named terms of the derivation."""
    console.print(f"rule    u = {escape(result['rule'])}")
    console.print(f"domain  {escape(', '.join(result['domain']) or 'everywhere')}")
    table = _table("bias term", "moment", "coefficient")
    for term in result["terms"]:
        table.add_row(term["name"], escape(term["moment"]), escape(term["coefficient"]))
    console.print(table)
    console.print("E u - u* = Σ coefficient · moment, to first order; the moments are the means'.")


def emission(console: Console, result: dict) -> None:
    """The generated files and their test's verdict."""
    for path in result["files"]:
        console.print(f"wrote   {escape(path)}", highlight=False)
    if result["passed"] is None:
        console.print(f"[yellow]not run[/]  {escape(result['output'])}")
    elif result["passed"]:
        console.print(f"[green]passed[/]  {escape(result['output'].splitlines()[-1])}")
    else:
        console.print(f"[red]failed[/]\n{escape(result['output'])}")


def exact(console: Console, result: dict) -> None:
    """Bias before and after, by exact enumeration."""
    console.print(
        f"g is {escape(result['law'])}; every other statistic is g² of the same microbatches. "
        "Every possible sample is visited: no noise."
    )
    table = _table("microbatches", "bias, plug-in", "bias, corrected", "left of it")
    for row in result["rows"]:
        table.add_row(
            str(row["microbatches"]),
            _percent(row["plug_in"], 3),
            _percent(row["corrected"], 3),
            _percent(row["ratio"], 1, sign=False),
        )
    console.print(table)


def training(console: Console, result: dict) -> None:
    """Validation losses, their paired difference, and the time per step."""
    console.print(
        f"{result['parameters'] / 1e6:.2f} million parameters, {result['steps']} steps of "
        f"{result['microbatches']} microbatches of {result['sequences']} × {result['context']} "
        f"bytes; {result['files']} files of Python's standard library, "
        f"{result['training_bytes'] / 1e6:.1f} MB to train on, "
        f"{result['validation_bytes'] / 1e6:.2f} MB held out"
    )
    first, second = result["names"]
    table = _table("validation, nats/byte", first, second, "difference")
    for run in result["runs"]:
        a, b = run["validation"]
        table.add_row(f"seed {run['seed']}", f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}")
    means = [_plus_minus(mean, spread) for mean, spread in result["mean_and_spread"]]
    difference = _plus_minus(result["mean_difference"], result["standard_error"], "+")
    table.add_row("mean ± spread", *means, f"{difference} (s.e.)", style="bold")
    console.print(table)
    console.print(escape(result["verdict"]))
    a, b, ratio = (result["step_seconds"][key] for key in ("first", "second", "ratio"))
    console.print(
        f"time per step, forward and backward included: {1e3 * a:.0f} ms and {1e3 * b:.0f} ms, "
        f"ratio {ratio:.2f} (median of pairs)"
    )


def layers(console: Console, result: dict) -> None:
    """Predicted and measured relative bias, layer by layer."""
    console.print(
        f"laws: {result['recorded']} microbatches at step {result['snapshot_step']}; measured on "
        f"{result['replicates']} histories of {result['steps']} steps drawn from them"
    )
    table = _table(
        *("layer", "coord.", "noise", "var v/v²", "1st order", "2nd order"),
        *("measured", "corrected"),
        gap=1,
    )
    for row in result["rows"]:
        table.add_row(
            row["layer"],
            str(row["coordinates"]),
            f"{row['noise_share']:.2f}",
            f"{row['spread']:.3f}",
            f"{100 * row['predicted']:+.2f}",
            f"{100 * row['predicted_second_order']:+.2f}",
            _in_percent(row["measured"], row["measured_error"]),
            _in_percent(row["corrected"], row["corrected_error"]),
        )
    console.print(table)
    console.print(
        "bias of the update along its population value, in percent of it: predicted to first and "
        "second order, measured without correction and with it (± one standard error). The "
        "expansion is in var v/v²: the larger that is, the rougher its first order."
    )


def closing(console: Console, result: dict) -> None:
    """How long it took."""
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result["seconds"].items())
    console.print()
    console.print(f"[bold]{result['total_seconds']:.0f} s in total[/] ({escape(parts)})")


PRINTERS = {
    "derivation": terms,
    "emission": emission,
    "exact": exact,
    "training": training,
    "layers": layers,
}
"""By the part's key in the result."""


def _table(first: str, *others: str, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name in ("moment", "coefficient") else "right")
    return table


def _percent(value: float | None, digits: int, *, sign: bool = True) -> str:
    if value is None:
        return "none to correct"
    return f"{100 * value:{'+' if sign else ''}.{digits}f} %"


def _in_percent(value: float, error: float) -> str:
    return f"{100 * value:+.2f} ± {100 * error:.2f}"


def _plus_minus(value: float, spread: float | None, sign: str = "") -> str:
    return f"{value:{sign}.4f}" + ("" if spread is None else f" ± {spread:.4f}")
