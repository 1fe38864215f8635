"""The theory that tests/proofs compiles, for the certificates of matrices."""

import subprocess

import pytest
from tests.proofs.conftest import checked, coq

__all__ = ["checked", "coq"]


@pytest.fixture(scope="session")
def accepts(checked, tmp_path_factory):
    """A function: does Coq accept this text as a certificate? With its last words."""
    folder = tmp_path_factory.mktemp("matrix_certificates")

    def attempt(text: str) -> tuple[bool, str]:
        source = folder / "certificate.v"
        source.write_text(text)
        command = ["coqc", "-q", "-w", "none", "-R", str(checked.build), "deltabias", str(source)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, cwd=folder
        )
        return done.returncode == 0, done.stdout + done.stderr

    return attempt
