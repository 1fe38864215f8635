"""One step after another: what is read, flagged, handed out, copied and refused."""

import copy
import pickle
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deltabias.microbatch import MicrobatchStats

STATISTICS = [
    "var_of_mean",
    "mean_of_squares",
    "third_cumulant_of_mean",
    "cov_of_mean_and_mean_of_squares",
    "var_of_mean_of_squares",
]


def gradients(shapes, m, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(s, generator=generator).to(dtype) for s in shapes] for _ in range(m)]


def collected(batches, **options) -> MicrobatchStats:
    stats = MicrobatchStats([torch.zeros_like(g) for g in batches[0]], **options)
    for grads in batches:
        stats.add(grads)
    return stats


def test_gradients_are_read_once_left_alone_and_not_kept():
    grad = torch.tensor([1.0, 2.0])
    stats = MicrobatchStats([torch.zeros(2)])
    stats.add([grad])
    assert grad.tolist() == [1.0, 2.0]
    alive = weakref.ref(grad)
    del grad
    assert alive() is None


class ForbidHostReads(TorchDispatchMode):
    """Fails on the operator behind item(), bool() and tolist(), which wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a host synchronization"
        return func(*args, **(kwargs or {}))


def test_nothing_but_reading_the_flag_waits_for_the_device():
    batches = gradients([(5,), ()], 3, torch.bfloat16)
    stats, other = collected(batches, groups=2), collected(batches, groups=2)
    with ForbidHostReads():
        stats.add(batches[0], 3.0)
        stats.merge(other)
        step = stats.consume()
        for moments, grad in zip(step, batches[0], strict=True):
            for name in STATISTICS:
                getattr(moments.relative_to(grad.float().abs()), name)()
            moments.scaled_to(grad)
    with pytest.raises(AssertionError, match="host sync"), ForbidHostReads():
        bool(step.finite)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_is_flagged_and_the_next_step_is_clean(bad):
    params = [torch.zeros(2), torch.zeros(2)]
    stats = MicrobatchStats(params, groups=2)
    stats.add([torch.ones(2), torch.ones(2)])
    assert stats.finite
    stats.add([torch.tensor([1.0, bad]), torch.ones(2)])
    assert not stats.finite
    step = stats.consume()
    assert not step.finite
    assert step[params[0]].var_of_mean().isfinite().tolist() == [True, False]
    assert not step[params[0]].scaled_to(torch.ones(2))[1], "never aligned"
    assert step[params[1]].var_of_mean().tolist() == [0.0, 0.0]
    stats.add([torch.ones(2), torch.ones(2)])
    assert stats.finite
    assert stats.result()[params[0]].mean.tolist() == [1.0, 1.0]


def test_a_record_does_not_change_when_more_is_added():
    batches = gradients([(5,)], 6)
    stats = collected(batches[:3])
    record = stats.result().moments[0]
    before = [record.mean, *record.central.values()]
    before = [t.clone() for t in before]
    stats.add(batches[3])
    stats.consume()
    for grads in batches:
        stats.add(grads)
    for old, new in zip(before, [record.mean, *record.central.values()], strict=True):
        assert torch.equal(old, new)


def test_consuming_hands_the_tensors_over_without_a_copy():
    stats = collected(gradients([(5,)], 3))
    looked_at = stats.result().moments[0]
    assert stats.consume().moments[0].scaled_mean is looked_at.scaled_mean


def test_what_was_consumed_is_stale_until_the_next_microbatch():
    batches = gradients([(5,)], 2)
    stats = MicrobatchStats([torch.zeros_like(g) for g in batches[0]])
    assert (stats.is_fresh, len(stats), stats.generation) == (False, 0, 0)
    with pytest.raises(RuntimeError, match="has no microbatch yet"):
        stats.result()
    stats.add(batches[0])
    stats.add(batches[1])
    assert (stats.is_fresh, len(stats), stats.generation) == (True, 2, 1)
    assert stats.consume().generation == 1
    assert (stats.is_fresh, stats.count, stats.generation) == (False, 2, 1)
    with pytest.raises(RuntimeError, match="was consumed already"):
        stats.consume()
    stats.add(batches[1])
    assert (stats.is_fresh, stats.count, stats.generation) == (True, 1, 2)
    assert torch.allclose(stats.result().moments[0].mean, batches[1][0])
    stats.reset()
    assert (stats.is_fresh, stats.count, stats.generation) == (False, 0, 2)


def pickled(x):
    return pickle.loads(pickle.dumps(x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_copies_go_on_by_themselves_with_their_own_parameters(duplicate):
    model = torch.nn.Linear(3, 2)
    stats = MicrobatchStats(model.parameters(), groups=2)
    batches = [[torch.randn(2, 3), torch.randn(2)] for _ in range(4)]
    for grads in batches[:3]:
        stats.add(grads)
    copied_model, copied = duplicate((model, stats))
    for each in (stats, copied):
        each.add(batches[3])
    step, copied_step = stats.result(), copied.result()
    assert copied.generation == 1
    assert torch.equal(copied_step[copied_model.weight].central[4], step[model.weight].central[4])
    with pytest.raises(KeyError, match="is not one of the 2 parameters followed"):
        copied_step[model.weight]
    copied.add(batches[0])
    assert (stats.count, copied.count) == (4, 5)


def test_parameter_groups_keep_their_order():
    a, b, c = (torch.zeros(n) for n in (1, 2, 3))
    stats = MicrobatchStats([{"params": [c, a], "lr": 1.0}, {"params": b}])
    assert [p.numel() for p in stats.params] == [3, 1, 2]


REFUSED_PARAMETERS = [
    (lambda: torch.zeros(2), {}, TypeError, "a single Tensor"),
    (list, {}, ValueError, "got no parameters"),
    (lambda: [torch.zeros(2, dtype=torch.complex64)], {}, TypeError, "parameter 0 is complex"),
    (lambda: [torch.zeros(2).to_sparse()], {}, TypeError, "parameter 0 is sparse"),
    (lambda: [torch.zeros(2, dtype=torch.int64)], {}, TypeError, "has dtype torch.int64; allowed"),
    (lambda: [3.0], {}, TypeError, "parameter 0 is a float; pass a torch.Tensor"),
    (lambda: [torch.zeros(2)] * 2, {}, ValueError, "appears more than once"),
    (lambda: [{"lr": 1.0}], {}, ValueError, "has no 'params'"),
    (lambda: [torch.zeros(2)], {"moments": 5}, ValueError, "moments=5 is not supported"),
    (lambda: [torch.zeros(2)], {"groups": 0}, ValueError, "groups=0 is not a number"),
    (lambda: [torch.zeros(2)], {"dtype": torch.bfloat16}, TypeError, "bfloat16 is not supported"),
]


@pytest.mark.parametrize(("params", "options", "error", "text"), REFUSED_PARAMETERS)
def test_parameters_and_options_that_cannot_be_used_are_refused_by_name(
    params, options, error, text
):
    with pytest.raises(error, match=text):
        MicrobatchStats(params(), **options)


REFUSED_MICROBATCHES = [
    ([torch.ones(2)], 1.0, ValueError, "got 1 gradients for 2 parameters"),
    ([torch.ones(3), None], 1.0, ValueError, r"gradient 0 has shape \(3,\) on cpu"),
    ([torch.ones(2, device="meta"), None], 1.0, ValueError, "on meta, its parameter"),
    ([None, torch.ones(2).to_sparse()], 1.0, TypeError, "gradient 1 is sparse"),
    ([None, torch.ones(2) * 1j], 1.0, TypeError, "gradient 1 is complex"),
    ([None, 1.0], 1.0, TypeError, "gradient 1 is a float"),
    ([None, None], 0.0, ValueError, "weight=0.0 is not positive and finite"),
    ([None, None], float("inf"), ValueError, "weight=inf is not positive"),
    ([None, None], torch.tensor(3.0), TypeError, "weight is a tensor"),
    ([None, None], "3", TypeError, "weight is a str"),
]


@pytest.mark.parametrize(("grads", "weight", "error", "text"), REFUSED_MICROBATCHES)
def test_microbatches_that_cannot_be_used_are_refused_and_not_counted(grads, weight, error, text):
    stats = MicrobatchStats([torch.zeros(2), torch.zeros(2)])
    stats.add([torch.ones(2), None])
    with pytest.raises(error, match=text):
        stats.add(grads, weight)
    assert (stats.count, stats.result().moments[0].mean.tolist()) == (1, [1.0, 1.0])


def test_merge_refuses_itself_other_shapes_and_what_was_consumed():
    stats = collected([[torch.ones(2)]])
    with pytest.raises(ValueError, match="with themselves"):
        stats.merge(stats)
    with pytest.raises(ValueError, match="merge needs the same shapes"):
        stats.merge(collected([[torch.ones(3)]]))
    with pytest.raises(ValueError, match="got moments=2"):
        stats.merge(collected([[torch.ones(2)]], moments=2))
    stale = collected([[torch.ones(2)]])
    stale.consume()
    with pytest.raises(RuntimeError, match="were consumed already"):
        stats.merge(stale)
