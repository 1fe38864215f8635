"""Generated steps: torch's own to the last bit without a correction, else the reference's."""

import importlib
import inspect
from functools import cache

import numpy as np
import pytest
import torch
from tests.codegen.printed import same_bits

from deltabias.correction import correct
from deltabias.derivation import MICROBATCHES
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.rules import CATALOGUE, get_rule

SIZE = 6  # microbatches a step


def module_of(name):
    return importlib.import_module(f"deltabias.generated.{name}")


def steps_of(name):
    """The in-place functions of a module that have a foreach twin."""
    found = inspect.getmembers(module_of(name), inspect.isfunction)
    return [n for n, _ in found if n.startswith("step_") and not n.endswith("_foreach")]


def strategy_of(function):
    """step_delta, step_observe_delta and step_apply_delta are all of delta."""
    return function.removeprefix("step_").removeprefix("observe_").removeprefix("apply_")


def arguments_of(function):
    parameters = inspect.signature(function).parameters.values()
    tensors = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    return tensors, [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def hyper_values(name, **changed):
    return {h.name: h.default for h in get_rule(name).all_hypers} | changed


def scalars_at(name, strategy, t, hypers, lr):
    """Everything a step takes as a number at step t."""
    function = getattr(module_of(name), f"scalars_{strategy}")
    known = {**hypers, "t": t, MICROBATCHES.name: SIZE, "lr": lr}
    return known | function(**{k: known[k] for k in inspect.signature(function).parameters})


FUNCTIONS = [(name, f) for name in CATALOGUE for f in steps_of(name)]


def test_every_rule_that_averages_known_statistics_has_steps():
    having = {name for name, _ in FUNCTIONS}
    assert having == {n for n in CATALOGUE if n.startswith(("adam", "rmsprop"))} | {"sophia_g"}
    assert ("adamw", "step_closed_form") in FUNCTIONS
    assert ("sophia_g", "step_observe_delta") in FUNCTIONS
    assert ("adamw_mean_of_squares", "step_closed_form") not in FUNCTIONS


# -- plain and foreach ----------------------------------------------------------------------------


def random_step(names, generator, shapes, dtype):
    """What a step reads: a gradient and central moments in units of `unit_of_c`."""
    columns = {}
    for n in names:
        values = [torch.randn(s, generator=generator) for s in shapes]
        if n in ("c2", "c4"):
            values = [v.abs() for v in values]
        elif n == "unit_of_c":
            values = [v.exp() for v in values]
        columns[n] = [v.to(dtype) for v in values]
    return columns


PER_STEP = {"grad", "c2", "c3", "c4", "unit_of_c"}


# not in bf16, where torch._foreach_mul_ rounds its scalar to bf16 before it multiplies and mul_
# does not: 0.99 becomes 0.98828125, in torch's own RMSprop too
@pytest.mark.parametrize(("name", "function"), FUNCTIONS)
def test_foreach_is_the_plain_step_bit_for_bit_over_fifty_steps(name, function):
    dtype = torch.float32
    module, strategy = module_of(name), strategy_of(function)
    plain, listed = getattr(module, function), getattr(module, f"{function}_foreach")
    tensors, numbers = arguments_of(plain)
    shapes = [(3, 2), (), (0,)]
    kept = [n for n in tensors if n not in PER_STEP]
    state = {n: [torch.zeros(s, dtype=dtype) for s in shapes] for n in kept}
    twin = {n: [t.clone() for t in column] for n, column in state.items()}
    generator = torch.Generator().manual_seed(5)
    hypers = hyper_values(name)
    for t in range(1, 51):
        read = random_step(PER_STEP & set(tensors), generator, shapes, dtype)
        values = scalars_at(name, strategy, t, hypers, lr=1e-2)
        scalars = {n: values[n] for n in numbers}
        for i in range(len(shapes)):
            plain(*(state[n][i] if n in state else read[n][i] for n in tensors), **scalars)
        listed(*(twin[n] if n in twin else read[n] for n in tensors), **scalars)
        for n in kept:
            assert all(map(same_bits, state[n], twin[n])), (t, n)
    assert all(torch.isfinite(x).all() for n in kept for x in state[n])
    assert any(x.any() for n in kept for x in state[n])


def test_one_bit_more_or_less_is_seen():
    a = torch.tensor([1.0, float("nan"), -0.0])
    assert same_bits(a, a.clone())
    assert not same_bits(a, torch.tensor([1.0 + 2**-23, float("nan"), -0.0]))
    assert not same_bits(a, torch.tensor([1.0, float("nan"), 0.0]))


# -- the reference evaluation ---------------------------------------------------------------------

ELEMENTS, STEPS = 5, 30


def noise(seed):
    """[steps, elements, microbatches]: skewed, of several signal-to-noise ratios and scales."""
    generator = np.random.default_rng(seed)
    x = generator.gamma(0.6, size=(STEPS, ELEMENTS, SIZE)) - 0.6
    return (x + np.linspace(0, 2, ELEMENTS)[:, None]) * np.logspace(-4, 2, ELEMENTS)[:, None]


def observed(row):
    """A step's gradient and central moments as the optimizers pass them, float64."""
    mean = row.mean(axis=-1)
    unit = np.sqrt((row**2).mean(axis=-1))
    moments = {f"c{k}": (((row - mean[:, None]) / unit[:, None]) ** k).mean(axis=-1)
               for k in (2, 3, 4)}  # fmt: skip
    columns = {"grad": mean, "unit_of_c": unit, **moments}
    return {n: torch.tensor(v) for n, v in columns.items()}


class GeneratedRun:
    """Runs the generated functions of a strategy in float64; gives back minus the movement."""

    def __init__(self, name, strategy, hypers):
        self.name, self.strategy, self.hypers = name, strategy, hypers
        self.state, self.t = {}, 0

    def __call__(self, prefix, row, change=lambda scalars: scalars):
        function = getattr(module_of(self.name), f"{prefix}_{self.strategy}")
        tensors, numbers = arguments_of(function)
        read = observed(row)
        values = change(scalars_at(self.name, self.strategy, self.t, self.hypers, lr=1.0))
        self.state["param"] = torch.zeros(ELEMENTS, dtype=torch.float64)
        for n in tensors:
            if n not in read:
                self.state.setdefault(n, torch.zeros(ELEMENTS, dtype=torch.float64))
        function(*(read[n] if n in read else self.state[n] for n in tensors),
                 **{n: values[n] for n in numbers})  # fmt: skip
        return -self.state["param"].numpy()


@cache
def correction(name, strategy):
    return correct(get_rule(name), strategy)


COMPARED = {
    "adamw": {"beta1": 0.9, "beta2": 0.95, "eps": 1e-3},
    "adam": {"beta1": 0.5, "beta2": 0.999, "eps": 1e-8},
    "adamw_mean_of_squares": {"beta1": 0.9, "beta2": 0.95, "eps": 1e-3},
    "adam_mean_of_squares": {"beta1": 0.5, "beta2": 0.99, "eps": 1e-8},
    "rmsprop": {"alpha": 0.9, "eps": 1e-3},
    "rmsprop_mean_of_squares": {"alpha": 0.99, "eps": 1e-8},
}
CASES = [
    (name, strategy)
    for name in COMPARED
    for strategy in ("plug_in", "delta", "inversion", "closed_form")
    if hasattr(module_of(name), f"step_{strategy}")
]


def worst_relative_error(name, strategy, change=lambda scalars: scalars):
    hypers = COMPARED[name]
    run, reference = GeneratedRun(name, strategy, hypers), Evaluator(correction(name, strategy),
                                                                     hypers)  # fmt: skip
    worst = 0.0
    for row in noise(3):
        run.t += 1
        found = run("step", row, change)
        exact = reference(Microbatches({"x": row}, np.ones(SIZE, dtype=int)))
        worst = max(worst, float(np.abs(found / exact - 1).max()))
    return worst


@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_the_generated_step_is_the_reference_over_thirty_steps(name, strategy):
    assert worst_relative_error(name, strategy) < 1e-10


PLANTED = {
    "eps": lambda s: {**s, "eps": 1.001 * s["eps"] + 1e-9},
    "one step late": lambda s: {**s, "debias_numerator": 1 - 0.9 ** (s["t"] + 1)},
    "another beta": lambda s: {**s, "beta2": s["beta2"] * 0.999},
    "trust": lambda s: {**s, "warm": s["warm"] ** 2},
    "a microbatch too many": lambda s: {**s, MICROBATCHES.name: SIZE + 1},
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_in_a_step_is_seen(mistake):
    assert worst_relative_error("adamw", "delta", PLANTED[mistake]) > 1e-8


@pytest.mark.parametrize("strategy", ["delta", "closed_form", "inversion"])
def test_sophias_two_functions_are_the_reference_over_thirty_steps(strategy):
    hypers = hyper_values("sophia_g", rho=3.0)
    run, reference = (
        GeneratedRun("sophia_g", strategy, hypers),
        Evaluator(correction("sophia_g", strategy), hypers),
    )
    inside = 0
    for row, labels in zip(noise(3), noise(4), strict=True):
        run.t += 1
        run("step_observe", labels)
        found = run("step_apply", row)
        batch = Microbatches({"x": row, "y": labels}, np.ones(SIZE, dtype=int))
        assert found == pytest.approx(reference(batch), rel=1e-10)
        inside += int((np.abs(found) < 1).sum())
    assert inside > 20  # the clip does not hide the comparison


# -- torch's own ----------------------------------------------------------------------------------


def torch_optimizer(name, param, lr, hypers, **how):
    if name == "rmsprop":
        return torch.optim.RMSprop([param], lr=lr, alpha=hypers["alpha"], eps=hypers["eps"], **how)
    betas = (hypers["beta1"], hypers["beta2"])
    if name == "adamw":
        how["weight_decay"] = 0.0
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind([param], lr=lr, betas=betas, eps=hypers["eps"], **how)


def follow(name, dtype, *, foreach, change=lambda scalars: scalars):
    """Twenty steps of ours and of torch's; the steps at which the parameters differ in a bit."""
    generator = torch.Generator().manual_seed(9)
    theirs = torch.nn.Parameter(torch.randn(40, generator=generator).to(dtype))
    ours = theirs.detach().clone()
    hypers, lr = hyper_values(name), 1e-2
    optimizer = torch_optimizer(name, theirs, lr, hypers, foreach=foreach)
    step = module_of(name).step_plug_in_foreach if foreach else module_of(name).step_plug_in
    tensors, numbers = arguments_of(module_of(name).step_plug_in)
    state = {n: torch.zeros_like(ours) for n in tensors if n not in ("param", "grad")}
    differ = []
    for t in range(1, 21):
        theirs.grad = (torch.randn(40, generator=generator) * 10.0 ** (t % 5 - 3)).to(dtype)
        optimizer.step()
        values = change(scalars_at(name, "plug_in", t, hypers, lr))
        given = {"param": ours, "grad": theirs.grad.clone(), **state}
        arguments = [[given[n]] if foreach else given[n] for n in tensors]
        step(*arguments, **{n: values[n] for n in numbers})
        if not same_bits(ours, theirs.detach()):
            differ.append(t)
    return differ


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("foreach", [False, True], ids=["plain", "foreach"])
@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_without_a_correction_the_step_is_that_of_torch_bit_for_bit(name, foreach, dtype):
    assert follow(name, dtype, foreach=foreach) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("adamw", lambda s: {**s, "eps": s["eps"] * 1.5}),
        ("adamw", lambda s: {**s, "debias_numerator": 1 - 0.9 ** (s["t"] + 1)}),
        ("adamw", lambda s: {**s, "beta2": 0.99}),
        ("adamw", lambda s: {**s, "debias_preconditioner": 1.0}),
        ("rmsprop", lambda s: {**s, "eps": s["eps"] * 1e3}),
        ("rmsprop", lambda s: {**s, "alpha": 0.98}),
    ],
)
def test_a_step_that_is_not_torchs_is_seen(name, change):
    assert follow(name, torch.float32, foreach=False, change=change)
