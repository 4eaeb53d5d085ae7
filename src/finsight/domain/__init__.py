"""Pure rules: no input or output, numpy at most."""
