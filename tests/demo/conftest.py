"""A small corpus, a small model and a small schedule: seconds, not minutes."""

import pytest
import torch

from deltabias.demo.corpus import Corpus
from deltabias.demo.training import Settings

TINY = {"width": 16, "blocks": 1, "heads": 2}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def alphabet() -> Corpus:
    """Text that a small model learns at once: the alphabet, over and over."""
    text = torch.tensor(list(b"abcdefghijklmnopqrstuvwxyz" * 40), dtype=torch.uint8)
    return Corpus(text, text[:520], files=1)


@pytest.fixture
def tiny() -> Settings:
    return Settings(
        steps=20, lr=3e-2, warmup=2, microbatches=4, context=16, validation_windows=8, shape=TINY
    )
