"""FinSight: build, prove, export, register and serve financial-sentiment models."""

__version__ = "0.1.0"
