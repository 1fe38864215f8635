"""From a correction to torch code: one static-single-assignment form, several printers."""
