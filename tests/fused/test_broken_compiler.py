"""A compile that fails falls back to the same loop uncompiled, once said; nothing is half done."""

import os
import warnings

import pytest
import torch
from tests.fused.cases import build, needs_compiler, parameters, take_steps
from torch._dynamo.exc import TorchDynamoException

from deltabias import one_pass
from deltabias.optim import AdamW

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def forgetful():
    """As in a new process: nothing compiled, nothing said."""

    def forget():
        one_pass.compiled.cache_clear()
        one_pass._say_once.cache_clear()
        torch._dynamo.reset()

    forget()
    yield
    forget()


def loop():
    """A new function each time, of one and the same code."""

    def add(a, b, scalars):
        a.copy_(a + b * scalars[0])

    return add


def twice_added(function, dtype=torch.float32) -> float:
    """1 + 2·1 + 2·1, in two calls."""
    a, b = torch.ones(100, dtype=dtype), torch.ones(100, dtype=dtype)
    for _ in range(2):
        one_pass.call_flat(function, [[a], [b]], [2.0], lead=0, written=[True, False])
    assert bool((a == a[0]).all())
    return float(a[0])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where torch.compile keeps what it makes: empty. What it knows of this machine it keeps."""
    assert twice_added(loop()) == 5
    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


KILLED = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = -o ] && : > "$2"; shift; done
"""
"""A compiler that leaves what one leaves that is killed: an empty file."""


@needs_compiler
def test_what_a_killed_compile_left_in_the_cache_is_named_and_done_without(folder, monkeypatch):
    (folder / "g++").write_text(KILLED)
    (folder / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    with pytest.warns(RuntimeWarning, match="file too short.* empty torch.compile's") as said:
        assert twice_added(loop(), torch.float64) == 5
    assert len(said) == 1
    assert str(folder / "cache") in str(said[0].message)


@needs_compiler
def test_a_compiler_that_is_gone_after_the_first_compile_is_done_without(folder, monkeypatch):
    function = loop()
    assert twice_added(function) == 5
    monkeypatch.setenv("PATH", str(folder))
    assert twice_added(function) == 5  # compiled already
    with pytest.warns(RuntimeWarning, match="runs uncompiled from here on, which is slow"):
        assert twice_added(function, torch.float64) == 5


def test_a_cache_that_cannot_be_written_is_named_and_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file" / "folder"))
    with pytest.warns(RuntimeWarning, match="set TORCHINDUCTOR_CACHE_DIR to a folder that can"):
        assert twice_added(loop()) == 5


def test_an_optimizer_whose_compile_fails_takes_the_uncompiled_steps_bit_for_bit(monkeypatch):
    def broken(*_, **__):
        raise TorchDynamoException("of no use")

    results = []
    for fails in (True, False):
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            one_pass.compiled.cache_clear()
            patch.setattr(torch, "compile", lambda f, **_: broken if fails else f)  # noqa: B023
            params = parameters(large=False)
            optimizer, stats = build(AdamW, params)
            take_steps(optimizer, stats, params, 3)
        results.append(params)
        assert optimizer.validity().corrected == 3
    assert all(map(torch.equal, *results))


def test_an_error_that_is_not_the_compilers_keeps_its_name(monkeypatch):
    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        twice_added(loop())
