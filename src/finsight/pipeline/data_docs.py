"""Checks as Great Expectations suites, and their outcome as HTML for people."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.data_context import AbstractDataContext

from finsight.pipeline.checks import Check


def open_docs(folder: Path) -> AbstractDataContext:
    """A context in memory, whose runs add their pages to ``folder``."""
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    context.add_data_docs_site(
        site_name="docs",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())},
        },
    )
    return context


def run_suite(context: AbstractDataContext, name: str, checks: Sequence[Check]) -> list[bool]:
    """Whether each check holds: a suite over a frame of one row, which has a column for each measure."""
    frame = pd.DataFrame([{check.measure: check.value for check in checks}])
    batch = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=[expectation(check) for check in checks]))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[definition],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["docs"])],
        result_format={"result_format": "COMPLETE"},
    )
    run = gx.RunIdentifier(run_name=name, run_time=datetime.now(UTC))
    result = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame}, run_id=run)
    held = {r.expectation_config.kwargs["column"]: bool(r.success) for page in result.run_results.values() for r in page.results}
    return [held[check.measure] for check in checks]


def expectation(check: Check) -> gxe.Expectation:
    """A check as Great Expectations has it; ``description`` is what its pages show, ``notes`` the bare sentence."""
    shown = f"{check.sentence} ({check.severity})" + (f": {check.found}" if check.found else "")
    about = {"severity": check.severity, "notes": check.sentence, "description": shown.replace("$", "$$")}  # it is a string.Template
    if check.one_of:
        return gxe.ExpectColumnDistinctValuesToBeInSet(column=check.measure, value_set=list(check.one_of), **about)
    return gxe.ExpectColumnMaxToBeBetween(column=check.measure, min_value=check.low, max_value=check.high, **about)
