"""What needs torch and transformers; importable with those two and numpy alone, since GPU images carry little else."""
