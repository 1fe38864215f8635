"""What a step brings to Muon's average: its weight there, and its gradient's deviations."""

from dataclasses import dataclass

from torch import Tensor

from deltabias.microbatch.matrix_moments import MatrixBlocks, MatrixMoments


@dataclass(frozen=True)
class MomentumWeights:
    r"""Normalized weights of a step in torch's momentum, and what they amount to.

    .. math:: B_t = \mu B_{t-1} + (1-\mu) g_t, \qquad N_t = (1-\mu) g_t + \mu B_t
              = (1-\mu^2) g_t + \mu^2 B_{t-1}

    with Σ of the weights 1 − μᵗ and 1 − μᵗ⁺¹ (N_t = B_t without nesterov).

    Attributes
    ----------
    newest_buffer, newest : g_t's share b of B_t and a of N_t; older ones' is times 1 − b, 1 − a
    debias, debias_before : the sums of the weights, of N_t and of B_{t−1}
    squares_before : Σ of the squared normalized weights of B_{t−1}
    startup : all of Σ of N_t's squared weights, over that of the steps after the first
    """

    newest_buffer: float
    newest: float
    debias: float
    debias_before: float
    squares_before: float
    startup: float

    @classmethod
    def at(cls, step: int, momentum: float, nesterov: bool) -> "MomentumWeights":
        """The weights after `step` >= 1 steps; momentum < 1."""
        buffer, before = 1 - momentum**step, 1 - momentum ** (step - 1)
        debias = 1 - momentum ** (step + 1) if nesterov else buffer
        newest = (1 - momentum**2 if nesterov else 1 - momentum) / debias
        if step == 1:
            return cls((1 - momentum) / buffer, newest, debias, before, 0.0, 1.0)
        squares = (1 - momentum) / (1 + momentum) * (2 - before) / before
        first = (1 - momentum) * momentum ** (step - 2) / before
        total = newest**2 + (1 - newest) ** 2 * squares
        startup = total / (total - ((1 - newest) * first) ** 2)
        return cls((1 - momentum) / buffer, newest, debias, before, squares, startup)


def gradient_deviations(block: MatrixMoments) -> Tensor:
    """δM [r, rows, columns] of a `MatrixMoments`, without its squares."""
    if block.kept is None:
        return block.sketch[0].unsqueeze(0)
    return block.root_weights.view(-1, 1, 1) * (block.gradients - block.mean)


def whole(record: MatrixBlocks, parts: list[Tensor]) -> Tensor:
    """Blocks' tensors [..., rows, columns] put together to the parameter's."""
    joined = parts[0].new_empty((*parts[0].shape[:-2], *record.shape))
    for block, part in zip(record, parts, strict=True):
        joined[..., block.rows, block.columns] = part
    return joined
