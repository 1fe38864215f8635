"""``with stats.microbatch()``: the same gradients bit for bit, and the microbatch's own seen."""

import pytest
import torch
from torch import nn

from deltabias.microbatch import MicrobatchStats


class Tied(nn.Module):
    """A weight used twice, and one used by some inputs only."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.expert = nn.Linear(6, 6)
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(tokens) * self.frozen
        if len(tokens) > 3:
            hidden = torch.tanh(self.expert(hidden))
        return hidden @ self.embed.weight.t()  # tied


BATCHES = [torch.arange(n) % 11 for n in (3, 7, 2, 12)]


def model(dtype=torch.float32) -> Tied:
    torch.manual_seed(0)
    return Tied().to(dtype)


def loss_sum(net: Tied, tokens: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(net(tokens), tokens.flip(0), reduction="sum")


def own_gradients(net: Tied, tokens: torch.Tensor) -> list[torch.Tensor | None]:
    """The truth: one backward pass from no gradient."""
    net.zero_grad()
    loss_sum(net, tokens).backward()
    grads = [p.grad for p in net.parameters()]
    net.zero_grad()
    return grads


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_accumulate_bit_for_bit_as_without_the_statement(dtype):
    plain, watched = model(dtype), model(dtype)
    stats = MicrobatchStats(watched.parameters())
    for tokens in BATCHES:
        loss_sum(plain, tokens).backward()
        with stats.microbatch(weight=len(tokens)):
            loss_sum(watched, tokens).backward()
        for p, q in zip(plain.parameters(), watched.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            assert p.grad is None or torch.equal(p.grad, q.grad)
    assert stats.count == 4


def test_the_running_gradient_stays_the_same_tensor():
    net = model()
    stats = MicrobatchStats(net.parameters())
    with stats.microbatch():
        loss_sum(net, BATCHES[0]).backward()
    running = net.embed.weight.grad
    with stats.microbatch():
        loss_sum(net, BATCHES[1]).backward()
    assert net.embed.weight.grad is running


def test_what_is_added_is_each_microbatchs_own_gradient_over_its_weight():
    net = model()
    params = list(net.parameters())
    direct, captured = MicrobatchStats(params), MicrobatchStats(params)
    for tokens in BATCHES:
        weight = float(len(tokens))
        grads = own_gradients(net, tokens)
        direct.add([None if g is None else g / weight for g in grads], weight)
    for tokens in BATCHES:
        with captured.microbatch(weight=len(tokens)):
            loss_sum(net, tokens).backward()
    assert (captured.count, captured.result().weight) == (4, 24.0)
    assert captured.result()[net.frozen] is None
    for want, got in zip(direct.result(), captured.result(), strict=True):
        if want is not None:
            torch.testing.assert_close(got.mean, want.mean)
            torch.testing.assert_close(got.var_of_mean(), want.var_of_mean())


@pytest.mark.parametrize("scaling", ["sum", "per_microbatch", "per_token", "scaled_and_clipped"])
def test_the_mean_is_proportional_to_the_gradient_whatever_the_loss_is_divided_by(scaling):
    net = model()
    stats = MicrobatchStats(net.parameters())
    divisor = {"sum": 1.0, "per_microbatch": 4.0, "per_token": 24.0, "scaled_and_clipped": 2.0**-16}
    for tokens in BATCHES:
        with stats.microbatch(weight=len(tokens)):
            (loss_sum(net, tokens) / divisor[scaling]).backward()
    if scaling == "scaled_and_clipped":
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    step = stats.consume()
    reference = step[net.embed.weight].scaled_to(net.embed.weight.grad)[0]
    for param in (net.embed.weight, net.expert.weight, net.expert.bias):
        moments, aligned = step[param].scaled_to(param.grad)
        assert aligned
        torch.testing.assert_close(moments.mean, param.grad, rtol=1e-4, atol=1e-7)
        # one factor for the whole step
        torch.testing.assert_close(
            moments.scale / step[param].scale, reference.scale / step[net.embed.weight].scale
        )


def test_an_exception_restores_the_gradient_and_adds_nothing():
    net = model()
    stats = MicrobatchStats(net.parameters())
    with stats.microbatch():
        loss_sum(net, BATCHES[1]).backward()
    before = [p.grad for p in net.parameters()]
    values = [None if g is None else g.clone() for g in before]
    mean = stats.result()[net.embed.weight].mean

    def interrupted():
        with stats.microbatch():
            loss_sum(net, BATCHES[2]).backward()
            raise KeyError("from the block")

    with pytest.raises(KeyError, match="from the block"):
        interrupted()
    for param, grad, value in zip(net.parameters(), before, values, strict=True):
        assert param.grad is grad
        assert grad is None or torch.equal(grad, value)
    assert stats.count == 1
    assert torch.equal(stats.result()[net.embed.weight].mean, mean)
    with stats.microbatch():  # and the next block works
        loss_sum(net, BATCHES[2]).backward()
    assert stats.count == 2


def test_a_sparse_gradient_is_refused_and_still_accumulated():
    embed = nn.Embedding(5, 2, sparse=True)
    stats = MicrobatchStats(embed.parameters())
    with pytest.raises(TypeError, match="gradient 0 is sparse"), stats.microbatch():
        embed(torch.tensor([1])).sum().backward()
    assert embed.weight.grad.is_sparse
    assert stats.count == 0


def test_a_block_in_a_block_and_a_bad_weight_are_refused():
    net = model()
    stats = MicrobatchStats(net.parameters())
    nested = pytest.raises(RuntimeError, match="inside microbatch")
    with stats.microbatch(), nested, stats.microbatch():
        pass
    assert stats.count == 1, "the outer one went on"
    with pytest.raises(ValueError, match="weight=0 is not positive"), stats.microbatch(weight=0):
        pass


def test_scaling_takes_each_moment_to_its_power_and_keeps_groups_in_step():
    g = [torch.randn(6, generator=torch.Generator().manual_seed(r)) for r in range(5)]
    stats = MicrobatchStats([torch.zeros(6)], groups=2)
    for x in g:
        stats.add([x])
    moments = stats.result().moments[0]
    scaled, aligned = moments.scaled_to(-3.0 * moments.mean)
    assert aligned
    for name, power in [("var_of_mean", 2), ("third_cumulant_of_mean", 3),
                        ("var_of_mean_of_squares", 4)]:  # fmt: skip
        want = (-3.0) ** power * getattr(moments, name)()
        torch.testing.assert_close(getattr(scaled, name)(), want)
    torch.testing.assert_close(scaled.group_means[0], -3.0 * moments.group_means[0])
    unit = torch.rand(6) + 0.5
    one_way = scaled.relative_to(unit).var_of_mean()
    other_way = moments.relative_to(unit).scaled_to(-3.0 * moments.mean)[0].var_of_mean()
    torch.testing.assert_close(one_way, other_way)


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e30])
def test_alignment_knows_the_gradient_from_another_of_any_size(size):
    mean = torch.tensor([1.0, 2.0, -3.0])
    stats = MicrobatchStats([torch.zeros(3)])
    stats.add([mean * 0.5])
    stats.add([mean * 1.5])
    moments = stats.result().moments[0]
    near = mean + torch.tensor([2.0, -1.0, 0.0]) * 0.01 * (14 / 5) ** 0.5 * 0.9  # residual 0.9 %
    far = mean + torch.tensor([2.0, -1.0, 0.0]) * 0.01 * (14 / 5) ** 0.5 * 1.1  # residual 1.1 %
    assert moments.scaled_to(size * near)[1]
    assert not moments.scaled_to(size * far)[1]
    assert moments.scaled_to(size * far, tolerance=0.012)[1]
    torch.testing.assert_close(moments.scaled_to(size * mean)[0].mean, size * mean)


def test_alignment_is_safe_where_something_is_zero_or_empty():
    stats = MicrobatchStats([torch.zeros(2), torch.zeros(0)])
    stats.add([torch.tensor([1.0, -1.0]), torch.zeros(0)])
    stats.add([torch.tensor([-1.0, 1.0]), torch.zeros(0)])
    zero_mean, empty = stats.result()
    scaled, aligned = zero_mean.scaled_to(torch.zeros(2))
    assert aligned
    assert torch.equal(scaled.var_of_mean(), zero_mean.var_of_mean())
    assert not zero_mean.scaled_to(torch.ones(2))[1]
    assert empty.scaled_to(torch.zeros(0))[1]
    for bad in (float("nan"), float("inf")):
        assert not zero_mean.scaled_to(torch.tensor([1.0, bad]))[1]
    with pytest.raises(ValueError, match=r"grad has shape \(3,\), the statistics \(2,\)"):
        zero_mean.scaled_to(torch.zeros(3))


def test_a_gradient_set_to_zero_takes_its_statistics_along():
    stats = MicrobatchStats([torch.zeros(2)])
    stats.add([torch.tensor([1.0, 2.0])])
    stats.add([torch.tensor([2.0, 2.0])])
    scaled, aligned = stats.result().moments[0].scaled_to(torch.zeros(2))
    assert aligned
    assert scaled.var_of_mean().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("m", [2, 16])
def test_gradients_summed_in_bf16_are_still_aligned(m):
    net = model(torch.bfloat16)
    stats = MicrobatchStats(net.parameters())
    for r in range(m):
        with stats.microbatch():
            loss_sum(net, (BATCHES[3] * (r + 1)) % 11).backward()
    for param, moments in zip(net.parameters(), stats.consume(), strict=True):
        assert moments is None or moments.scaled_to(param.grad)[1]
