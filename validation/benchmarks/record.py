"""Results on disk: the numbers, the machine that they were taken on, and its versions."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from validation.matrix_cost import device_name
from validation.record import plain

RESULTS = Path(__file__).parents[1] / "results/benchmarks"


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were taken on, and how busy it was."""
    return {
        "device": device_name(torch.device(device)),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of Python, torch and what else took part; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in ("torch", *packages):
        try:
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            continue
    return found


def write(
    name: str,
    claim: str,
    rows: list[dict[str, Any]],
    *,
    device: str = "cpu",
    packages: tuple[str, ...] = (),
    folder: Path = RESULTS,
) -> Path:
    """Write NAME.json; returns its path.

    A row is plain data; ``passed`` in it, where something is claimed, says whether that held.
    """
    record = {
        "benchmark": name,
        "claim": claim,
        "command": f"python -m validation.benchmarks {name}",
        "machine": machine(device),
        "versions": versions(*packages),
        "passed": all(row.get("passed") is not False for row in rows),
        "rows": [plain(row) for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
