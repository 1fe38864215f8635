"""`deltabias report`: how large the bias of a rule is, before anybody corrects it.

By step and by noise share, at the user's betas and microbatches: predicted by the derivation,
exact where an exact integral applies, and simulated independently of both.
"""

from deltabias.report.record import NOISE_SHARES, STEPS, Report, report
from deltabias.report.rows import Row

__all__ = ["NOISE_SHARES", "STEPS", "Report", "Row", "report"]
