"""An optimizer driven through a history, and everything it did that an optimizer does not do."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from deltabias.verify.constructor import Constructor, TargetError, check_optimizer_interface
from deltabias.verify.histories import History

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Run:
    """What came out.

    Parameters
    ----------
    values : steps x parameters, flat float64 arrays
    misdeeds : what was seen besides, such as a gradient that was changed
    """

    values: list[list[np.ndarray]] = field(default_factory=list)
    misdeeds: set[str] = field(default_factory=set)


@dataclass
class Session:
    """An optimizer and its parameters in the middle of a history."""

    optimizer: object
    params: list[torch.Tensor]
    history: History
    step: int = 0


class Refused(Exception):
    """The constructor refused a draw of hyperparameters."""


Layout = Callable[[torch.Tensor], torch.Tensor]
Driver = Callable[[Session, list[torch.Tensor | None]], Session | None]


@contextmanager
def quiet(dtype: str) -> Iterator[None]:
    """Warnings off, scalars in double for float64 parameters, random numbers as they were."""
    before = torch.get_default_dtype()
    devices: list[int] = []
    with warnings.catch_warnings(), torch.random.fork_rng(devices=devices):
        warnings.simplefilter("ignore")
        torch.set_default_dtype(torch.float64 if dtype == "float64" else torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def rounded(history: History, dtype: str) -> History:
    """The history with parameters and gradients as a dtype holds them."""
    if dtype == "float64":
        return history

    def held(flat):
        if flat is None:
            return None
        return tuple(torch.tensor(flat, dtype=torch.float64).to(DTYPES[dtype]).double().tolist())

    groups = tuple(type(g)(g.hypers, g.shapes, tuple(map(held, g.params))) for g in history.groups)
    grads = tuple(tuple(map(held, step)) for step in history.grads)
    return History(groups, grads, history.lr_factors)


def begin(
    constructor: Constructor, history: History, dtype: str, layout: Layout | None = None
) -> Session:
    """The optimizer with its parameters, before the first step.

    Raises
    ------
    Refused
        where the constructor raises.
    TargetError
        where it makes no optimizer.
    """
    groups, params = [], []
    for group in history.groups:
        own = [
            torch.nn.Parameter((layout or torch.clone)(tensor(flat, shape, dtype)))
            for flat, shape in zip(group.params, group.shapes, strict=True)
        ]
        groups.append(own)
        params += own
    try:
        optimizer = constructor.build(groups, [g.hypers for g in history.groups])
    except Exception as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
    check_optimizer_interface(optimizer)
    return Session(optimizer, params, history)


def tensor(flat: tuple[float, ...], shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """A flat tuple as a tensor."""
    return torch.tensor(flat, dtype=DTYPES[dtype]).reshape(shape)


def plain_step(session: Session, grads: list[torch.Tensor | None]) -> None:
    """Gradients handed over, one call of step()."""
    for param, grad in zip(session.params, grads, strict=True):
        param.grad = grad
    session.optimizer.step()


def drive(
    constructor: Constructor,
    history: History,
    *,
    dtype: str = "float64",
    advance: Driver = plain_step,
    rng: int = 0,
    layout: Layout | None = None,
) -> Run:
    """The optimizer over a history.

    Parameters
    ----------
    advance : takes a session and a step's gradients one step on; may return another session
    rng : what torch's generator is seeded with
    layout : changes how a parameter lies in memory, not its values

    Raises
    ------
    Refused
        where the constructor does not take the hyperparameters.
    TargetError
        where a step raises, or changes a parameter's shape or dtype.
    """
    run = Run()
    with quiet(dtype):
        torch.manual_seed(rng)
        session = begin(constructor, history, dtype, layout)
        while session.step < history.steps:
            grads = [
                None if flat is None else tensor(flat, shape, dtype)
                for flat, shape in zip(history.grads[session.step], history.shapes, strict=True)
            ]
            set_schedule(session)
            kept = [None if g is None else g.clone() for g in grads]
            session = _advanced(session, grads, advance)
            pairs = zip(kept, grads, strict=True)
            if any(k is not None and not torch.equal(k, g) for k, g in pairs):
                run.misdeeds.add("gradient changed")
            run.values.append([_entries(p, s) for p, s in zip(
                session.params, history.shapes, strict=True)])  # fmt: skip
            session.step += 1
    return run


def set_schedule(session: Session) -> None:
    """The step's learning rates, written into the groups as a scheduler does."""
    factors = session.history.lr_factors
    if all(f == 1 for step in factors for f in step):
        return
    for index, group in enumerate(session.optimizer.param_groups):
        if "lr" in group and index < len(session.history.groups):
            group["lr"] = session.history.hypers(index, session.step)["lr"]


def _advanced(session: Session, grads: list, advance: Driver) -> Session:
    try:
        return advance(session, grads) or session
    except TargetError:
        raise
    except Exception as error:
        raise TargetError(
            f"step {session.step + 1} raised {type(error).__name__}: {error}"
        ) from error


def _entries(param: torch.Tensor, shape: tuple[int, ...]) -> np.ndarray:
    if tuple(param.shape) != tuple(shape):
        raise TargetError(
            f"a parameter of shape {tuple(shape)} has shape {tuple(param.shape)} after a step."
        )
    if not param.dtype.is_floating_point:
        raise TargetError(f"a parameter has dtype {param.dtype} after a step.")
    return param.detach().to(torch.float64).reshape(-1).numpy().copy()
