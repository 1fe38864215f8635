"""Steps of the catalogue in one pass each, for ``torch.compile``, a module a rule.

For each step of the plain module, and for the spaced and held ones whose ``scalars_…`` stand there,
two functions: ``pack_…`` works its numbers out on the host, ``one_pass_…`` takes them as one small
tensor beside flat tensors of one size.
"""
