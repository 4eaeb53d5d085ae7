"""Asks an advisory database about every pin of constraints.txt, `make audit`; .ci/audit.toml has what we live with, why, and until when.

Ends with 0 when nothing is known against any pin, with 1 when something is, or when something accepted has expired, and with 2 when the
database did not answer or does not know a pin: then nothing is known, which is not the same as no finding.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LONGEST = timedelta(days=184)


def wrong(accepted: list[dict[str, Any]], today: date) -> Iterator[str]:
    """What is wrong with the policy itself."""
    for entry in accepted:
        name = f"{entry.get('package', '?')} {entry.get('id', '?')}"
        if lacking := {"id", "package", "reason", "until"} - {key for key, value in entry.items() if value}:
            yield f"{name}: lacks {', '.join(sorted(lacking))}"
        elif entry["until"] < today:
            yield f"{name}: was accepted until {entry['until']}; update the package, or decide again and say why"
        elif entry["until"] > today + LONGEST:
            yield f"{name}: is accepted until {entry['until']}, expected six months at most"


def ask(pins: Path, osv: str) -> list[dict[str, Any]] | None:
    """Each pin with its ``vulns``, or a ``skip_reason``; None when nobody answers."""
    # The pins are all there is: nothing is resolved, installed or downloaded.
    command = [sys.executable, "-m", "pip_audit", "-r", str(pins), "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json"]
    done = subprocess.run([*command, "-s", "osv", "--osv-url", osv], capture_output=True, text=True)
    try:
        answer: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip() or "no answer").splitlines()[-1]
        print(f"error: {osv} can't be asked, so nothing is known about {pins.name}: {last[:300]}", file=sys.stderr)
        return None
    return answer


def main() -> int:
    """Print a line for each finding; see the module for the exit codes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pins", type=Path, default=HERE.parent / "constraints.txt")
    parser.add_argument("--policy", type=Path, default=HERE / "audit.toml")
    parser.add_argument("--osv", default="https://api.osv.dev/v1/query", help="an OSV service")
    arguments = parser.parse_args()

    accepted = tomllib.loads(arguments.policy.read_text()).get("accepted", [])
    problems = [f"{arguments.policy.name}: {problem}" for problem in wrong(accepted, date.today())]
    answer = ask(arguments.pins, arguments.osv)
    known = {(entry.get("package"), entry.get("id")) for entry in accepted}
    for pin in answer or []:
        for finding in pin.get("vulns", []):
            names = {finding["id"], *finding.get("aliases", [])}
            if not any((pin["name"], name) in known for name in names):
                fixed = ", ".join(finding.get("fix_versions", [])) or "no version yet"
                problems.append(f"{pin['name']} {pin['version']}: {finding['id']}, fixed in {fixed}")
    unknown = [pin["name"] for pin in answer or [] if "skip_reason" in pin]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if unknown:
        print(f"error: the database does not know {', '.join(unknown)}; nothing is known about them", file=sys.stderr)
    if problems:
        return 1
    if answer is None or unknown:
        return 2
    print(f"nothing is known against {len(answer)} packages; {len(accepted)} findings are accepted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
