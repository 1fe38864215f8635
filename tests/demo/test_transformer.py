import math

import pytest
import torch

from deltabias.demo.transformer import ByteTransformer, build


def test_it_has_about_a_million_parameters():
    count = sum(p.numel() for p in ByteTransformer().parameters())
    assert 0.8e6 < count < 1.2e6


def test_logits_have_one_entry_per_byte_value():
    model = build(0, width=16, blocks=2, heads=2, context=8)
    assert model(torch.zeros(3, 8, dtype=torch.int64)).shape == (3, 8, 256)


def test_the_first_loss_is_that_of_guessing():
    model = build(0)
    text = torch.randint(0, 256, (4, 65), generator=torch.Generator().manual_seed(0))
    assert model.loss(text).item() == pytest.approx(math.log(256), rel=0.03)


def test_no_position_sees_its_future():
    model = build(0, width=16, blocks=2, heads=2, context=8)
    text = torch.randint(0, 256, (1, 8), generator=torch.Generator().manual_seed(0))
    changed = text.clone()
    changed[0, 5:] = 0
    before, after = model(text), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second, third = build(1), build(1), build(2)
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, third.head.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width=10 is not a multiple of heads=4"):
        ByteTransformer(width=10, heads=4)
