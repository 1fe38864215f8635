"""Statistics of the microbatch gradients of one optimizer step, streamed.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> stats = MicrobatchStats([weight])
    >>> for gradient in ([1.0, 2.0], [3.0, 2.0], [5.0, 2.0], [7.0, 2.0]):
    ...     stats.add([torch.tensor(gradient)])
    >>> moments = stats.consume()[weight]
    >>> moments.mean
    tensor([4., 2.])
    >>> moments.var_of_mean()  # sample variance 20/3, over 4 microbatches
    tensor([1.6667, 0.0000])

`stats` is the object a training loop holds; `moments` is what an optimizer reads. `block` has the
update formulas, `layout` the order and precision, `capture` and `ranks` the two sources of data
besides ``add``: a backward pass and other processes (`sharded`: those of FSDP2; `agreement`: what
they must have in common). `matrix_stats` is the same for matrix
preconditioners: means and deviations of G_r, G_r G_rᵀ and G_rᵀ G_r, by `matrix_streams` and
`matrix_sums`, read as `matrix_moments`.
"""

from deltabias.microbatch.agreement import RankLost, RanksDisagree, check_agreement
from deltabias.microbatch.matrix_moments import MatrixBlocks, MatrixMoments, MatrixStep
from deltabias.microbatch.matrix_stats import MatrixStats, blocks, matrix_shape
from deltabias.microbatch.moments import Moments, StepMoments
from deltabias.microbatch.sharded import RankGradients
from deltabias.microbatch.stats import MicrobatchStats

__all__ = [
    "MatrixBlocks",
    "MatrixMoments",
    "MatrixStats",
    "MatrixStep",
    "MicrobatchStats",
    "Moments",
    "RankGradients",
    "RankLost",
    "RanksDisagree",
    "StepMoments",
    "blocks",
    "check_agreement",
    "matrix_shape",
]
