"""FSDP2: shards stay shards, every rank's gradient is an observation, and nothing is lost."""

import copy

import pytest
import torch
import torch.distributed.checkpoint as dcp
from tests.distributed.training import (
    MICROBATCHES,
    ROUNDING,
    STEPS,
    TOKENS,
    loss,
    model,
    one_process,
    optimizer_of,
    share,
    snapshot,
    worst,
)
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from deltabias.microbatch import MatrixStats, MicrobatchStats, RankGradients

EXTRAS = ("validity", "local shapes", "states are")
OPTIONS = {"cross fit": {"groups": 2, "correction": "cross_fit+delta"}}


@pytest.mark.parametrize("way", [("fsdp", 2), ("fsdp", 4), "hsdp", "cross fit"], ids=str)
def test_shards_end_where_one_process_with_all_microbatches_ends(four, way):
    for seen in four:
        run = {k: v for k, v in seen[way].items() if k not in EXTRAS}
        difference, where = worst(run, one_process(**OPTIONS.get(way, {})))
        assert difference < ROUNDING, where
        validity = seen[way]["validity"]
        assert (validity.corrected, validity.misaligned) == (STEPS, 0)


def test_states_are_sharded_as_their_parameters_also_where_a_rank_has_none(four):
    rows = [seen["fsdp", 4]["local shapes"]["0.weight"] for seen in four]
    assert rows == [(2, 3), (2, 3), (1, 3), (0, 3)]
    assert all(seen["fsdp", 4]["states are"] == {"DTensor"} for seen in four)


def test_backwards_without_reduction_are_together_one_observation_of_each_rank(four):
    net = model()
    stats = MicrobatchStats(net.parameters())
    total = [torch.zeros_like(p) for p in net.parameters()]
    for rank in range(2):
        mine = range(rank, MICROBATCHES, 2)
        for index in mine:
            (loss(net, 0, index) * share(index)).backward()
        weight = sum(TOKENS[index] for index in mine)
        stats.add([p.grad / weight for p in net.parameters()], weight=weight)
        torch._foreach_add_(total, [p.grad for p in net.parameters()])
        net.zero_grad()
    _assert_same(four, "unsynchronized", net, stats.consume(), total)


def test_without_the_ranks_each_reduced_gradient_is_one_observation(four):
    net = model()
    stats = MicrobatchStats(net.parameters())
    for pair in ((0, 1), (2, 3)):
        with stats.microbatch():
            sum(loss(net, 0, index) / 2 for index in pair).backward()
    total = [p.grad for p in net.parameters()]
    _assert_same(four, "reduced only", net, stats.consume(), total)


def _assert_same(four, case, net, step, total):
    for rank in (0, 1):
        seen = four[rank][case]
        assert (seen["count"], seen["aligned"]) == (step.count, True)
        for (name, param), grad in zip(net.named_parameters(), total, strict=True):
            want = step[param].scaled_to(grad)[0].var_of_mean().chunk(2)[rank]
            assert (seen["var"][name] - want).abs().max() <= 1e-12 * want.abs().max(), name


def test_one_bad_shard_stops_every_rank_before_anything_is_touched(four):
    for seen in four:
        said, unchanged = seen["nan in one shard"]
        assert "parameter of shape (5, 3) is not finite; nothing was changed" in said
        assert unchanged


@pytest.mark.parametrize(("saved", "resumed"), [(2, 4), (4, 2)])
def test_a_checkpoint_resumes_on_another_number_of_ranks(four, saved, resumed):
    loaded = four[0]["checkpoints"]["loaded", saved, resumed]
    straight = four[0]["checkpoints"]["straight on", saved]
    assert worst(four[0]["checkpoints"]["resumed", saved, resumed], straight)[0] < ROUNDING
    trained = one_process(range(2))
    difference, where = worst(loaded, trained)
    assert difference < ROUNDING, where
    accumulators = [name for name in loaded if name.endswith((".coupling", ".noise", ".third"))]
    assert len(accumulators) >= 4
    assert all(bool(loaded[name].any()) for name in accumulators)


@pytest.mark.parametrize("saved", [2, 4])
def test_a_checkpoint_of_several_ranks_resumes_in_one_process(four, saved):
    net = model()
    optimizer = optimizer_of(net)
    weights, states = get_state_dict(net, optimizer)
    both = {"model": weights, "optimizer": states}
    with pytest.warns(UserWarning, match="load in a single process"):
        dcp.load(both, checkpoint_id=four[0]["folder"] / f"from{saved}", no_dist=True)
    set_state_dict(
        net, optimizer, model_state_dict=both["model"], optim_state_dict=both["optimizer"]
    )
    stats = MicrobatchStats(net.parameters())
    optimizer.attach(stats)
    for step in range(2, 4):
        for index in range(MICROBATCHES):
            with stats.microbatch(weight=TOKENS[index]):
                (loss(net, step, index) * share(index)).backward()
        optimizer.step()
        optimizer.zero_grad()
    straight = four[0]["checkpoints"]["straight on", saved]
    difference, where = worst(snapshot(net, optimizer), straight)
    assert difference < ROUNDING, where


def test_optimizers_of_matrices_refuse_shards_by_name(four):
    for seen in four:
        for name, said in zip(("Shampoo", "Muon"), seen["whole matrices"], strict=True):
            assert said.startswith(f"{name} needs whole matrices, and a parameter of shape (5, 3)")


def test_steps_that_are_not_looked_at_are_not_exchanged(four):
    looked, counts = four[0]["every second step"]
    assert looked == [True, False, True]
    assert counts[0] == counts[2] == 4  # two backwards, two ranks


def test_matrix_statistics_are_sent_elsewhere():
    net = model()
    with pytest.raises(TypeError, match="RankGradients feeds a MicrobatchStats, got MatrixStats"):
        RankGradients(net, MatrixStats(net.parameters()))


def test_a_model_that_is_not_sharded_is_sent_elsewhere():
    net = model()
    with pytest.raises(TypeError, match=r"use stats\.microbatch\(\) and stats\.all_reduce\(\)"):
        RankGradients(net, MicrobatchStats(net.parameters()))


def test_statistics_copy_with_what_they_compare_over_ranks():
    net = model()
    stats = MicrobatchStats(net.parameters())
    optimizer_of(net).attach(stats)
    assert copy.deepcopy(stats).agreement._described == stats.agreement._described != {}
