"""The ``finsight`` command. Heavy imports stand inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

from pathlib import Path

import click

from finsight import __version__
from finsight.cli.audit import audit
from finsight.cli.backups import backup, restore
from finsight.cli.corpora import backbone, corpus, shards
from finsight.cli.doctor import doctor
from finsight.cli.evaluation import compare, metrics, summary
from finsight.cli.join import join
from finsight.cli.models import explain, fastest, predict, score, serve, tune
from finsight.cli.openapi import openapi
from finsight.cli.policy import policy
from finsight.cli.profiling import PROFILE, profiled
from finsight.cli.provenance import lineage, reproduce, verify
from finsight.cli.registry import models, registry
from finsight.cli.services import gc, mlflow, pull, push, storage
from finsight.cli.sweeps import sweep
from finsight.cli.workers import run_experiment, score_object, worker


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@PROFILE
@click.pass_context
def main(context: click.Context, profile: Path | None) -> None:
    """Build, prove, export, register and serve financial-sentiment models."""
    context.with_resource(profiled(profile))


MODELS = (tune, sweep, join, predict, score, explain, fastest, serve, worker, run_experiment, score_object, openapi)
REGISTRY = (models, registry, verify, lineage, reproduce)
SERVICE = (policy, audit, backup, restore, doctor)
for command in (backbone, corpus, shards, summary, metrics, compare, *MODELS, *REGISTRY, storage, push, pull, gc, mlflow, *SERVICE):
    main.add_command(command)
