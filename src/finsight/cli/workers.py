"""The command that runs the service's jobs."""

from __future__ import annotations

from pathlib import Path

import click

from finsight.command import PATH, edge, stop_signal


@click.command()
@click.option("--bundle", type=PATH, default=Path("models/bundle"), show_default=True, help="What scorings predict with.")
@edge
def worker(bundle: Path) -> None:
    """Run jobs of the service in this clone, one at a time, from the Redis that FINSIGHT_REDIS_URL names.

    SIGTERM or Ctrl-C gives the job that runs back, which goes on with another worker.
    """
    from finsight.bootstrap import service
    from finsight.bootstrap.observed import worker_metrics
    from finsight.service.worker import Worker

    def say(line: str) -> None:
        click.echo(line, err=True)

    jobs = service.repository_jobs(bundle)
    with service.job_queue() as queue, stop_signal() as stop:
        working = Worker(queue, jobs.work, service.gpus(), say)
        with worker_metrics(working.meters.registry, say):
            working.run(stop)


@click.command("score-object", hidden=True)
@click.argument("words", nargs=6, metavar="TENANT INPUT COLUMN RESULT BUNDLE DIGEST")
@edge
def score_object(words: tuple[str, str, str, str, str, str]) -> None:
    """Score an object of the service's storage: what a worker runs for a job."""
    from finsight.bootstrap.scoring import score_object

    found = score_object(*words)
    click.echo(f"{found.rows} rows, {found.before} of them by an earlier run, {found.without_text} without a text" if found else "kept")
