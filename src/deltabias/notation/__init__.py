"""How formulas look to people: names, LaTeX, Unicode, MathML. The lowest layer of all.

It lies below the records it prints, so that a rule, a derivation or a correction can own its
representation in a notebook, and above SymPy alone, so that pages, commands and extensions name
the same symbol alike. Importing this package imports nothing heavy.

    names     `Name`: ``exp_avg_sq`` as v̂, ``beta2`` as β₂, in one place
    printing  expressions as LaTeX, Unicode or MathML with those names
    markup    HTML that is escaped, has no script and follows the reader's colors
"""
