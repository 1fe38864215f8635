"""Shampoo's inverse roots, each computed by one rank: the steps of one process, bit for bit."""

import pytest
import torch
from tests.distributed.worker import matrices, shampoo_options, shampoo_steps
from torch import nn

from deltabias.optim import Shampoo
from deltabias.optim.root_requests import assigned


@pytest.mark.parametrize("solver", ["eigh", "iteration"])
def test_shared_roots_make_the_steps_of_one_process_bit_for_bit(four, solver):
    net = matrices()
    alone = shampoo_steps(net, Shampoo(net.parameters(), **shampoo_options(solver)))
    for seen in four:
        assert seen["shampoo", solver].keys() == alone.keys()
        for name, value in alone.items():
            assert torch.equal(seen["shampoo", solver][name], value), name


def test_a_singular_factor_is_refused_on_every_rank_and_says_where(four):
    said = [seen["singular"] for seen in four]
    assert all(text.startswith("SingularPreconditioner: ") for text in said)
    assert any("on rank" in text for text in said)


def test_matrices_are_dealt_by_their_cost():
    sizes = [8, 512, 8, 256, 256, 8]
    owner = assigned(sizes, 2)
    load = [sum(s**3 for s, o in zip(sizes, owner, strict=True) if o == r) for r in range(2)]
    assert load == [512**3, 2 * 256**3 + 3 * 8**3]
    assert sorted(set(assigned([4] * 7, 4))) == [0, 1, 2, 3]


def test_sharing_without_other_ranks_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"call torch\.distributed\.init_process_group first"):
        Shampoo([nn.Parameter(torch.eye(2))]).share_roots()
