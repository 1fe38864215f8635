"""The theory that tests/proofs compiles, for certificates."""

import subprocess

import pytest
from tests.proofs.conftest import checked, coq

from deltabias.certify import theory

__all__ = ["checked", "coq"]


@pytest.fixture
def compiled(checked, monkeypatch):
    """The theory is compiled once for all tests, not in the user's cache."""
    monkeypatch.setattr(theory, "compiled", lambda *_, **__: checked.build)
    return checked.build


@pytest.fixture(scope="session")
def accepts(checked, tmp_path_factory):
    """A function: does Coq accept this text as a certificate? With its last words."""
    folder = tmp_path_factory.mktemp("certificates")

    def attempt(text: str) -> tuple[bool, str]:
        source = folder / "mutant.v"
        source.write_text(text)
        command = ["coqc", "-q", "-w", "none", "-R", str(checked.build), "deltabias", str(source)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, cwd=folder
        )
        return done.returncode == 0, done.stdout + done.stderr

    return attempt
