from contextlib import contextmanager

import pytest
import torch

from deltabias.demo.training import Contender, Settings, corrected, plain, train_pair
from deltabias.demo.transformer import build


def test_the_loop_learns_in_twenty_steps(alphabet, tiny):
    run = train_pair((plain, plain), alphabet, tiny, 0)
    assert run.training[0][0] > 5
    assert run.training[0][-1] < 1.5
    assert run.validation[0] < 1.5


def test_the_same_optimizer_twice_gives_the_same_run(alphabet, tiny):
    run = train_pair((plain, plain), alphabet, tiny, 0)
    assert run.training[0] == run.training[1]
    assert run.validation[0] == run.validation[1]


def test_another_seed_is_another_run(alphabet, tiny):
    first, second = (train_pair((plain, plain), alphabet, tiny, seed) for seed in (0, 1))
    assert first.training != second.training


def test_accumulated_microbatches_are_one_large_batch(alphabet, tiny):
    batches = [torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(0))] * 4
    models = [build(0, context=16, **tiny.shape) for _ in range(2)]
    plain(models[0], tiny).step(batches, 1e-2)
    plain(models[1], tiny).step([torch.cat(batches)], 1e-2)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        # a sign of a gradient near zero decides the first step of Adam, so only most must agree
        assert torch.isclose(a, b, atol=1e-4).float().mean() > 0.9


def test_every_backward_runs_inside_the_contenders_context(alphabet, tiny):
    opened = []

    @contextmanager
    def spy():
        opened.append("in")
        yield
        opened.append("out")

    def watched(model, settings):
        inner = plain(model, settings)
        return Contender("watched", model, inner.optimizer, spy)

    train_pair((watched, plain), alphabet, tiny, 0)
    assert opened == ["in", "out"] * (tiny.steps * tiny.microbatches)


def test_the_corrected_contender_corrects_every_step(alphabet, tiny):
    contenders = []

    def keep(model, settings):
        contenders.append(corrected(model, settings))
        return contenders[-1]

    run = train_pair((plain, keep), alphabet, tiny, 0)
    assert contenders[0].optimizer.validity().corrected == tiny.steps
    assert run.validation[1] < 1.5
    assert run.training[0] != run.training[1]


def test_the_learning_rate_warms_up_and_decays_to_its_last_share():
    settings = Settings(steps=100, lr=1.0, warmup=10, final_lr=0.1)
    rates = [settings.learning_rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_every_step_of_both_is_timed(alphabet, tiny):
    seen = []
    run = train_pair(
        (plain, plain), alphabet, tiny, 0, after_step=lambda step, pair: seen.append(step)
    )
    assert seen == list(range(tiny.steps))
    assert [len(s) for s in run.seconds] == [tiny.steps] * 2
    assert min(min(s) for s in run.seconds) > 0
