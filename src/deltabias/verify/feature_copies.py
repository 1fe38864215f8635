"""Other implementations, copies and gradients: ways of running that must not matter."""

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import replace

import torch

from deltabias.verify.baseline import Baseline, Feature, Unoffered, Wrong
from deltabias.verify.constructor import TargetError
from deltabias.verify.distance import Distance
from deltabias.verify.drive import Refused, Session, begin, plain_step

# -- implementations ------------------------------------------------------------------------------


def flag_feature(flag: str) -> Feature:
    """An implementation flag of torch's switched on."""

    def feature(base: Baseline) -> Distance:
        if flag not in base.constructor.flags:
            raise Unoffered(f"the constructor takes no {flag}")
        other = base.constructor.with_extra(**{flag: True})
        try:
            return base.against(lambda h: base.drive(h, other))
        except (Refused, TargetError) as error:
            raise Unoffered(f"{flag}=True is refused here: {error}") from error

    return feature


def compiled_feature(base: Baseline) -> Distance:
    """The step under torch.compile."""

    def advance(session: Session, grads: list) -> None:
        for param, grad in zip(session.params, grads, strict=True):
            param.grad = grad
        if not hasattr(session, "compiled"):
            session.compiled = torch.compile(session.optimizer.step, backend="eager")
        session.compiled()

    torch._dynamo.reset()
    return base.advanced(advance)


# -- copies ---------------------------------------------------------------------------------------


def _midway(change: Callable[[Session], Session]) -> Callable:
    """A step that, half way through, goes on with something else."""

    def advance(session: Session, grads: list) -> Session:
        if session.step == session.history.steps // 2:
            session = change(session)
        plain_step(session, grads)
        return session

    return advance


def resume_feature(base: Baseline) -> Distance:
    """A checkpoint saved, loaded and gone on from."""

    def resumed(session: Session) -> Session:
        file = io.BytesIO()
        torch.save(session.optimizer.state_dict(), file)
        file.seek(0)
        fresh = begin(base.constructor, session.history, base.dtype)
        with torch.no_grad():
            for new, old in zip(fresh.params, session.params, strict=True):
                new.copy_(old)
        fresh.optimizer.load_state_dict(torch.load(file, weights_only=False))
        fresh.step = session.step
        return fresh

    return base.advanced(_midway(resumed))


def deepcopy_feature(base: Baseline) -> Distance:
    """A deep copy gone on with."""

    def copied(session: Session) -> Session:
        optimizer, params = copy.deepcopy((session.optimizer, session.params))
        return replace(session, optimizer=optimizer, params=params)

    return base.advanced(_midway(copied))


def pickle_feature(base: Baseline) -> Distance:
    """A pickled copy gone on with."""

    def pickled(session: Session) -> Session:
        try:
            raw = pickle.dumps((session.optimizer, session.params))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TargetError(f"cannot be pickled: {error}") from error
        optimizer, params = pickle.loads(raw)
        return replace(session, optimizer=optimizer, params=params)

    return base.advanced(_midway(pickled))


# -- gradients ------------------------------------------------------------------------------------


def _backward(session: Session, grads: list, factor: float, times: int = 1) -> None:
    """Gradients by autograd, `times` times `factor` of them."""
    for param in session.params:
        param.grad = None
    with torch.enable_grad():
        for _ in range(times):
            terms = [
                (factor * grad * param).sum()
                for param, grad in zip(session.params, grads, strict=True)
                if grad is not None
            ]
            if terms:
                sum(terms).backward()


def clipping_feature(base: Baseline) -> Distance:
    """Gradients scaled in place after backward."""

    def advance(session: Session, grads: list) -> None:
        _backward(session, grads, 8.0)
        for param in session.params:
            if param.grad is not None:
                param.grad.mul_(0.125)  # in place, as clip_grad_norm_ does; exact
        session.optimizer.step()

    return base.advanced(advance)


def accumulation_feature(base: Baseline) -> Distance:
    """Four backward passes of a quarter each."""

    def advance(session: Session, grads: list) -> None:
        _backward(session, grads, 0.25, times=4)
        session.optimizer.step()

    return base.advanced(advance)


def closure_feature(base: Baseline) -> Distance:
    """Gradients made by a closure."""

    def advance(session: Session, grads: list) -> None:
        calls = []

        def closure() -> torch.Tensor:
            calls.append(torch.is_grad_enabled())
            _backward(session, grads, 1.0)
            return torch.tensor(1.5)

        returned = session.optimizer.step(closure)
        if calls != [True]:
            raise Wrong(f"the closure was called {len(calls)} times, "
                         f"with gradients enabled: {calls}")  # fmt: skip
        if returned is None or float(returned) != 1.5:
            raise Wrong(f"step(closure) returned {returned!r} instead of the loss")

    return base.advanced(advance)


def no_gradient_feature(base: Baseline) -> Distance:
    """A step without any gradient before each step."""

    def advance(session: Session, grads: list) -> None:
        for param in session.params:
            param.grad = None
        session.optimizer.step()
        plain_step(session, grads)

    return base.advanced(advance)


def zero_grad_feature(base: Baseline) -> Distance:
    """zero_grad() after each step."""

    def advance(session: Session, grads: list) -> None:
        plain_step(session, grads)
        session.optimizer.zero_grad()
        if any(p.grad is not None and bool(p.grad.any()) for p in session.params):
            raise Wrong("zero_grad() left a gradient")

    return base.advanced(advance)
