r"""``muon`` and ``muon_polar``: the momentum with all its singular values set to one.

.. math:: U = M (M^T M)^{-1/2} = W V^T \quad\text{for}\quad M = W \Sigma V^T

``muon`` runs five steps of the quintic Newton-Schulz iteration on M / ‖M‖ instead, whose
polynomial takes every singular value near one; it is smooth where M is rank-deficient, which the
polar factor is not. There is one statistic, so all of the bias is that of one map.
"""

from deltabias.matrix_rule import MatrixRule, MatrixState, MatrixStatistic
from deltabias.rule import Hyper

_MUON = "K. Jordan et al., Muon (2024); torch.optim.Muon"
_MOMENTUM = Hyper("beta1", 0.95, high=1.0)
_STATES = (MatrixState("M", MatrixStatistic("gradient", "G"), _MOMENTUM),)

MUON = MatrixRule(
    "muon", "newton_schulz(M, 5)", _STATES, (), "Muon, five Newton-Schulz steps", (_MUON,)
)
MUON_POLAR = MatrixRule("muon_polar", "polar(M)", _STATES, (), "Muon, exact polar factor", (_MUON,))
RULES = (MUON, MUON_POLAR)
