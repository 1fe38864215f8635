"""Committed output of ``deltabias generate``: plain torch functions that import nothing of ours."""
