"""Frozen models of params.yaml, one module a section, so that a change of one reruns only its stage."""
