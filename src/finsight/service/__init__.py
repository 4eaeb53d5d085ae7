"""REST over the same core."""
