"""Looks for secrets in every file that git knows, `make secret-scan`; what .secrets.baseline has was looked at and is none.

.venv/bin/python .ci/secret_scan.py            # ends with 1, and says where, when there is something new
.venv/bin/python .ci/secret_scan.py --accept   # after a look at each: none of what is found is a secret
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from detect_secrets import SecretsCollection
from detect_secrets.core import baseline
from detect_secrets.settings import configure_settings_from_baseline

BASELINE = Path(".secrets.baseline")  # relative to the root that is scanned, which is where we are


def found() -> SecretsCollection:
    """What looks like a secret, by the plugins and filters of the baseline."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    secrets = SecretsCollection()
    for name in filter(None, listed.split("\0")):
        if name != str(BASELINE) and Path(name).is_file():
            secrets.scan_file(name)
    return secrets


def main() -> int:
    """Compare by file and content: a line that moved is no news."""
    known = json.loads(BASELINE.read_text())
    configure_settings_from_baseline(known, filename=str(BASELINE))
    secrets = found()
    if sys.argv[1:] == ["--accept"]:
        accepted = baseline.format_for_output(secrets)
        for one in (secret for secrets_of_file in accepted["results"].values() for secret in secrets_of_file):
            one["is_secret"] = False
        BASELINE.write_text(json.dumps({key: accepted[key] for key in known}, indent=2) + "\n")
        return 0
    new = sorted((secret.filename, secret.line_number, secret.type) for _, secret in secrets - baseline.load(known))
    for filename, line, kind in new:
        print(
            f"error: {filename}:{line}: looks like a secret ({kind}); take it out and renew it, or accept what is none",
            file=sys.stderr,
        )
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
