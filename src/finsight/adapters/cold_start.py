"""What a new process takes up to its first prediction: seconds and memory. Run as a module, it is that process."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from finsight.errors import ArtifactError

PATIENCE = 120  # seconds
TEXT = "Net profit rose to EUR 13.1 mn from EUR 8.7 mn in the same period a year earlier."


def measure(bundle: Path, name: str) -> dict[str, float]:
    """Milliseconds from the start of a process to the end of its first prediction, and its peak memory in MB.

    :raises ArtifactError: when the process fails.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", __name__, str(bundle), name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise ArtifactError(f"{bundle}: {name} gave no prediction in a new process within {PATIENCE} seconds") from None
    seconds = time.perf_counter() - started
    if done.returncode:
        raise ArtifactError(f"{bundle}: {name} can't be loaded in a new process: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
    return {"cold_start_ms": round(1000 * seconds), "peak_memory_mb": round(int(done.stdout) / 1e6)}


def _peak_memory() -> int:
    """Bytes that this program has had in memory at most; what the system counts for the process includes its parent's, before it began."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Load a format of a bundle, predict once, say how much memory it took."""
    from finsight.adapters.bundle_classifier import BundleClassifier

    BundleClassifier(Path(sys.argv[1]), sys.argv[2]).logits([TEXT])
    print(_peak_memory())


if __name__ == "__main__":
    main()
