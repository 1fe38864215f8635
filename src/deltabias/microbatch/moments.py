"""What the microbatches of a step say about their mean: a frozen record per parameter.

Every quantity is about a *mean over the batch*, so no formula that takes it needs another 1/m.
The law behind the claims is that of tokens: microbatch r is the mean of w_r independent draws of
one law, so that its cumulants are

    E g_r = μ,    Var g_r = σ²/w_r,    κ₃(g_r) = κ₃/w_r²

(any unit of weight will do). With W = Σ w_r, the mean ḡ = Σ w_r g_r / W then has Var ḡ = σ²/W and
κ₃(ḡ) = κ₃/W². Equal weights need no tokens: independent g_r suffice, see each method.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from deltabias.microbatch.alignment import alignment
from deltabias.microbatch.layout import Layout, local


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of one parameter's microbatch gradients g_1 … g_m with weights w_1 … w_m.

    All tensors have the parameter's shape and the accumulation dtype. The stored ones are in units
    of ``scale``: gradients of 1e-12 have fourth moments of 1e-48, which fp32 cannot hold. The
    properties and methods answer in units of the gradient, or of `unit`, see `relative_to`.

    Attributes
    ----------
    count
        m, the number of microbatches
    weight, inverse_weight
        W = Σ w_r and H = Σ 1/w_r
    scaled_mean
        Σ w_r g_r / W, divided by ``scale``
    scaled_central
        ``{k: Σ w_r (g_r − ḡ)^k / W / scale^k}`` for k = 2 … ``moments``
    scale
        0-d tensor: a power of two, until `scaled_to` has multiplied it
    groups
        one record for each group of microbatches, where there is more than one
    unit
        what `relative_to` was given, else None
    """

    count: int
    weight: float
    inverse_weight: float
    scaled_mean: Tensor
    scaled_central: dict[int, Tensor]
    scale: Tensor
    groups: tuple["Moments", ...] = ()
    unit: Tensor | float | None = None

    @property
    def mean(self) -> Tensor:
        """ḡ = Σ w_r g_r / W."""
        return self._in_units(self.scaled_mean, 1)

    @property
    def central(self) -> dict[int, Tensor]:
        """``central[k]`` = Σ w_r (g_r − ḡ)^k / W. In gradient units k = 4 underflows early."""
        return {k: self._in_units(moment, k) for k, moment in self.scaled_central.items()}

    @property
    def group_means(self) -> tuple[Tensor, ...]:
        """The weighted mean of each group; of the only group if there is one.

        Raises
        ------
        ValueError
            Fewer microbatches than groups: an empty group has no mean.
        """
        records = self.groups or (self,)
        if any(record.count == 0 for record in records):
            raise ValueError(
                f"microbatches={self.count} leave one of groups={len(records)} empty; add at least "
                f"{len(records)} microbatches, or pass a smaller groups"
            )
        return tuple(record.mean for record in records)

    def var_of_mean(self) -> Tensor:
        r"""Unbiased estimate of Var ḡ.

        .. math:: \sum_r w_r (g_r - \bar g)^2 \,/\, ((m-1)\,W)

        *Weights.* If Var g_r = σ²/w_r then E Σ w_r (g_r − μ)² = m σ², of which W Var ḡ = σ² goes
        into ḡ; what is left, (m−1) σ², is divided by (m−1) W: σ²/W.

        *Equal weights.* Independent g_r of one mean but any variances σ_r²: the same subtraction
        leaves Σ σ_r² (1 − 1/m), which over (m−1) m is Σ σ_r²/m² = Var ḡ.

        Source: Cochran, Sampling Techniques (1977), §2.6 for equal weights, the rest as above.

        Raises
        ------
        ValueError
            One microbatch only.
        """
        (c2,) = self._central(2)
        return self._in_units(c2 / (self.count - 1), 2)

    def third_cumulant_of_mean(self) -> Tensor:
        r"""Unbiased estimate of κ₃(ḡ) = E (ḡ − μ)³, for three or more microbatches.

        .. math:: \frac{c_3}{W H - 3m + 2}, \qquad c_3 = \sum_r w_r (g_r-\bar g)^3 / W,
                  \quad H = \sum_r 1/w_r

        Equal weights make the divisor (m−1)(m−2) and the whole Fisher's k-statistic over m²; it is
        then unbiased for independent g_r of one mean and any laws. *Proof for weights*, by
        multilinearity of cumulants, with κ₃(g_r) = κ₃/w_r²:
        E Σ w_r (g_r − ḡ)³ = κ₃ Σ_r [(1 − w_r/W)³/w_r − w_r (W − w_r)/W³] = κ₃ (H − (3m−2)/W).

        Two microbatches answer 0: with equal weights their cubed deviations cancel whatever the
        law, so they hold no information on skewness, and 0 is the symmetric guess (exact for
        symmetric laws only).

        Source: Fisher (1929); Kendall & Stuart, The Advanced Theory of Statistics I, §12.

        Raises
        ------
        ValueError
            One microbatch only, or the third moment was not kept.
        """
        (c3,) = self._central(3)
        return self._in_units(c3 * self._skew_factor(), 3)

    def mean_of_squares(self) -> Tensor:
        """Σ w_r g_r² / W = ḡ² + c₂: a plain average, also for one microbatch."""
        self._require(2)
        return self._in_units(self.scaled_mean.square() + self.scaled_central[2], 2)

    def cov_of_mean_and_mean_of_squares(self) -> Tensor:
        r"""Unbiased estimate of Cov(ḡ, p₂), where p₂ = Σ w_r g_r² / W.

        .. math:: \frac{2 \bar g c_2}{m-1} + (m-2)\,\frac{c_3}{W H - 3m + 2}

        Equal weights: this is (c₃ + 2ḡc₂)/(m−1) = (p₃ − p₁p₂)/(m−1), the sample covariance of g
        and g² over m, without the cancellation of p₃ and p₁p₂; unbiased for independent g_r of one
        mean and any laws, as then E(g_r − ḡ) = 0 leaves no trace of different E g_r².

        *Weights.* Cov(ḡ, p₂) = Σ w_r² Cov(g_r, g_r²)/W² = 2μσ²/W + m κ₃/W², for the law of tokens.
        The first term of the formula has the mean 2μσ²/W + 2κ₃/W², as the third joint cumulants
        Σ w_r κ(ḡ, g_r − ḡ, g_r − ḡ) sum to κ₃ (m−1)/W; the second is m−2 times
        `third_cumulant_of_mean`. At m = 2 there is no second term and the claim still holds. (With
        unequal weights (c₃ + 2ḡc₂)/(m−1) itself would be off in κ₃.)

        Raises
        ------
        ValueError
            One microbatch only, or the third moment was not kept.
        """
        c2, c3 = self._central(2, 3)
        from_skewness = c3 * ((self.count - 2) * self._skew_factor())
        return self._in_units(from_skewness + self.scaled_mean * c2 * (2 / (self.count - 1)), 3)

    def var_of_mean_of_squares(self) -> Tensor:
        r"""Estimate of Var p₂, p₂ = Σ w_r g_r² / W; never negative.

        .. math:: (c_4 - c_2^2 + 4\bar g c_3 + 4\bar g^2 c_2)/(m-1) \;=\; (p_4 - p_2^2)/(m-1)

        This is `var_of_mean` of the observations q_r = g_r², expanded around ḡ: the deviation
        q_r − p₂ = 2ḡd + d² − c₂ with d = g_r − ḡ has the mean square in brackets. Unbiased for
        equal weights and identical laws. Equal weights with different E q_r make it too large by
        exactly their spread Σ (E q_r − E p₂)² / ((m−1) m). Unequal weights do that by themselves,
        as E q_r = μ² + σ²/w_r: then it is biased, upwards unless skewness and mean conspire.

        The bracket is a mean square, so what rounding leaves below zero is set to zero.

        Raises
        ------
        ValueError
            One microbatch only, or the fourth moment was not kept.
        """
        c2, c3, c4 = self._central(2, 3, 4)
        mean = self.scaled_mean
        bracket = (c4 - c2.square()) + 4 * mean * (c3 + mean * c2)
        return self._in_units(bracket.clamp_min(0) / (self.count - 1), 4)

    def relative_to(self, unit: Tensor | float) -> "Moments":
        """The same statistics of the gradients divided by `unit`, elementwise.

        With the root of a second-moment state as the unit every answer is of order one, where
        gradients of 1e-12 would have a `var_of_mean_of_squares` of 1e-48, zero in fp32. The unit is
        not copied, and must be positive: a zero divides as zero does.
        """
        groups = tuple(group.relative_to(unit) for group in self.groups)
        unit = unit if self.unit is None else self.unit * unit
        return replace(self, unit=unit, groups=groups)

    @torch.no_grad()
    def scaled_to(self, grad: Tensor, *, tolerance: float = 1e-2) -> tuple["Moments", Tensor]:
        """The statistics of ``s g_r``, with the s for which the mean comes closest to `grad`.

        s = <grad, ḡ> / <ḡ, ḡ>. The gradient that an optimizer is given is the mean of the
        microbatches times a factor that only its maker knows: a loss divided by m or by the number
        of tokens, a gradient scaler, clipping by norm. The k-th moments take s^k; nothing else
        changes, and nothing is copied.

        Returns
        -------
        moments, aligned
            `aligned` is a 0-d bool tensor on the parameter's device (nothing waits for it): whether
            ``|grad − s ḡ| <= tolerance |grad|`` in the Euclidean norm, and everything is finite.
            It is False when `grad` is not the mean of these microbatches: statistics of another
            step, of one rank out of several, or clipping by value. The default leaves room for
            gradients summed in bf16 (each addition rounds by up to 2^-9 of the sum; several dozen
            microbatches may exceed it); an error of 1 % of the gradient is one of a few per cent
            of a correction. Where ḡ is zero throughout, s stays 1 and `aligned` says whether `grad`
            is zero, too.
        """
        grad = local(grad)
        if grad.shape != self.scaled_mean.shape:
            shape = tuple(self.scaled_mean.shape)
            raise ValueError(
                f"grad has shape {tuple(grad.shape)}, the statistics {shape}; is it this "
                "parameter's gradient?"
            )
        mean = self.scaled_mean
        if not grad.numel():
            return self, torch.ones((), dtype=torch.bool, device=grad.device)
        grad = grad.detach().to(mean.dtype)
        # In units of its own largest element, lest the squares of tiny gradients vanish.
        peak = torch.linalg.vector_norm(grad, ord=float("inf"))
        grad = grad / torch.where(peak > 0, peak, 1.0)
        square = mean.square().sum()
        slope = (grad * mean).sum() / torch.where(square > 0, square, 1.0)
        residual = torch.linalg.vector_norm(grad - slope * mean)
        # False for NaN, which an infinity has become in these units
        aligned = residual <= tolerance * torch.linalg.vector_norm(grad)
        scale = torch.where(square > 0, slope * peak, self.scale)
        ratio = scale / self.scale
        groups = tuple(replace(group, scale=group.scale * ratio) for group in self.groups)
        return replace(self, scale=scale, groups=groups), aligned

    def alignment(self, grad: Tensor, *, tolerance: float = 1e-2) -> tuple[Tensor, Tensor]:
        """The scale that `scaled_to` gives to the statistics, and `aligned`, by inner products.

        See `deltabias.microbatch.alignment`, which looks at many tensors at once.
        """
        return alignment(self.scaled_mean, self.scale, grad, tolerance=tolerance)

    def _skew_factor(self) -> float:
        """1 / (W H − 3m + 2), positive for m >= 3 as W H >= m²; 0 for m = 2."""
        if self.count == 2:
            return 0.0
        return 1 / (self.weight * self.inverse_weight - 3 * self.count + 2)

    def _central(self, *orders: int) -> list[Tensor]:
        """Central moments for an estimate of a variance or the like."""
        if self.count < 2:
            raise ValueError(
                f"microbatches={self.count} gives no variance estimate; need at least 2, or pass "
                "correction='none'."
            )
        return [self._require(k) for k in orders]

    def _require(self, k: int) -> Tensor:
        if k not in self.scaled_central:
            raise ValueError(
                f"moments={max(self.scaled_central)} were kept, this needs {k}; pass "
                f"moments={k} to MicrobatchStats"
            )
        return self.scaled_central[k]

    def _in_units(self, scaled: Tensor, power: int) -> Tensor:
        """``scaled · (scale/unit)^power``, a factor at a time: the power itself may overflow."""
        factor = self.scale if self.unit is None else self.scale / self.unit
        for _ in range(power):
            scaled = scaled * factor
        return scaled


@dataclass(frozen=True, eq=False)
class StepMoments:
    """The records of all parameters for one optimizer step, in the order of the parameters.

    ``step[param]`` looks a parameter up by identity; iterating goes through ``moments``.

    Attributes
    ----------
    moments
        a `Moments` for each parameter, None where no microbatch had a gradient
    count, weight
        m and W, as in each record
    finite
        0-d bool tensor: whether every gradient added was finite. If not, the records of the
        tensors concerned hold NaN; look at it before any state is touched
    generation
        which step of the `MicrobatchStats` this is, counted from 1
    observed
        False for a step that is left out by ``every=k``; every record is None then
    """

    layout: Layout = field(repr=False)
    moments: tuple[Moments | None, ...] = field(repr=False)
    count: int
    weight: float
    finite: Tensor
    generation: int
    observed: bool = True

    def __getitem__(self, param: Tensor) -> Moments | None:
        return self.moments[self.layout.index(param)]

    def __iter__(self) -> Iterator[Moments | None]:
        return iter(self.moments)

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def group_means(self) -> tuple[tuple[Tensor, ...] | None, ...]:
        """`Moments.group_means` of every parameter."""
        return tuple(None if m is None else m.group_means for m in self.moments)
