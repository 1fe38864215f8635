import pytest
import torch

from deltabias.demo.corpus import even_windows, random_windows, read_corpus, windows
from deltabias.errors import DeltabiasError

SOME = {"most_bytes": 1_000_000, "at_least": 1}


def test_the_standard_library_is_read_alike_twice():
    first, second = read_corpus(**SOME), read_corpus(**SOME)
    assert torch.equal(first.training, second.training)
    assert torch.equal(first.validation, second.validation)
    assert len(first.training) + len(first.validation) == 1_000_000
    assert len(first.validation) > 0


def test_held_out_files_are_whole_and_never_trained_on(tmp_path):
    for number in range(32):
        (tmp_path / f"f{number:02}.py").write_text(f"<{number:02}>")
    corpus = read_corpus(tmp_path, at_least=1)
    assert bytes(corpus.validation.tolist()) == b"<15><31>"
    assert b"15" not in bytes(corpus.training.tolist())
    assert corpus.files == 32


def test_tests_and_installed_packages_are_skipped(tmp_path):
    for name in ("a.py", "b.py", "test/c.py", "site-packages/d.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name * 20)
    with pytest.raises(DeltabiasError, match="has 160 bytes of Python to train on and 0"):
        read_corpus(tmp_path, at_least=1)


def test_a_window_holds_inputs_and_their_next_bytes():
    text = torch.arange(10, dtype=torch.uint8)
    assert windows(text, torch.tensor([0, 6]), 3).tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert even_windows(text, 2, 3).tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]


def test_random_windows_follow_their_generator_and_reach_the_last_byte():
    text = torch.arange(6, dtype=torch.uint8)
    draws = [random_windows(text, 50, 3, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*draws)
    assert draws[0].min() == 0
    assert draws[0].max() == 5
