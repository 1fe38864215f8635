"""Every recipe in docs/distributed.md runs as it stands, under torchrun on two ranks."""

import re

import pytest
import torch.distributed as dist
from tests.distributed.launch import ROOT, torchrun

PAGE = ROOT / "docs" / "distributed.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)

# One group for all blocks, as a second rendezvous under one torchrun meets the first one's keys.
RUNNER = """
import sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
dist.init_process_group("gloo", timeout=timedelta(seconds=20))
leave = dist.destroy_process_group
dist.init_process_group = dist.destroy_process_group = lambda *_, **__: None
for path in sys.argv[1:]:
    exec(compile(Path(path).read_text(), path, "exec"), {"__name__": "__main__"})
leave()
print("all done")
"""


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_every_recipe_runs_on_two_ranks(tmp_path):
    assert len(BLOCKS) == 5
    paths = []
    for k, block in enumerate(BLOCKS):
        paths.append(tmp_path / f"block{k}.py")
        paths[-1].write_text(block)
    (tmp_path / "runner.py").write_text(RUNNER)
    said = torchrun(tmp_path / "runner.py", *map(str, paths), ranks=2, limit=60)
    assert said.count("all done") == 2
