"""DistributedDataParallel: the microbatches of all ranks are one step's microbatches."""

import pytest
import torch
from tests.distributed.training import ROUNDING, STEPS, one_process, worst

WAYS = [
    ("ddp", 2),
    ("ddp", 4),
    ("ddp from grad", 2),
    ("ddp from grad", 4),
    "ddp static",
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_replicas_end_where_one_process_with_all_microbatches_ends(four, way):
    for seen in four:
        run = dict(seen[way])
        validity = run.pop("validity")
        difference, where = worst(run, one_process())
        assert difference < ROUNDING, where
        assert (validity.corrected, validity.misaligned) == (STEPS, 0)


def test_a_correction_without_the_other_ranks_would_be_another_one():
    """The comparison above can fail: the plain step differs by far more than rounding."""
    difference, _ = worst(
        {k: v for k, v in one_process(correction="none").items() if k.endswith("weight")},
        {k: v for k, v in one_process().items() if k.endswith("weight")},
    )
    assert difference > 1e6 * ROUNDING


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_replicas_stay_equal_to_the_last_bit(four, way):
    ranks = four[:2] if way[1] == 2 else four
    for seen in ranks[1:]:
        for name, value in ranks[0][way].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, seen[way][name]), name


def test_gradients_that_are_gone_are_missed_before_anything_is_sent(four):
    for seen in four:
        of_groups, gone = seen["no gradient"]
        assert "the gradient is the mean of all groups, not of each" in of_groups
        assert gone.endswith("so call it before zero_grad()")


def test_a_gradient_that_is_not_the_mean_is_taken_uncorrected_and_counted(four):
    assert [seen["wrong gradient"] for seen in four] == [(1, True)] * 4
