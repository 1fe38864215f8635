"""Nothing here needs a GPU but what is marked so; without Triton it is skipped by name."""

collect_ignore = [
    "interpreted.py",
    "optimizers.py",
    "own_rules.py",
    "ptx.py",
    "twins.py",
]  # programs of the tests, which import triton
