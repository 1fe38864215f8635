"""``fused=True`` on several ranks: compiled steps and sums end where one plain process ends."""

import pytest
import torch
from tests.distributed import fast
from tests.distributed.training import ROUNDING, model, one_process, worst

from deltabias.one_pass import compiler_missing

pytestmark = pytest.mark.skipif(bool(compiler_missing()), reason="no C++ compiler")


def plain(form: str, **options) -> dict:
    """One process, not compiled."""
    return one_process(range(fast.STEPS), **{**fast.FORMS[form], "fused": None}, **options)


@pytest.mark.parametrize("form", fast.COMPILED)
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_compiled_ranks_end_where_one_plain_process_ends(four_compiled, way, n, form):
    wanted = plain(form, net=model(scalar=way == "ddp"))
    for seen in four_compiled:
        run = dict(seen[way, n, form])
        validity = run.pop("validity")
        difference, where = worst(run, wanted)
        assert difference < ROUNDING, where
        assert (validity.corrected, validity.misaligned) == (fast.STEPS, 0)


@pytest.mark.parametrize("form", fast.COMPILED)
@pytest.mark.parametrize("n", [2, 4])
def test_compiled_replicas_stay_equal_to_the_last_bit(four_compiled, n, form):
    first, *others = (seen["ddp", n, form] for seen in four_compiled[:n])
    for other in others:
        for name, value in first.items():
            assert not isinstance(value, torch.Tensor) or torch.equal(value, other[name]), name


def test_dtensors_that_are_placed_by_hand_end_there_too(four_compiled):
    # rows 2, 2, 1 and 0; one row on one rank only; and a replica without dimensions
    wanted = fast.by_hand(None, **{**fast.FORMS["fused"], "fused": None})
    wanted.pop("validity")
    for seen in four_compiled:
        run = dict(seen["by hand"])
        assert run.pop("validity").misaligned == 0
        difference, where = worst(run, wanted)
        assert difference < ROUNDING, where


def test_a_rank_without_any_microbatch_makes_the_same_compiled_steps(four_compiled):
    for seen in four_compiled:
        run = dict(seen["idle"])
        assert run.pop("validity").corrected == fast.STEPS
        assert worst(run, plain("fused"))[0] < ROUNDING
