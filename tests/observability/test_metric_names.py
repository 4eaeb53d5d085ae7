"""Every metric is in the table of docs/observability.md, and nothing else is; names and units are those of Prometheus."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.core import Metric

from conftest import REPO
from finsight.adapters.machine_use import MachineUse
from finsight.adapters.stage_metrics import TextFiles, measured
from finsight.adapters.stage_report import numbers
from finsight.service.meters import Meters
from finsight.service.queue_watch import QueueWatch
from finsight.service.worker_meters import WorkerMeters
from memory_queue import MemoryQueue

SERVICE, WORKER = "service", "worker"
REPORTS = {"validate": "validation", "evaluate": "metrics", "register": "registration"}


def of_stages(folder: Path) -> dict[str, str]:
    from prometheus_client.parser import text_string_to_metric_families

    with measured("report", None, [TextFiles(folder)], []):
        pass
    text = (folder / "report.prom").read_text()
    return {_shown(family): "stage" for family in text_string_to_metric_families(text)}


def of_reports(folder: Path) -> dict[str, str]:
    (folder / "registration.json").write_text(json.dumps({"version": 3}))
    found = {}
    for stage in ("ingest", "validate", "prepare", "train", "evaluate", "export", "register"):
        name = f"{REPORTS.get(stage, stage)}.json"
        path = folder / name if stage == "register" else REPO / "reports" / name
        found |= {_shown(family): stage for family in numbers(stage, path)}
    return found


@pytest.fixture
def counted(tmp_path: Path) -> dict[str, str]:
    """Every metric as it is shown, and who shows it."""
    both = [*MachineUse({}).collect()]
    meters, workers = Meters().registry.collect(), WorkerMeters().registry.collect()
    queue = QueueWatch(MemoryQueue()).collect()  # type: ignore[arg-type]
    return {
        **{_shown(family): SERVICE for family in (*meters, *queue)},
        **{_shown(family): WORKER for family in workers},
        **{_shown(family): f"{SERVICE}, {WORKER}" for family in both},
        **of_stages(tmp_path),
        **of_reports(tmp_path),
    }


def _shown(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_the_table_is_what_is_counted(counted: dict[str, str]) -> None:
    text = (REPO / "docs/observability.md").read_text()
    listed = dict(re.findall(r"^\| `(finsight_\w+)` \| ([^|]+?) \|", text, re.MULTILINE))
    assert listed == {name: who for name, who in counted.items() if name.startswith("finsight_")}


def test_names_and_units_are_those_of_prometheus(counted: dict[str, str]) -> None:
    for name in counted:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|percent)(_|$)", name), f"{name}: no base unit"
