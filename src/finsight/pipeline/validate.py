"""Validate: a Great Expectations suite over the raw corpus, as JSON for machines and as Data Docs for people."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context import AbstractDataContext

from finsight.errors import DataError
from finsight.files import atomic_folder, write_json
from finsight.params.validate import ValidateParams
from finsight.pipeline.tables import read_table

NAMED = 3  # rows that a message names


def validate(corpus: Path, labels: Sequence[str], params: ValidateParams, report: Path, docs: Path) -> dict[str, Any]:
    """Check ``corpus`` against the suite; write ``report`` and ``docs``, whatever the outcome.

    :raises DataError: when a critical expectation fails, with the rows named.
    """
    rows = read_table(corpus).to_pandas()
    rows["repeat"] = rows.duplicated(["corpus", "text"])
    rows["conflict"] = rows.groupby("text")["label"].transform("nunique") > 1
    counts = rows["label"].value_counts().reindex(list(labels), fill_value=0)
    by_label = pd.DataFrame({"id": list(labels), "rows": counts.to_numpy(), "share": counts.to_numpy() / max(1, len(rows))})
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    with atomic_folder(docs) as partial:
        _add_docs_site(context, partial.resolve())
        results = [
            *_run(context, "rows of the corpus", rows, row_suite(labels, params)),
            *_run(context, "labels of the corpus", by_label, label_suite(params)),
        ]
    failed = [r for r in results if not r.success]
    content = {
        "rows": len(rows),
        "critical": sum(_severity(r) == "critical" for r in failed),
        "warning": sum(_severity(r) == "warning" for r in failed),
        "repeated": int(rows["repeat"].sum()),
        "conflicting": int(rows["conflict"].sum()),
        "labels": {label: int(n) for label, n in counts.items()},
        "expectations": {_name(r): "ok" if r.success else f"{_severity(r)}: {_found(r)}" for r in results},
    }
    write_json(report, content)
    if critical := [r for r in failed if _severity(r) == "critical"]:
        what = "; ".join(f"{_name(r)}: {_found(r)}" for r in critical)
        raise DataError(f"{corpus}: {what}; correct the rows or the limits under validate in params.yaml, see {docs}/index.html")
    return content


def row_suite(labels: Sequence[str], params: ValidateParams) -> list[gxe.Expectation]:
    """What each row must be; ``notes`` is the sentence that a reader of the Data Docs sees."""
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=params.min_rows, severity="critical", notes="there are enough rows"),
        gxe.ExpectColumnValuesToBeUnique(column="id", severity="critical", notes="each row has its own id"),
        gxe.ExpectColumnValuesToNotBeNull(column="text", severity="critical", notes="each row has a text"),
        gxe.ExpectColumnValueLengthsToBeBetween(
            column="text",
            min_value=1,
            max_value=params.max_characters,
            severity="critical",
            notes=f"no text is longer than {params.max_characters} characters",
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=list(labels), severity="critical", notes=f"each label is one of {', '.join(labels)}"
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="repeat",
            value_set=[False],
            mostly=1 - params.max_duplicate_share,
            severity="warning",
            notes=f"at most {params.max_duplicate_share:.0%} of the texts stand earlier in their corpus",
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="conflict",
            value_set=[False],
            mostly=1 - params.max_conflicting_share,
            severity="warning",
            notes=f"at most {params.max_conflicting_share:.0%} of the texts also stand with another label",
        ),
    ]


def label_suite(params: ValidateParams) -> list[gxe.Expectation]:
    """What each label's count must be."""
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="rows",
            min_value=params.min_rows_per_label,
            severity="critical",
            notes=f"each label has at least {params.min_rows_per_label} rows",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="share",
            max_value=params.max_label_share,
            severity="warning",
            notes=f"no label has more than {params.max_label_share:.0%} of the rows",
        ),
    ]


def _add_docs_site(context: AbstractDataContext, folder: Path) -> None:
    context.add_data_docs_site(
        site_name="docs",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        },
    )


def _run(
    context: AbstractDataContext, name: str, rows: pd.DataFrame, expectations: list[gxe.Expectation]
) -> list[ExpectationValidationResult]:
    """Run one suite over a frame whose column ``id`` names its rows, and add its page to the Data Docs."""
    batch = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[definition],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["docs"])],
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]},
    )
    run = gx.RunIdentifier(run_name=name, run_time=datetime.now(UTC))
    result = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": rows}, run_id=run)
    return [r for suite_result in result.run_results.values() for r in suite_result.results]


def _severity(result: ExpectationValidationResult) -> str:
    return str(result.expectation_config.severity.value)


def _name(result: ExpectationValidationResult) -> str:
    return str(result.expectation_config.notes)


def _found(result: ExpectationValidationResult) -> str:
    """What was found instead, with the first rows."""
    if "unexpected_count" not in result.result:
        return f"got {result.result.get('observed_value')}"
    ids = [str(row["id"]) for row in result.result.get("unexpected_index_list") or []]
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"{result.result['unexpected_count']} of {result.result['element_count']} differ ({', '.join(ids[:NAMED])}{more})"
