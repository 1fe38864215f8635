"""Shares and statistics every k-th step on several ranks, and checkpoints within a cycle.

Of uint8 and int8 codes not one may differ: they are codes of fp64 values, which agree to fifteen
digits, and none of these lies in the middle of two codes.
"""

import copy

import pytest
import torch
import torch.distributed.checkpoint as dcp
from tests.distributed import fast
from tests.distributed.training import ROUNDING, alone, model, one_process, optimizer_of, snapshot
from tests.distributed.training import worst as worst_of
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW

CODES = {torch.int8, torch.uint8}


def worst(got: dict, want: dict) -> tuple[float, str]:
    """As in `training`; codes that differ at all are as bad as can be."""
    for name, value in want.items():
        if value.dtype in CODES and not torch.equal(got[name], value):
            return float("inf"), name
    return worst_of(got, want)


def without_validity(run: dict) -> dict:
    return {name: value for name, value in run.items() if name != "validity"}


@pytest.mark.parametrize("form", fast.UNCOMPILED)
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_shares_of_ranks_are_those_of_one_process(four_with_shares, way, n, form):
    wanted = one_process(range(fast.STEPS), net=model(scalar=way == "ddp"), **fast.FORMS[form])
    for seen in four_with_shares:
        difference, where = worst(without_validity(seen[way, n, form]), wanted)
        assert difference < ROUNDING, where
        validity = seen[way, n, form]["validity"]
        assert (validity.corrected, validity.misaligned) == (fast.STEPS, 0)


def test_the_comparison_sees_an_observation_too_many():
    options = fast.FORMS["int8"]
    every_third, every_second = (
        one_process(range(fast.STEPS), **{**options, "every": every}) for every in (3, 2)
    )
    assert worst(every_second, every_third)[0] == float("inf")
    weights = {name: value for name, value in every_third.items() if name.endswith("weight")}
    assert worst({name: every_second[name] for name in weights}, weights)[0] > 1e6 * ROUNDING


def test_shards_that_are_placed_by_hand_have_those_shares(four_with_shares):
    wanted = without_validity(fast.by_hand(None, **fast.FORMS["int8"]))
    for seen in four_with_shares:
        difference, where = worst(without_validity(seen["by hand"]), wanted)
        assert difference < ROUNDING, where


def test_a_rank_without_any_microbatch_makes_all_kinds_of_steps_with_the_others(four_with_shares):
    wanted = one_process(range(fast.STEPS), **fast.FORMS["int8"])
    for seen in four_with_shares:
        difference, where = worst(without_validity(seen["idle"]), wanted)
        assert difference < ROUNDING, where
        assert seen["idle"]["validity"].corrected == fast.STEPS


# -- a block that raises ------------------------------------------------------------------------


def test_a_block_that_raises_before_backward_is_a_microbatch_less_for_all_ranks(four_with_shares):
    wanted = one_process(range(fast.STEPS), without=fast.RAISING)
    for seen in four_with_shares:
        difference, where = worst(without_validity(seen["raises", "before"]), wanted)
        assert difference < ROUNDING, where


def test_a_gradient_that_no_statistics_speak_for_is_taken_uncorrected_by_all_ranks(
    four_with_shares,
):
    for seen in four_with_shares:
        run = seen["raises", "after"]
        assert run["validity"].misaligned == len(list(model().parameters()))
        assert all(value.isfinite().all() for value in without_validity(run).values())
        for name, value in without_validity(run).items():
            assert torch.equal(value, four_with_shares[0]["raises", "after"][name]), name


# -- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", fast.SAVED)
@pytest.mark.parametrize(("saved", "resumed"), fast.RESUMED)
def test_a_cycle_goes_on_where_it_was_saved_on_another_number_of_ranks(
    four_with_shares, saved, resumed, form
):
    seen = four_with_shares[0]["checkpoints", form]
    assert not seen["looks", saved, resumed]  # the second of three steps
    difference, where = worst(seen["resumed", saved, resumed], seen["straight on", saved])
    assert difference < ROUNDING, where
    steps = range(fast.LATER.stop)
    wanted = one_process(steps, **fast.saved_options(form))
    difference, where = worst(seen["straight on", saved], wanted)
    assert difference < ROUNDING, where


@pytest.mark.parametrize("saved", [2, 4])
def test_a_cycle_of_several_ranks_goes_on_in_one_process(four_with_shares, saved):
    every, options = 3, {"storage": "int8"}
    net = model()
    optimizer, stats = optimizer_of(net, **options), MicrobatchStats(net.parameters(), every=every)
    optimizer.attach(stats)
    weights, states = get_state_dict(net, optimizer)
    both = {"model": weights, "optimizer": states}
    folder = four_with_shares[0]["folder"] / f"int8-{saved}"
    with pytest.warns(UserWarning, match="load in a single process"):
        dcp.load(both, checkpoint_id=folder, no_dist=True)
    set_state_dict(
        net, optimizer, model_state_dict=both["model"], optim_state_dict=both["optimizer"]
    )
    alone(net, stats, optimizer, fast.LATER)
    straight = four_with_shares[0]["checkpoints", "int8"]["straight on", saved]
    difference, where = worst(snapshot(net, optimizer), straight)
    assert difference < ROUNDING, where


@pytest.mark.parametrize("steps", range(1, 6))
@pytest.mark.parametrize("attached_first", [True, False])
def test_a_state_dict_resumes_at_any_step_of_a_cycle_bit_for_bit(steps, attached_first):
    net = model()
    optimizer, stats = _with_int8(net)
    optimizer.attach(stats)
    alone(net, stats, optimizer, range(steps))
    later = copy.deepcopy(net)
    second, others = _with_int8(later)
    if attached_first:
        second.attach(others)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    if not attached_first:
        second.attach(others)
    assert (others.generation, others.is_looking) == (stats.generation, stats.is_looking)
    alone(net, stats, optimizer, range(steps, steps + 4))
    alone(later, others, second, range(steps, steps + 4))
    for name, value in snapshot(net, optimizer).items():
        assert torch.equal(value, snapshot(later, second)[name]), name


def test_statistics_that_are_in_use_already_stay_where_they_are():
    net = model()
    optimizer, stats = _with_int8(net)
    stats.add([torch.zeros_like(p) for p in net.parameters()])
    stats.consume()
    optimizer.attach(stats)
    assert stats.generation == 1


def test_a_step_under_way_when_saved_is_begun_again():
    net = model()
    optimizer, stats = _with_int8(net)
    optimizer.attach(stats)
    alone(net, stats, optimizer, range(3))
    stats.add([torch.zeros_like(p) for p in net.parameters()])
    (group,) = optimizer.state_dict()["param_groups"]
    assert (stats.generation, group["generation"]) == (4, 3)


def _with_int8(net) -> tuple[AdamW, MicrobatchStats]:
    stats = MicrobatchStats(net.parameters(), every=3)
    return optimizer_of(net, storage="int8"), stats
