"""The use cases, one module a stage: a verb each, outside systems as arguments."""
