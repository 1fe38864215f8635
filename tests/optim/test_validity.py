"""The meter: finite, plausible, right in its counts, and reading it changes nothing."""

import math
from dataclasses import asdict

import pytest
import torch
from tests.optim.cases import (
    CORRECTED,
    DEFAULTS,
    Case,
    feed,
    generator,
    microbatches,
    names,
    parameter,
    quietly,
    same_bits,
    snapshot,
)

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG, Validity

COUNTS = ("steps", "corrected", "uncorrected", "skipped", "misaligned")
TRACKED = [c for c in CORRECTED if c.options["correction"] in ("delta", "inversion", "closed_form")]
DELTA = [c for c in CORRECTED if c.options["correction"] == "delta"]


def after_steps(case: Case, steps=12, m=4, noise=1.0, mean=0.3, **options):
    params = [parameter(50), parameter(2, 3, seed=2)]
    optimizer, stats = case.attached(params, **options)
    gen = generator()
    for _ in range(steps):
        feed(params, stats, microbatches(params, m, gen, noise=noise, mean=mean))
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", [AdamW, RMSprop, SophiaG], ids=lambda kind: kind.__name__)
def test_before_the_first_step_everything_is_zero(kind):
    meter = kind([parameter(3)]).validity()
    assert isinstance(meter, Validity)
    values = asdict(meter)
    assert values.pop("effective_steps") == 1.0
    assert not any(values.values())


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_every_field_is_finite_and_a_plain_number(case):
    values = asdict(after_steps(case).validity())
    assert all(type(v) in (int, float) and math.isfinite(v) for v in values.values())
    assert values["steps"] == values["corrected"] == 12
    assert values["uncorrected"] == values["skipped"] == values["misaligned"] == 0
    assert 0 <= values["outside"] <= 1
    assert 0 <= values["inversion"] <= values["worst_inversion"]
    assert values["coupling"] >= 0


@pytest.mark.parametrize("case", TRACKED, ids=names(TRACKED))
def test_an_inversion_that_is_corrected_is_shown(case):
    options = {"betas": (0.9, 0.9)} if case.kind is AdamW else {"alpha": 0.9}
    assert after_steps(case, **options).validity().inversion > 1e-3


@pytest.mark.parametrize("case", DELTA, ids=names(DELTA))
def test_more_noise_reads_as_a_larger_inversion(case):
    options = {"betas": (0.9, 0.9)} if case.kind is AdamW else {"alpha": 0.9}
    quiet = after_steps(case, steps=30, noise=0.1, mean=1.0, **options).validity()
    noisy = after_steps(case, steps=30, noise=3.0, mean=0.3, **options).validity()
    assert quiet.inversion < 0.2 * noisy.inversion
    assert noisy.inversion < 0.3  # 3/8 · 2 · (1-β)/(1+β) is 0.04; the expansion is at home here


def test_the_inversion_of_pure_noise_is_the_one_of_the_formula():
    # q = 1 (the mean gradient is all noise, normal): 3/8 · (4q - 2q²)(1-β₂)/(1+β₂) = 0.0192
    param = parameter(4000, dtype=torch.float64)
    options = {"betas": (0.9, 0.95), "eps": 0.0, "correction": "delta"}
    optimizer, stats = Case(AdamW).attached([param], **options)
    gen = torch.Generator().manual_seed(3)
    for _ in range(60):
        draws = torch.randn(8, 4000, generator=gen, dtype=torch.float64)
        feed([param], stats, [[g] for g in draws])
        optimizer.step()
    # noise/v is a ratio of averages over some twenty steps, biased by a tenth and cut at 1
    assert optimizer.validity().inversion == pytest.approx(3 / 8 * 2 * 0.05 / 1.95, rel=0.2)


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_reading_changes_nothing(case):
    optimizer = after_steps(case)
    before, grads = snapshot(optimizer), [p.grad.clone() for p in optimizer._all_params()]
    first = optimizer.validity()
    assert optimizer.validity() == first
    assert same_bits(before, snapshot(optimizer))
    assert same_bits(grads, [p.grad for p in optimizer._all_params()])
    assert len(optimizer.state) == 2


@pytest.mark.parametrize("case", DEFAULTS, ids=names(DEFAULTS))
def test_each_step_is_counted_once_for_what_it_was(case):
    param = parameter(3)
    optimizer, stats = case.attached([param], nonfinite="skip")
    gen = generator()
    with quietly():
        for m, bad in [(4, False), (1, False), (4, True), (4, False), (0, False), (3, False)]:
            grads = microbatches([param], max(m, 1), gen)
            if bad:
                grads[0][0][0] = math.inf
            feed([param], stats if m else None, grads)
            optimizer.step()
    meter = optimizer.validity()
    assert [getattr(meter, name) for name in COUNTS] == [5, 3, 2, 1, 0]


@pytest.mark.parametrize("case", DEFAULTS, ids=names(DEFAULTS))
def test_misfits_are_counted_per_parameter_and_step(case):
    params = [parameter(50), parameter(2, 3, seed=2)]
    optimizer, stats = case.attached(params)
    gen = generator()
    for _ in range(3):
        feed(params, stats, microbatches(params, 4, gen))
        torch.nn.utils.clip_grad_value_([params[0]], 0.05)
        optimizer.step()
    assert optimizer.validity().misaligned == 3


def test_effective_steps_grow_to_those_of_the_average():
    # (1+β)/(1-β) = 19 for 0.9
    few = after_steps(Case(AdamW), steps=2, betas=(0.9, 0.95)).validity().effective_steps
    many = after_steps(Case(AdamW), steps=60, m=2, betas=(0.9, 0.9)).validity().effective_steps
    assert 1 < few <= 2
    assert many == pytest.approx(19, rel=0.01)


@pytest.mark.parametrize("case", DELTA, ids=names(DELTA))
def test_a_bad_gradient_that_waits_for_its_step_is_not_read(case):
    optimizer = after_steps(case)
    for value in (math.nan, math.inf):
        for p in optimizer._all_params():
            p.grad = torch.full_like(p, value)
        assert all(math.isfinite(v) for v in asdict(optimizer.validity()).values())


@pytest.mark.parametrize("case", DELTA, ids=names(DELTA))
def test_a_loaded_checkpoint_reads_as_it_was_saved(case):
    optimizer = after_steps(case)
    params = [torch.nn.Parameter(p.detach().clone()) for p in optimizer._all_params()]
    resumed = case.optimizer(params)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.validity().inversion == pytest.approx(optimizer.validity().inversion, rel=1e-6)


def test_sophia_shows_its_inversion_and_no_coupling():
    param = parameter(20)
    optimizer = SophiaG([param], betas=(0.9, 0.9))
    stats = MicrobatchStats([param], moments=2)
    optimizer.attach(stats)
    gen = generator()
    for _ in range(20):
        feed([param], stats, microbatches([param], 4, gen))
        optimizer.update_hessian()
        optimizer.step()
    meter = optimizer.validity()
    assert meter.inversion > 1e-3
    assert meter.coupling == 0
    assert (meter.steps, meter.corrected) == (20, 20)
