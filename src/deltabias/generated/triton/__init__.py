"""Fused Triton kernels of the catalogue's steps, a module a rule; importing one needs triton.

Each has ``STEPS``: for a step of the plain module its tensors in order, those it writes, those
with one value a tensor, its scalars, and three functions: the kernel, the row of scalars that the
kernel reads as the host works it out, and the same on the device.
"""
