"""``python -m finsight.cli``."""

from finsight.cli import main

main()
