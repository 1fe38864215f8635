"""One certificate, checked: compiled with a time limit, its axioms compared, then written."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deltabias.certify import coq, theory
from deltabias.codegen.coq.certificate import Certificate
from deltabias.errors import CertifyError

LIMIT = 60
"""Seconds for one certificate, unless told otherwise."""


@dataclass(frozen=True)
class Verdict:
    """What Coq said of a certificate.

    ``seconds`` are those of coqc on the certificate, without the theory; ``axioms`` those that its
    theorems stand on, all of them together.
    """

    certificate: Certificate
    coq: str
    seconds: float
    axioms: tuple[str, ...]


def check(
    certificate: Certificate,
    *,
    limit: float = LIMIT,
    say: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Compile a certificate against the theory and ask what its theorems stand on.

    Raises
    ------
    Rejected
        if Coq refuses a statement, if something is left unproved, or for an axiom off the list.
    CannotCheck
        without coqc, or when the time limit is reached: then nothing is known.
    """
    if limit <= 0:
        raise CertifyError(f"--time-limit {limit:g} leaves no time; give seconds above 0.")
    built = theory.compiled(say)
    with tempfile.TemporaryDirectory(prefix="deltabias-certify-") as folder:
        own = Path(folder) / "own"
        own.mkdir()
        path = own / f"{certificate.subject}.v"
        path.write_text(certificate.text)
        coq.look_for_holes(path, certificate.text)
        source = coq.Source(coq.CERTIFICATES, certificate.subject, path, own)
        seconds = coq.compile_file(source, built, limit)
        axioms = _axioms(source, certificate, built, limit)
    return Verdict(certificate, coq.version(), seconds, tuple(axioms))


def _axioms(source: coq.Source, certificate: Certificate, built: Path, limit: float) -> list[str]:
    stated = [coq.Statement(t.name, source.key, t.says) for t in certificate.theorems]
    libraries = ["-R", str(built), coq.THEORY, "-R", str(source.build), source.library]
    axioms = coq.axioms_of({source.key: source}, stated, source.build, limit, libraries)
    report = coq.Report("", axioms=axioms)
    coq.compare_with_whitelist(report)
    return axioms[source.key]


def write(certificate: Certificate, directory: Path) -> Path:
    """The certificate as ``NAME.v``, whole or not at all.

    Raises
    ------
    CertifyError
        for a file of that name that deltabias did not write.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{certificate.subject}.v"
    if target.exists() and "deltabias" not in target.read_text(errors="replace"):
        raise CertifyError(f"{target} exists and is no certificate; move it or use another --out.")
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(certificate.text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target


def parse_boxes(pairs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """``v=0.1:10`` to a mapping; the ends stay decimal text, so that they are exact.

    >>> parse_boxes(["v=0.1:10"])
    {'v': ('0.1', '10')}

    Raises
    ------
    CertifyError
        for anything else, and for a box without an inside.
    """
    found: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        name, equals, ends = pair.partition("=")
        low, colon, high = ends.partition(":")
        try:
            inside = float(low) < float(high) < float("inf") and float(low) > float("-inf")
        except ValueError:
            inside = False
        if not (equals and colon and inside):
            raise CertifyError(f"--box {pair}: write NAME=LOW:HIGH with LOW < HIGH, as v=0.1:10.")
        if name in found:
            raise CertifyError(f"--box {name} is given twice.")
        found[name] = (low.strip(), high.strip())
    return found
