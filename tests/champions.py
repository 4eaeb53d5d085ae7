"""A champion that changes while requests come in."""

import shutil
import threading
import time
from dataclasses import replace

import httpx

from conftest import Project
from finsight.adapters.mlflow_registry import MlflowRegistry
from finsight.adapters.mlflow_tracker import MlflowTracker
from finsight.bundle import bundle_digest, read_bundle, write_manifest
from finsight.pipeline.run_record import BUNDLE_ARTIFACT
from serving import HEADERS, TEXTS

CHAMPION = "models:/finsight@champion"


class Asking:
    """Clients that ask all the time; ``answers`` has each status and bundle."""

    def __init__(self, url: httpx.URL) -> None:
        self.url, self.answers, self._ends = url, [], threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(4)]

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self.url, headers=HEADERS, timeout=30) as client:
            while not self._ends.is_set():
                answer = client.post("/v1/predict", json={"texts": [f"{TEXTS[0]} {number} {time.monotonic_ns()}"]})
                self.answers.append((answer.status_code, answer.json()["model"]["bundle"]))

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()


def register(project: Project, temperature: float, damaged: bool = False, alias: str = "champion", experiment: str = "finsight") -> str:
    """Another version, with the first one's provenance and an alias; its digest."""
    uri = project.env["MLFLOW_TRACKING_URI"]
    tracker, registry = MlflowTracker(uri, experiment), MlflowRegistry(uri, "finsight")
    bundle = shutil.copytree(project.root / "models/bundle", project.root / f"made/{temperature}/bundle")
    write_manifest(bundle, replace(read_bundle(bundle), temperature=temperature))
    digest = bundle_digest(bundle)
    if damaged:
        (bundle / "tokenizer.json").write_text("{}")
    run = tracker.start(f"run {temperature}", {})
    tracker.log_files(run, sorted(bundle.iterdir()), BUNDLE_ARTIFACT)
    tracker.log_files(run, sorted((project.root / "models/provenance").iterdir()), "provenance")
    tracker.finish(run, {})
    version = registry.create(run, "model", digest, {})
    registry.set_alias(alias, version.number)
    return digest
