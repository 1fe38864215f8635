"""The validity meter of matrix optimizers."""

from dataclasses import dataclass

from deltabias.optim.meter import Validity


@dataclass(frozen=True)
class MatrixValidity(Validity):
    """`Validity`, where ``inversion`` is that of the eigenvalues of K.

    K is the inversion term relative to the preconditioner, P^-½ X₂ P^-½: its eigenvalues say how
    much of P is divided out, in each direction. ``coupling`` is the Frobenius norm of coupling and
    cross terms over the update's, root mean square over blocks.

    Attributes
    ----------
    clamped : int
        terms of blocks, summed over steps, that were cut to the size an expansion can have
    fallbacks : int
        inverse roots, summed over steps, for which ``solver="iteration"`` asked the eigensolver
    """

    clamped: int = 0
    fallbacks: int = 0
