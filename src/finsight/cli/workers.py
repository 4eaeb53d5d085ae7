"""The command that runs the service's jobs."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from finsight.command import PATH, edge, stop_signal


@click.command()
@click.option("--bundle", type=PATH, default=Path("models/bundle"), show_default=True, help="What scorings predict with.")
@click.option(
    "--health",
    type=click.Choice(["live", "ready"]),
    help="Start none; end with 0 if this clone's workers on this host live, or are ready (Redis answers too), else with 1.",
)
@edge
def worker(bundle: Path, health: str | None) -> None:
    """Run jobs of the service in this clone, one at a time, from the Redis that FINSIGHT_REDIS_URL names.

    SIGTERM or Ctrl-C gives the job that runs back, which goes on with another worker.
    """
    from finsight.bootstrap import service
    from finsight.bootstrap.health import sign_of_life, workers_health
    from finsight.bootstrap.observed import worker_metrics

    if health:
        click.echo(workers_health(health == "ready"))
        return
    from finsight import logs, tracing
    from finsight.service.worker import Worker
    from finsight.settings import load_settings

    logs.begin("finsight-worker", load_settings())
    log = logging.getLogger("finsight.worker")

    def say(line: str) -> None:
        words = line.removeprefix("warning: ")
        log.log(logging.INFO if words == line else logging.WARNING, "%s", words)

    jobs = service.repository_jobs(bundle)
    with tracing.running("worker"), service.job_queue() as queue, stop_signal() as stop, sign_of_life(stop) as stop:
        working = Worker(queue, jobs.work, service.gpus(), say)
        with worker_metrics(working.meters.registry, say):
            working.run(stop)


@click.command("run-experiment", hidden=True)
@click.argument("root", type=PATH)
@click.argument("folder", type=PATH)
@click.argument("name")
@click.argument("revision")
@click.argument("options", nargs=-1)
@edge
def run_experiment(root: Path, folder: Path, name: str, revision: str, options: tuple[str, ...]) -> None:
    """Run an experiment of DVC's in a copy of the clone: what a worker runs for a job, and a sweep."""
    from finsight.bootstrap.sweep import run_experiment

    run_experiment(root, folder, name, revision, options)


@click.command("score-object", hidden=True)
@click.argument("words", nargs=6, metavar="TENANT INPUT COLUMN RESULT BUNDLE DIGEST")
@edge
def score_object(words: tuple[str, str, str, str, str, str]) -> None:
    """Score an object of the service's storage: what a worker runs for a job."""
    from finsight.bootstrap.scoring import score_object

    found = score_object(*words)
    click.echo(f"{found.rows} rows, {found.before} of them by an earlier run, {found.without_text} without a text" if found else "kept")
