"""Pure mathematics that knows of no optimizer: cumulants, averaging weights, delta expansions."""
