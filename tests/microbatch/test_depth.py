"""How many moments statistics keep when that is left to the optimizers."""

import copy

import pytest
import torch

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop

NEEDS = [
    (AdamW, {}, 3),
    (AdamW, {"correction": "closed_form"}, 2),
    (AdamW, {"correction": "none"}, 2),
    (AdamW, {"second_moment": "mean_of_squares"}, 4),
    (RMSprop, {}, 3),
]


def parameter():
    return torch.nn.Parameter(torch.ones(3))


def step(param, stats, optimizer=None):
    for scale in (1.0, 3.0, 4.0):
        with stats.microbatch():
            (scale * param.square().sum()).backward()
    record = stats.result()[param]
    if optimizer is None:
        stats.consume()
    else:
        optimizer.step()
    param.grad = None
    return record


@pytest.mark.parametrize(("kind", "options", "needed"), NEEDS, ids=str)
def test_statistics_keep_what_the_attached_optimizer_needs(kind, options, needed):
    param = parameter()
    stats, optimizer = MicrobatchStats([param]), kind([param], **options)
    optimizer.attach(stats)
    assert stats.moments == needed
    assert set(step(param, stats, optimizer).scaled_central) == set(range(2, needed + 1))


def test_groups_and_optimizers_together_get_the_most_that_one_of_them_needs():
    first, second = parameter(), parameter()
    groups = [
        {"params": [first], "correction": "closed_form"},
        {"params": [second], "second_moment": "mean_of_squares"},
    ]
    stats = MicrobatchStats([first, second])
    AdamW(groups).attach(stats)
    assert stats.moments == 4
    stats = MicrobatchStats([first, second])
    AdamW([first], correction="closed_form").attach(stats)
    assert stats.moments == 2
    AdamW([second]).attach(stats)
    assert stats.moments == 3


def test_all_are_kept_where_nothing_is_attached_by_the_first_microbatch():
    param = parameter()
    stats = MicrobatchStats([param])
    assert set(step(param, stats).scaled_central) == {2, 3, 4}
    AdamW([param]).attach(stats)
    assert set(step(param, stats).scaled_central) == {2, 3, 4}


def test_an_optimizer_attached_between_steps_gets_more_from_the_next_step_on():
    param = parameter()
    stats, light = MicrobatchStats([param]), AdamW([param], correction="closed_form")
    light.attach(stats)
    before = step(param, stats, light)
    AdamW([param]).attach(stats)
    assert set(before.scaled_central) == {2}
    assert stats.count == 3
    assert set(step(param, stats).scaled_central) == {2, 3}


def test_an_optimizer_that_needs_more_than_the_step_under_way_keeps_is_refused():
    param = parameter()
    stats = MicrobatchStats([param])
    AdamW([param], correction="closed_form").attach(stats)
    with stats.microbatch():
        param.sum().backward()
    with pytest.raises(ValueError, match=r"needs moments=3, the statistics keep moments=2"):
        AdamW([param]).attach(stats)


def test_a_number_that_was_asked_for_stays():
    param = parameter()
    stats = MicrobatchStats([param], moments=4)
    AdamW([param]).attach(stats)
    assert stats.moments == 4
    with pytest.raises(ValueError, match=r"moments=5 .* allowed are None, 2, 3 and 4"):
        MicrobatchStats([param], moments=5)


def test_a_group_added_later_is_counted_in():
    first, second = parameter(), parameter()
    stats = MicrobatchStats([first, second])
    optimizer = AdamW([first], correction="closed_form")
    optimizer.attach(stats)
    optimizer.add_param_group({"params": [second], "correction": "delta"})
    assert stats.moments == 3


def test_statistics_with_more_than_is_needed_merge_into_those_that_know_the_need():
    param = parameter()
    stats, worker = MicrobatchStats([param]), MicrobatchStats([param])
    AdamW([param]).attach(stats)
    twin = MicrobatchStats([param], moments=3)
    for value in (1.0, 2.0, 5.0):
        (worker if value > 1 else stats).add([torch.full((3,), value)])
        twin.add([torch.full((3,), value)])
    other = copy.deepcopy(worker)
    stats.merge(worker)
    torch.testing.assert_close(stats.result()[param].central, twin.result()[param].central)
    asked = MicrobatchStats([param], moments=4)
    asked.add([torch.ones(3)])
    with pytest.raises(ValueError, match="same shapes, dtypes, devices, moments"):
        stats.merge(asked)
    with pytest.raises(ValueError, match="same shapes, dtypes, devices, moments"):
        other.merge(twin)
