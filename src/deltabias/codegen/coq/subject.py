"""The certificate of anything that has one: a scalar rule, a matrix rule, a matrix function."""

from collections.abc import Mapping

from deltabias.calculus.spectral import SpectralMap
from deltabias.codegen.coq.certificate import Certificate, with_words
from deltabias.codegen.coq.matrix import certificate_of_matrix_rule
from deltabias.codegen.coq.scalar import fold, refusal, scalar_certificate
from deltabias.codegen.coq.spectral import certificate_of_map
from deltabias.codegen.emit import MARK, digest
from deltabias.errors import CertifyError
from deltabias.matrix_rule import MatrixRule
from deltabias.rule import UpdateRule

Subject = UpdateRule | MatrixRule | SpectralMap
"""What code and certificates are generated from."""

Box = Mapping[str, tuple[str, str]]
"""Name to the ends of its range, as exact decimal texts."""


def certificate_of(
    subject: Subject,
    order: int = 2,
    boxes: Box | None = None,
    *,
    mark: str = "",
) -> Certificate:
    """The certificate of a subject, not checked yet.

    Raises
    ------
    CertifyError
        for what no certificate covers, by name.
    """
    if isinstance(subject, UpdateRule):
        return scalar_certificate(subject, order, boxes, mark=mark)
    if order != 2 or boxes:
        raise CertifyError(
            f"{subject.name!r} is about matrices: it is certified at --order 2, without a --box."
        )
    if isinstance(subject, MatrixRule):
        return certificate_of_matrix_rule(subject)
    return certificate_of_map(subject)


def certificate_text(subject: Subject) -> str:
    """The subject's Coq file; for what no certificate covers, a comment that says so."""
    mark = f"{MARK} {subject.name}"
    if isinstance(subject, UpdateRule):
        mark = f"{MARK} Rule {subject.name}, digest {digest(subject)}."
    try:
        found = certificate_of(subject, mark=mark)
    except CertifyError as reason:
        return refusal(subject, str(reason), mark)
    return fold(with_words(found.text, found.theorems))
