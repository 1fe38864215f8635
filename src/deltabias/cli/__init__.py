"""The command line: a thin door to derivation, certificates, code, reports, checks and the demo.

Exit codes: 0 pass, 1 a check failed, 2 usage or bad input (message on standard error, nothing
written). A subcommand imports SymPy, torch or matplotlib only when it runs.
"""

import click

from deltabias import __version__
from deltabias.cli.certify_command import certify
from deltabias.cli.demo_command import demo
from deltabias.cli.derive_command import derive
from deltabias.cli.door import Door
from deltabias.cli.explain_command import explain
from deltabias.cli.generate_command import generate
from deltabias.cli.report_command import report
from deltabias.cli.verify_command import verify


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deltabias")
def main() -> None:
    """The finite-sample bias of optimizer updates: derived, corrected, generated, reported."""


for command in (derive, explain, certify, generate, report, verify, demo):
    main.add_command(command)

__all__ = ["main"]
