"""The built site, once for all workers of a run; what the browser's tests need."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
NEEDED = ("sphinx", "myst_parser", "furo", "sphinx_design", "sphinx_copybutton", "mathjax")


@pytest.fixture(scope="session", autouse=True)
def extensions_are_importable():
    sys.path.insert(0, str(DOCS / "_ext"))
    yield
    sys.path.remove(str(DOCS / "_ext"))


def once(tmp_path_factory, name: str, make) -> Path:
    """A folder that the first of pytest-xdist's workers fills and the others wait for."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f"{name}.done"
    try:
        folder.mkdir()
    except FileExistsError:
        for _ in range(1200):
            if done.exists():
                break
            time.sleep(0.25)
        else:
            pytest.fail(f"{name} was not made by the other worker within five minutes")
    else:
        try:
            make(folder)
        finally:
            done.touch()
    return folder


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """The folder of a build as `make docs` runs it, with build.json: exit code and messages."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        pytest.skip(f"no {', '.join(missing)}")

    def make(folder):
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = {
            "code": done.returncode,
            "said": done.stdout + done.stderr,
            "seconds": time.perf_counter() - started,
        }
        (folder / "build.json").write_text(json.dumps(said))

    return once(tmp_path_factory, "site", make)


@pytest.fixture(scope="session")
def site(build):
    """The folder with the site's pages."""
    folder = build / "html"
    if not (folder / "index.html").exists():
        pytest.fail(json.loads((build / "build.json").read_text())["said"][-4000:])
    return folder


@pytest.fixture(scope="session")
def address(site):
    """The address of a server of the site on this machine."""
    with serving(site) as found:
        yield found


class serving:
    """``with serving(folder) as address``: a quiet server of a folder's files."""

    def __init__(self, folder: Path):
        handler = functools.partial(_Quiet, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass
