"""What needs torch and transformers; importable with those two and numpy alone (``graph`` wants onnx too), since GPU images carry
little else."""
