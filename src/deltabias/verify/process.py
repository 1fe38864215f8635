"""A process for somebody else's code: limited in time and memory, silent, and always answered.

The process leads a group of its own, which is killed at the end whatever happened, so a target
that ignores signals, hangs in C or leaves children behind does not stay. It writes events, one
JSON object a line, into a file (see `deltabias.verify.worker`); without a result among them the
run is an error, and how the process ended says which.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import deltabias
from deltabias.errors import DeltabiasError
from deltabias.verify.record import ERROR, Check

DEFAULT_SECONDS = 120.0
GRACE = 0.5
"""Seconds before the end at which the process is to write down where it hangs."""

MOST_MEMORY = 8 << 30
TAIL = 8192
"""Bytes of the target's own output that are kept."""

# -P: the current directory is searched only when the target is a module, and then by load_target
_START = (
    "import sys, json; sys.path += [p for p in json.loads(sys.argv[1]) if p not in sys.path]; "
    "from deltabias.verify.worker import main; main(sys.argv[2])"
)


@dataclass(frozen=True)
class Ended:
    """The checks that were answered (or the one that says why none was), and what was printed."""

    checks: tuple[Check, ...]
    printed: str


def run_isolated(
    job: Mapping, *, time_limit: float = DEFAULT_SECONDS, memory_limit: int | None = None
) -> Ended:
    """Run the worker on a job and wait, never longer than the limit.

    Raises
    ------
    DeltabiasError
        for limits that are not positive and finite.
    """
    if not (isfinite(time_limit) and time_limit > 0):
        raise DeltabiasError(f"{time_limit=} must be a positive number of seconds.")
    limit = default_memory() if memory_limit is None else memory_limit
    if limit <= 0:
        raise DeltabiasError(f"{memory_limit=} must be a positive number of bytes.")
    with tempfile.TemporaryDirectory(
        prefix="deltabias-verify-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        until = time.time() + max(time_limit - GRACE, time_limit / 2)
        settings = {**job, "until": until, "memory": limit}
        (folder / "job.json").write_text(json.dumps(settings), encoding="utf-8")
        code = _run(folder, time_limit)
        events = _events(folder / "events.jsonl")
        printed = _tail(folder / "printed.txt")
        return Ended(_checks(events, code, folder, time_limit, limit), printed)


def default_memory() -> int:
    """Half of the machine's memory in bytes, at most 8 GiB."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return MOST_MEMORY
    return min(MOST_MEMORY, installed // 2)


def _run(folder: Path, time_limit: float) -> int | None:
    """The exit code (negative: the signal), or None when the time was up."""
    paths = [*sys.path, str(Path(deltabias.__file__).parents[1])]
    kept = json.dumps([str(Path(p).absolute()) for p in paths if p])
    command = [sys.executable, "-P", "-u", "-c", _START, kept, str(folder)]
    quiet = {
        "PYTHONDONTWRITEBYTECODE": "1",  # leave no trace in the user's folders
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
    }
    with (folder / "printed.txt").open("ab") as printed:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, **quiet},
            start_new_session=True,
        )
        try:
            return process.wait(time_limit)
        except subprocess.TimeoutExpired:
            return None
        finally:  # also when this process is interrupted
            _kill(process)


def _kill(process: subprocess.Popen) -> None:
    """End the whole group: children outlive a leader that has ended already."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _events(path: Path) -> list[dict]:
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed process
            found.append(json.loads(line))
    return [event for event in found if isinstance(event, dict)]


def _checks(
    events: list[dict], code: int | None, folder: Path, seconds: float, memory: int
) -> tuple[Check, ...]:
    for event in events:
        if "checks" in event:
            return tuple(Check(**_clean(check)) for check in event["checks"])
    doing = next((e["doing"] for e in reversed(events) if "doing" in e), "starting Python")
    files = [e["file"] for e in events if "file" in e]
    trace = _tail(folder / "trace.txt")
    where = _where(trace, files)
    if code is None or "Timeout" in trace:
        reason = (
            f"the time limit of {seconds:g} s was over while {doing}{where}; "
            "the process and its children were killed."
        )
    elif code < 0:
        reason = f"the process died of {_signal(-code)} while {doing}{where}{_starved(-code)}."
        reason = reason.format(memory=memory >> 20)
    else:
        reason = f"the process ended itself with exit code {code} while {doing}; no result came."
    return (Check("run", ERROR, detail=clean(reason)),)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _starved(number: int) -> str:
    killed = {signal.SIGABRT, getattr(signal, "SIGKILL", None)}
    return " (perhaps out of memory; its limit was {memory} MiB)" if number in killed else ""


def _where(trace: str, files: list[str]) -> str:
    """The innermost line of the target's file in faulthandler's account, or of a user's file."""
    frames = re.findall(r'File "(/.*?)", line (\d+) in (\S+)', trace)
    not_theirs = (sys.prefix, sys.base_prefix, str(Path(deltabias.__file__).parent))
    theirs = [f for f in frames if f[0] in files]
    theirs += [f for f in frames if not f[0].startswith(not_theirs)]
    for file, line, name in theirs:
        return f", in {name} ({Path(file).name}:{line})"
    return ""


def _tail(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        text = file.read().decode("utf-8", errors="replace")
    return clean(f"[… {size - TAIL} bytes before]\n{text}" if size > TAIL else text)


def clean(text: str) -> str:
    """Text without what a terminal or an XML file would choke on: control characters."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
