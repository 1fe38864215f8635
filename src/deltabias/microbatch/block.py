"""The arithmetic: weighted means and central moments of lists of tensors, in place.

Everything rests on one identity. With c_k = Σ w (x − mean)^k / W, the moments about a point that
lies d below the mean follow from those about the mean, without any cancellation of large terms:

    c₂ + d²,    c₃ + 3 d c₂ + d³,    c₄ + 4 d c₃ + 6 d² c₂ + d⁴

Two sets of data are merged by taking both about their common mean and averaging; one more
observation is a set of one, all of whose c_k vanish. These are the updates of Welford (1962),
Chan, Golub & LeVeque (1983) and Pébay (SAND2008-6212, eqs. 2.1 and 3.1), for weights as in Pébay
et al. (2016), written for averages c_k instead of sums M_k = W c_k, so that no size of the weights
leaves the range of the dtype.

Range: fourth powers of gradients around 1e-10 vanish in fp32. Each tensor is therefore measured in
units of a power of two, its ``scale``, chosen on the device from its first gradient that is not
zero, and chosen again if a later one is 2^8 times larger. The largest element starts at about 2^8
and may grow to 2^16, so c₄ stays below 2^68. Elements more than 10^11 times smaller than the
largest of their tensor may lose their fourth moment, those 10^14 times smaller their third.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_START = 2.0**7  # the largest element of the first gradient lands in [2^7, 2^8)
LIMIT = 2.0**16
_CACHE_ELEMENTS = 2**17  # of a large tensor at a time: with its temporaries a few MiB


def usable(scale: Tensor) -> Tensor:
    """`scale` with 1 where it is not set yet; the accumulators are zero there."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def peaks(x: list[Tensor]) -> Tensor:
    """The largest magnitude in each of `x`, NaN where there is one; none may be empty."""
    if x[0].is_cuda:  # a launch for all
        return torch.stack(torch._foreach_norm(x, ord=float("inf")))
    extremes = [torch.aminmax(tensor) for tensor in x]  # on a CPU 20 times faster than the norm
    return torch.stack([torch.maximum(-low, high) for low, high in extremes])


def fitting_scale(scale: Tensor, peak: Tensor) -> Tensor:
    """Keep `scale` where a gradient with largest element `peak` fits, else a new power of two.

    Both are vectors with one entry per tensor. A peak that is not finite changes nothing.
    """
    fits = (peak <= LIMIT * scale) | ~torch.isfinite(peak)
    mantissa, _ = torch.frexp(peak)
    # peak = mantissa · 2^e exactly, so the quotient is exactly 2^(e-1), and never overflows.
    power = (peak / (2 * mantissa) / _START).clamp_min(torch.finfo(peak.dtype).tiny)
    return torch.where(fits, scale, power)


@dataclass
class Block:
    """Lists of tensors with their weighted means and central moments, in units of `scale`.

    Attributes
    ----------
    mean, central[k]
        one tensor per followed tensor; ``central[k]`` are averages Σ w (x − mean)^k / W, for
        k = 2, 3, … in this order
    scale
        a vector, one power of two per tensor; 0 where nothing but zeros was seen
    """

    mean: list[Tensor]
    central: dict[int, list[Tensor]]
    scale: Tensor

    def rescale(self, scale: Tensor) -> None:
        """Measure in other units: mean times r, c_k times r^k with r = old / new."""
        ratio = self.scale / usable(scale)
        torch._foreach_mul_(self.mean, list(ratio.unbind()))
        power = ratio
        for moments in self.central.values():
            power = power * ratio  # products of powers of two are exact, pow() need not be
            torch._foreach_mul_(moments, list(power.unbind()))
        self.scale = scale

    def recenter(self, distance: list[Tensor]) -> None:
        """Take the moments about the point that lies `distance` below the mean, in place."""
        d, c = distance, self.central
        square = torch._foreach_mul(d, d)
        if 4 in c:  # c₄ + d (4 c₃ + d (6 c₂ + d²))
            inner = torch._foreach_add(square, c[2], alpha=6)
            torch._foreach_mul_(inner, d)
            torch._foreach_add_(inner, c[3], alpha=4)
            torch._foreach_addcmul_(c[4], inner, d)
        if 3 in c:  # c₃ + d (3 c₂ + d²)
            inner = torch._foreach_add(square, c[2], alpha=3)
            torch._foreach_addcmul_(c[3], inner, d)
        torch._foreach_add_(c[2], square)

    def average(self, share: float) -> None:
        """Multiply the central moments by this set's share of the weight."""
        for moments in self.central.values():
            torch._foreach_mul_(moments, share)

    def pieces(self, x: list[Tensor]) -> Iterator[tuple["Block", list[Tensor]]]:
        """This block and `x`; of a single large tensor in main memory, views that fit its cache.

        Fresh temporaries of many megabytes cost a CPU more than the arithmetic on them.
        """
        tensors = [*self.mean, *x, *(c for moments in self.central.values() for c in moments)]
        large = len(x) == 1 and x[0].device.type == "cpu" and x[0].numel() > _CACHE_ELEMENTS
        if not large or not all(tensor.is_contiguous() for tensor in tensors):
            yield self, x
            return
        mean, x, *central = (tensor.view(-1).split(_CACHE_ELEMENTS) for tensor in tensors)
        for i in range(len(x)):
            moments = {k: [c[i]] for k, c in zip(self.central, central, strict=True)}
            yield Block([mean[i]], moments, self.scale), [x[i]]

    def add(self, x: list[Tensor], ours: float, theirs: float) -> None:
        """One more observation `x`, in gradient units; `ours` + `theirs` = 1 share the weight.

        With δ = x − mean the common mean is mean + theirs·δ: the older data lie theirs·δ below it,
        the newcomer lies ours·δ above.
        """
        delta = torch._foreach_div(x, list(usable(self.scale).unbind()))
        torch._foreach_sub_(delta, self.mean)
        torch._foreach_add_(self.mean, delta, alpha=theirs)
        self.recenter(torch._foreach_mul(delta, -theirs))
        self.average(ours)
        torch._foreach_mul_(delta, ours)
        square = torch._foreach_mul(delta, delta)
        factors = {2: (delta, delta), 3: (square, delta), 4: (square, square)}
        for k, moments in self.central.items():
            torch._foreach_addcmul_(moments, *factors[k], value=theirs)

    def merge(self, other: "Block", ours: float, theirs: float) -> None:
        """All of `other`'s observations; `other` is used up."""
        scale = torch.maximum(self.scale, other.scale)
        self.rescale(scale)
        other.rescale(scale)
        delta = torch._foreach_sub(other.mean, self.mean)
        torch._foreach_add_(self.mean, delta, alpha=theirs)
        self.recenter(torch._foreach_mul(delta, -theirs))
        other.recenter(torch._foreach_mul(delta, ours))
        self.average(ours)
        for k, moments in self.central.items():
            torch._foreach_add_(moments, other.central[k], alpha=theirs)
