"""Every number that the project claims, measured: one study per claim, one command per study.

``python -m validation`` runs them all; README.md lists claims, commands and result files.
"""
