"""Generated Triton modules import triton, so they are looked at only where it is installed."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["src/deltabias/generated/triton/*.py"]
