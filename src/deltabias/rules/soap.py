r"""``soap``: Adam in the eigenbasis of Shampoo's factors.

.. math:: U = Q_L \left(\frac{Q_L^T M Q_R}{\sqrt{V} + \epsilon}\right) Q_R^T,
          \qquad V = \mathrm{avg}\, (Q_L^T G Q_R)^{\circ 2}

The bases are refreshed rarely and taken as given: the bias is that of Adam entry by entry, on
rotated gradients, conditional on the basis. It is carried back by the rotations, which are linear.
"""

from deltabias.matrix_rule import MatrixRule, MatrixState, MatrixStatistic
from deltabias.rule import BETA1, BETA2, EPS

_SQUARE = MatrixStatistic("rotated_square", 'elementwise("x**2", x=G)', of_mean=True)
SOAP = MatrixRule(
    "soap",
    'elementwise("m/(sqrt(v) + eps)", m=M, v=V)',
    (
        MatrixState("M", MatrixStatistic("rotated_gradient", "G"), BETA1),
        MatrixState("V", _SQUARE, BETA2),
    ),
    (EPS,),
    "SOAP, in its eigenbasis: M and G are rotated, the update is to be rotated back",
    ("Vyas et al., SOAP, arXiv 2409.11321, algorithm 3",),
)
RULES = (SOAP,)
