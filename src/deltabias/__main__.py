"""``deltabias`` and ``python -m deltabias``."""

import sys
from importlib.util import find_spec

NEEDED = ("click", "rich", "sympy", "numpy", "mpmath")
"""What the command line is built on; an optimizer at run time needs torch alone."""


def main() -> None:
    """Run the command line, or say what has to be installed for it (exit code 2)."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"deltabias: the command line needs {', '.join(missing)}; "
            "pip install 'deltabias[cli]'.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from deltabias.cli import main as command_line

    command_line(prog_name="deltabias")


if __name__ == "__main__":
    main()
