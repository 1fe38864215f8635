"""deltabias: the finite-sample bias of preconditioned optimizer updates.

From one line of mathematics to its bias (`deltabias.derivation`), its correction
(`deltabias.correction`), tested torch code (`deltabias.codegen`) and optimizers that use it
(`deltabias.optim`). Importing this package imports neither torch nor SymPy.
"""

__version__ = "0.1.0"
