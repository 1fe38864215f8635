"""Other parameters, groups and schedules: ways of running that must not matter."""

import numpy as np
import torch

from deltabias.verify.baseline import Baseline, Unoffered, Wrong, begin_one, worst
from deltabias.verify.distance import Distance
from deltabias.verify.drive import DTYPES, Run, Session, plain_step
from deltabias.verify.histories import Group, History

# -- parameters and groups ------------------------------------------------------------------------


def order_feature(base: Baseline) -> Distance:
    """Parameters and groups in the opposite order."""

    def rerun(history: History) -> Run:
        places = list(range(len(history.params)))[::-1]
        groups = tuple(
            Group(g.hypers, g.shapes[::-1], g.params[::-1]) for g in history.groups[::-1]
        )
        grads = tuple(tuple(step[i] for i in places) for step in history.grads)
        factors = tuple(step[::-1] for step in history.lr_factors)
        run = base.drive(History(groups, grads, factors))
        run.values = [[step[places.index(i)] for i in range(len(places))] for step in run.values]
        return run

    return base.against(rerun)


def _with_parameter(history: History, flat: tuple[float, ...], grads: list) -> History:
    """One more parameter at the end of the last group."""
    last = history.groups[-1]
    group = Group(last.hypers, (*last.shapes, (len(flat),)), (*last.params, flat))
    return History(
        (*history.groups[:-1], group),
        tuple((*step, grad) for step, grad in zip(history.grads, grads, strict=True)),
        history.lr_factors,
    )


def frozen_feature(base: Baseline) -> Distance:
    """One more parameter, which never has a gradient."""
    start = (1.5, -0.75)

    def rerun(history: History) -> Run:
        run = base.drive(_with_parameter(history, start, [None] * history.steps))
        for step in run.values:
            if not np.array_equal(step.pop(), start):
                raise Wrong("a parameter that never had a gradient was changed")
        return run

    return base.against(rerun)


def late_start_feature(base: Baseline) -> Distance:
    """One more parameter, which has gradients from half way on."""

    def changed(history: History) -> History:
        late = [None if s < history.steps // 2 else (0.5, -2.0) for s in range(history.steps)]
        return _with_parameter(history, (1.5, -0.75), late)

    return base.against_rule(lambda h: base.drive(h), changed)


def added_group_feature(base: Baseline) -> Distance:
    """One more group, added half way."""

    def changed(history: History) -> History:
        late = [None if s < history.steps // 2 else (0.5, -2.0) for s in range(history.steps)]
        new = Group(history.groups[0].hypers, ((2,),), ((1.5, -0.75),))
        grads = tuple((*step, grad) for step, grad in zip(history.grads, late, strict=True))
        factors = tuple((*step, step[0]) for step in history.lr_factors)
        return History((*history.groups, new), grads, factors)

    def rerun(history: History) -> Run:
        old = History(
            history.groups[:-1],
            tuple(step[:-1] for step in history.grads),
            tuple(step[:-1] for step in history.lr_factors),
        )
        new = torch.nn.Parameter(torch.tensor((1.5, -0.75), dtype=DTYPES[base.dtype]))
        seen = []

        def advance(session: Session, grads: list) -> None:
            if session.step == history.steps // 2:
                group = base.constructor.of_group(history.groups[-1].hypers)
                session.optimizer.add_param_group({"params": [new], **group})
            flat = history.grads[session.step][-1]
            new.grad = None if flat is None else torch.tensor(flat, dtype=DTYPES[base.dtype])
            if flat is not None and "lr" in session.optimizer.param_groups[-1]:
                lr = history.hypers(len(history.groups) - 1, session.step)
                if "lr" in lr:
                    session.optimizer.param_groups[-1]["lr"] = lr["lr"]
            plain_step(session, grads)
            seen.append(new.detach().double().numpy().copy())

        run = base.drive(old, advance=advance)
        run.values = [[*step, own] for step, own in zip(run.values, seen, strict=True)]
        return run

    if not hasattr(begin_one(base), "add_param_group"):
        raise Unoffered("no add_param_group")
    return base.against_rule(rerun, changed)


def empty_feature(base: Baseline) -> Distance:
    """One more parameter, without entries."""

    def rerun(history: History) -> Run:
        run = base.drive(_with_parameter(history, (), [()] * history.steps))
        for step in run.values:
            step.pop()
        return run

    return base.against(rerun)


def non_contiguous_feature(base: Baseline) -> Distance:
    """Matrices stored by columns."""

    def transposed(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.t().contiguous().t() if tensor.ndim == 2 else tensor

    def advance(session: Session, grads: list) -> None:
        # autograd gives a gradient its parameter's layout
        alike = [g if g is None else torch.empty_like(p).copy_(g) for p, g in zip(
            session.params, grads, strict=True)]  # fmt: skip
        plain_step(session, alike)

    return base.against(lambda h: base.drive(h, layout=transposed, advance=advance))


# -- schedule, chance, manners --------------------------------------------------------------------


def scheduler_feature(base: Baseline) -> Distance:
    """The learning rate from a torch scheduler."""
    if not base.constructor.scheduled:
        raise Unoffered("its groups have no lr")
    if not isinstance(begin_one(base), torch.optim.Optimizer):
        raise Unoffered("no torch.optim.Optimizer, which schedulers want")

    def factor(step: int) -> float:
        return 1 / (1 + step)

    def changed(history: History) -> History:
        factors = tuple((factor(s),) * len(history.groups) for s in range(history.steps))
        return History(history.groups, history.grads, factors)

    def rerun(history: History) -> Run:
        plain = History(history.groups, history.grads, ((1.0,) * len(history.groups),)
                        * history.steps)  # fmt: skip

        def advance(session: Session, grads: list) -> None:
            if not hasattr(session, "scheduler"):
                session.scheduler = torch.optim.lr_scheduler.LambdaLR(session.optimizer, factor)
            plain_step(session, grads)
            session.scheduler.step()

        return base.drive(plain, advance=advance)

    # against plain runs whose groups' lr is written by hand
    found = []
    for history in map(changed, base.histories):
        truth = base.truth(history)
        by_hand = base.drive(history)
        found.append(base.apart(rerun(history).values, by_hand.values, truth.bounds, history))
    return worst(found)


def repeatable_feature(base: Baseline) -> Distance:
    """Two runs of one history are equal, bit for bit."""
    for history, run in zip(base.histories, base.runs, strict=True):
        again = base.drive(history, rng=12345)
        for one, other in zip(run.values, again.values, strict=True):
            pairs = zip(one, other, strict=True)
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):
                raise Wrong("two runs of one history differ: it uses randomness of its own")
    return Distance()


def gradient_unchanged_feature(base: Baseline) -> Distance:
    """The gradient is what it was before the step."""
    if any("gradient changed" in run.misdeeds for run in base.runs):
        raise Wrong("step() changed param.grad in place")
    return Distance()
