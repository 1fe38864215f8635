"""Committed output of ``deltabias generate``: plain torch functions that import nothing of ours.

A rule's module has its updates, its optimizer's steps, their scalars of the step count and their
meters; ``compiled`` and ``triton`` have the steps once more, one module a rule.
"""
