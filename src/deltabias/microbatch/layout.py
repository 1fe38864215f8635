"""Which tensors are followed, in which order, in which precision."""

import math
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real

import torch
from torch import Tensor

# Fourth powers need fp32's range and sums over microbatches its digits; fp64 stays fp64.
_ACCUMULATE = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}
# Tensors are updated in lists of at most this many elements: few kernel launches for small
# tensors, and temporaries of 64 MiB (on a CPU 1 MiB, for its cache) instead of a model's size.
_BUCKET_ELEMENTS = 2**24
_CPU_BUCKET_ELEMENTS = 2**18


def local(tensor: Tensor) -> Tensor:
    """The shard of a DTensor that this rank holds; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class Layout:
    """The parameters in order, each with the dtype its statistics are kept in.

    A parameter is looked up by identity, as its hash; the record survives `copy.deepcopy` and
    `pickle`, after which the copied parameters are the keys.

    Raises
    ------
    TypeError
        Not an iterable of tensors or of parameter groups; a complex, sparse or integer tensor;
        a `dtype` other than ``torch.float32`` and ``torch.float64``.
    ValueError
        No parameter at all, or the same one twice.
    """

    def __init__(self, params: Iterable, dtype: torch.dtype | None = None) -> None:
        if dtype not in (None, torch.float32, torch.float64):
            raise TypeError(f"{dtype=} is not supported; pass torch.float32, torch.float64 or None")
        self.params = tuple(_flatten(params))
        for i, param in enumerate(self.params):
            check_dense(param, f"parameter {i}")
        self._index = {id(param): i for i, param in enumerate(self.params)}
        self._dtype = dtype
        if not self.params:
            raise ValueError("got no parameters; pass e.g. model.parameters()")
        if len(self._index) < len(self.params):
            raise ValueError("a parameter appears more than once; pass each tensor a single time")
        self.dtypes = tuple(dtype or _ACCUMULATE[param.dtype] for param in self.params)
        self.buckets = tuple(self._buckets())
        self._bucket_of = {i: b for b, positions in enumerate(self.buckets) for i in positions}

    def __reduce__(self) -> tuple:
        return Layout, (self.params, self._dtype)  # ids change, so the index is made again

    def __len__(self) -> int:
        return len(self.params)

    def bucket_of(self, i: int) -> int | None:
        """Which of `buckets` position `i` is in; none has empty tensors."""
        return self._bucket_of.get(i)

    def elements(self, bucket: int) -> int:
        """What the tensors of a bucket hold together."""
        return sum(local(self.params[i]).numel() for i in self.buckets[bucket])

    @property
    def device(self) -> torch.device:
        """Where the flags of the whole step live: with the first parameter."""
        return self.params[0].device

    def index(self, param: Tensor) -> int:
        """Position of this very tensor; `KeyError` if it is not followed."""
        if id(param) not in self._index:
            raise KeyError(
                f"a tensor of shape {tuple(param.shape)} is not one of the {len(self)} parameters "
                "followed; pass it to MicrobatchStats, and look it up by identity"
            )
        return self._index[id(param)]

    def zeros(self, i: int) -> Tensor:
        """An accumulator for parameter `i`."""
        return torch.zeros_like(local(self.params[i]), dtype=self.dtypes[i], requires_grad=False)

    def unset_scale(self, i: int) -> Tensor:
        """0: no gradient other than zero has been seen."""
        return torch.zeros((), dtype=self.dtypes[i], device=local(self.params[i]).device)

    def check_gradients(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """`grads` as a list of this rank's shards, or an error that names the first misfit."""
        grads = list(grads)
        if len(grads) != len(self):
            raise ValueError(
                f"got {len(grads)} gradients for {len(self)} parameters; pass one for each, in the "
                "order of the parameters, None where there is none"
            )
        return [self._check_gradient(i, grad) for i, grad in enumerate(grads)]

    def _check_gradient(self, i: int, grad: Tensor | None) -> Tensor | None:
        if grad is None:
            return None
        check_dense(grad, f"gradient {i}")
        grad, param = local(grad), local(self.params[i])
        if grad.shape != param.shape or grad.device != param.device:
            raise ValueError(
                f"gradient {i} has shape {tuple(grad.shape)} on {grad.device}, its parameter "
                f"{tuple(param.shape)} on {param.device}; are gradients and parameters in the same "
                "order?"
            )
        return grad.detach()

    def _buckets(self) -> Iterator[list[int]]:
        """Positions of non-empty tensors of one device and dtype, of bounded total size."""
        kinds: dict[tuple, list[int]] = {}
        for i, param in enumerate(self.params):
            if local(param).numel():
                kinds.setdefault((local(param).device, self.dtypes[i]), []).append(i)
        for (device, _), positions in kinds.items():
            limit = _CPU_BUCKET_ELEMENTS if device.type == "cpu" else _BUCKET_ELEMENTS
            bucket, elements = [], 0
            for i in positions:
                size = local(self.params[i]).numel()
                if bucket and elements + size > limit:
                    yield bucket
                    bucket, elements = [], 0
                bucket.append(i)
                elements += size
            yield bucket


def check_dense(tensor: Tensor, what: str) -> None:
    """Refuse by name what has no elementwise real moments."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{what} is a {type(tensor).__name__}; pass a torch.Tensor")
    if tensor.is_complex():
        raise TypeError(f"{what} is complex ({tensor.dtype}); pass torch.view_as_real of it")
    if tensor.layout != torch.strided:
        raise TypeError(
            f"{what} is sparse ({tensor.layout}); use dense gradients, e.g. Embedding(sparse=False)"
        )
    if tensor.dtype not in _ACCUMULATE:
        allowed = ", ".join(str(dtype) for dtype in _ACCUMULATE)
        raise TypeError(f"{what} has dtype {tensor.dtype}; allowed are {allowed}")


def checked_weight(weight: float) -> float:
    """A weight as a float, or an error."""
    if isinstance(weight, Tensor):
        raise TypeError("weight is a tensor, and reading it may wait for the device; pass a number")
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise TypeError(f"weight is a {type(weight).__name__}; pass a number of tokens or samples")
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(
            f"{weight=} is not positive and finite; skip a microbatch that has no tokens"
        )
    return float(weight)


def _flatten(params: Iterable) -> Iterator[Tensor]:
    """Tensors out of tensors or of parameter groups (dicts with a "params" entry)."""
    if isinstance(params, Tensor | dict):
        raise TypeError(
            f"params is a single {type(params).__name__}; pass an iterable of tensors or of "
            "parameter groups"
        )
    for entry in params:
        if not isinstance(entry, dict):
            yield entry
            continue
        if "params" not in entry:
            raise ValueError(f"a parameter group has no 'params', only {sorted(entry)}")
        group = entry["params"]
        yield from [group] if isinstance(group, Tensor) else group
