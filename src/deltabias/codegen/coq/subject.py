"""The certificate of anything that has one: a scalar rule, a matrix rule, a matrix function."""

from collections.abc import Mapping

from deltabias.calculus.spectral import SpectralMap
from deltabias.codegen.coq.certificate import Certificate
from deltabias.codegen.coq.matrix import certificate_of_matrix_rule
from deltabias.codegen.coq.scalar import scalar_certificate
from deltabias.codegen.coq.spectral import certificate_of_map
from deltabias.errors import CertifyError
from deltabias.matrix_rule import MatrixRule
from deltabias.rule import UpdateRule

Box = Mapping[str, tuple[str, str]]
"""Name to the ends of its range, as exact decimal texts."""


def certificate_of(
    subject: UpdateRule | MatrixRule | SpectralMap,
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
