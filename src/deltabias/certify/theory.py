"""Where the theory is, and its compiled form, kept between runs."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from deltabias.certify import coq

LIMIT = 300
"""Seconds for one file of the theory."""


def sources() -> Path:
    """The theory's folder: the repository's, or the copy that the installed package brings.

    Raises
    ------
    CannotCheck
        if neither is there.
    """
    here = Path(__file__).resolve()
    for folder in (here.parent / "theory", here.parents[3] / "proofs" / "theory"):
        if (folder / "taylor.v").is_file():
            return folder
    raise coq.CannotCheck(
        f"the theory that certificates stand on is not beside {here.parent} and not in a "
        "repository above it; install deltabias from its wheel, or work in a checkout."
    )


def cache() -> Path:
    """The folder of compiled theories, in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltabias"


def compiled(say: Callable[[str], None] = lambda line: None, jobs: int = 2) -> Path:
    """The compiled theory, made when it is not there yet; what was compiled is named by its text.

    Raises
    ------
    CannotCheck, Rejected
        without coqc, for a theory that does not compile, or where nothing can be written.
    """
    coq.require_tools("coqc")
    folder = sources()
    target = cache() / f"theory-{digest(folder)}"
    if target.is_dir():
        return target
    say("compiling the theory, once (half a minute)")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=".theory-"))
    except OSError as error:
        raise coq.CannotCheck(
            f"the compiled theory cannot be kept in {target.parent}: {error.strerror}; set "
            "XDG_CACHE_HOME to a folder that can be written."
        ) from error
    try:
        files = coq.collect([folder], fresh)
        for source in files.values():
            coq.look_for_holes(source.path, source.path.read_text())
        coq.compile_all(files, fresh, LIMIT, jobs)
        _move(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _move(fresh: Path, target: Path) -> None:
    """Rename; somebody else who was faster is as good."""
    try:
        os.replace(fresh, target)
    except OSError:
        if not target.is_dir():
            raise


def digest(folder: Path) -> str:
    """What the theory and the version of Coq are, in sixteen characters."""
    said = hashlib.sha256(coq.version().encode())
    for path in sorted(folder.glob("*.v")):
        said.update(path.name.encode() + path.read_bytes())
    return said.hexdigest()[:16]
