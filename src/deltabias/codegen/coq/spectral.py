"""The certificate of a spectral map: its printed kernels are the first and second order of f(A)."""

from deltabias.calculus.spectral import SpectralMap
from deltabias.codegen.coq.certificate import Certificate
from deltabias.codegen.coq.spectral_bridge_text import programs
from deltabias.codegen.coq.spectral_dense_text import certificate_of_dense_map
from deltabias.codegen.coq.spectral_document import NOT_CERTIFIED, Text, document
from deltabias.codegen.coq.spectral_kernel_text import (
    at_equal_eigenvalues,
    differences,
    kernels,
    positivity,
)
from deltabias.codegen.coq.spectral_matrix_text import equation, products
from deltabias.codegen.spectral import kernel_source


def certificate_of_map(spectral: SpectralMap) -> Certificate:
    """The certificate of a spectral map at second order.

    Says, for all positive eigenvalues, equal ones included: the kernels are the first and second
    divided differences of f; they are f' and f''/2 at equal eigenvalues; for matrices they solve
    the equation that defines the function; the printed programs compute them.

    Raises
    ------
    CertifyError
        for an expression without a term over the reals.
    """
    if not spectral.separates:
        return certificate_of_dense_map(spectral)
    text = Text(spectral.hypers)
    parts = [
        kernels(spectral, text),
        differences(spectral),
        at_equal_eigenvalues(spectral),
        positivity(spectral),
        products(spectral),
        equation(spectral, text),
        programs(spectral, text),
    ]
    return document(spectral, text, parts, _not_certified(spectral))


def _not_certified(spectral: SpectralMap) -> tuple[str, ...]:
    extra = ()
    if "_root(" in kernel_source(spectral):
        extra = ("that the helper _root, a rounded iteration, returns the root",)
    if spectral.keeps_positive:
        extra += (
            "that the second order is positive semidefinite (operator convexity); where it is, "
            "safe_matrix.ratio_is_positive_definite says that the corrected function is positive",
        )
    return NOT_CERTIFIED + extra
