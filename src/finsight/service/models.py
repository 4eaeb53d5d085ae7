"""The versions of the registry over REST: what they are, what is said of them, which one an alias points to."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import HTMLResponse, Response

from finsight.bootstrap import released as core
from finsight.domain.access import Principal
from finsight.errors import DataError
from finsight.pipeline.models import find
from finsight.pipeline.run_record import DIRTY_TAG, LICENCE_TAG, SIGNATURE_TAG, archived
from finsight.ports import ModelVersion
from finsight.service.access import may
from finsight.service.model_schemas import AuditLine, GateProblem, Metrics, Moved, Promotion, Rollback, Version, VersionDetails, VersionPage
from finsight.service.paging import Limit, page, page_cursor
from finsight.service.problems import Problem, ProblemDocument
from finsight.service.schemas import VersionName

router = APIRouter(prefix="/models", tags=["models"])
# The page has styles and drawings of its own, and whoever may write to the tracker could have changed it: nothing in it runs.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)
_METRIC = "test_"


@router.get("", dependencies=[may("models.read")])
def list_models(
    limit: Limit = 20,
    cursor: Annotated[str | None, page_cursor(12)] = None,
    archived_too: Annotated[bool, Query(description="Whether versions that were put away are listed too.", examples=[False])] = False,
) -> VersionPage:
    """List the versions of the model, newest first."""
    found = [one for one in reversed(core.versions()) if archived_too or not archived(one)]
    shown, following = page(found, lambda one: (one.number,), limit, cursor)
    return VersionPage(items=[version(one) for one in shown], next=following)


@router.get("/{version}", dependencies=[may("models.read")], responses={404: {"model": ProblemDocument}})
def show_model(version: VersionName) -> VersionDetails:
    """Show a version, and what was done to it."""
    found = find(core.versions(), version)
    log = [line for line in core.audit_log() if str(found.number) in (line.get("from"), line.get("to"))]
    blank = dict.fromkeys(("when", "who", "action", "alias", "from", "to", "why"), "")
    return VersionDetails(**_about(found), log=[AuditLine.model_validate(blank | dict(line)) for line in log])


@router.post("/{version}/promote", responses={404: {"model": ProblemDocument}, 409: {"model": GateProblem}})
def promote_model(
    request: Request, version: VersionName, asked: Promotion, principal: Annotated[Principal, may("models.promote")]
) -> Moved:
    """Let an alias point to a version that passes the gates of params.yaml against the one that holds it now."""
    with request.app.state.parts.slots.one():
        versions = core.versions()
        found, before = find(versions, version), _holder(versions, asked.alias)
        if archived(found):
            raise Problem(409, f"version {found.number} is archived; it has to be brought back before", "archived")
        try:
            message = core.promote(str(found.number), asked.alias, principal.subject, asked.why, asked.force)
        except core.PromotionError as error:
            raise Problem(409, str(error), "gates", more={"failures": error.failures}) from None
    request.app.state.parts.promoted()
    return Moved(alias=asked.alias, version=found.number, before=before, message=message)


@router.post("/rollback", responses={409: {"model": ProblemDocument}})
def rollback_model(request: Request, asked: Rollback, principal: Annotated[Principal, may("models.rollback")]) -> Moved:
    """Let an alias point to the version that it pointed to before."""
    before = _holder(core.versions(), asked.alias)
    try:
        message = core.rollback(asked.alias, principal.subject, asked.why)
    except DataError as error:
        raise Problem(409, str(error), "no-version-before") from None
    now = _holder(core.versions(), asked.alias)
    if now is None:
        raise Problem(409, f"{asked.alias}: somebody took it away meanwhile", "changed-meanwhile")
    request.app.state.parts.promoted()
    return Moved(alias=asked.alias, version=now, before=before, message=message)


@router.get(
    "/{version}/report",
    dependencies=[may("models.read")],
    response_class=HTMLResponse,
    responses={
        200: {
            "description": "The report of the version, as a page or, where JSON is preferred, its metrics.",
            "content": {
                "text/html": {"schema": {"type": "string"}, "example": "<!doctype html><title>finsight: evaluation report</title>…"},
                "application/json": {"schema": Metrics.model_json_schema()},
            },
        },
        404: {"model": ProblemDocument},
    },
)
def show_report(
    version: VersionName, accept: Annotated[str, Header(description="`text/html`, or `application/json`.", examples=["text/html"])] = "*/*"
) -> Response:
    """Show the evaluation report of a version: a page without scripts, or its metrics as JSON."""
    found = find(core.versions(), version)
    if _prefers_json(accept):
        return Response(core.report(found, "metrics.json"), media_type="application/json", headers={"Vary": "Accept"})
    return report_page(found)


@router.get(
    "/{version}/card",
    dependencies=[may("models.read")],
    response_class=Response,
    responses={
        200: {
            "description": "The model card, in the format of the Hugging Face hub.",
            "content": {"text/markdown": {"schema": {"type": "string"}, "example": "---\nlicense: mit\n---\n\n# finsight\n"}},
        },
        404: {"model": ProblemDocument},
    },
)
def show_card(version: VersionName) -> Response:
    """Show the model card of a version, in Markdown."""
    found = find(core.versions(), version)
    return Response(core.report(found, "model_card.md"), media_type="text/markdown; charset=utf-8")


def report_page(found: ModelVersion) -> HTMLResponse:
    """The report of a version as a page."""
    headers = {"Content-Security-Policy": REPORT_POLICY, "Vary": "Accept"}
    return HTMLResponse(core.report(found, "report.html"), headers=headers)


def version(found: ModelVersion) -> Version:
    """What is shown of a version."""
    return Version(**_about(found))


def _about(version: ModelVersion) -> dict[str, Any]:
    tags = dict(version.tags)
    forbidden, dirty = tags.get(LICENCE_TAG), tags.get(DIRTY_TAG)
    numbers = {key.removeprefix(_METRIC): _number(value) for key, value in tags.items() if key.startswith(_METRIC)}
    return {
        "version": version.number,
        "aliases": sorted(version.aliases),
        "created": version.created,
        "archived": archived(version),
        "description": version.description,
        "metrics": {key: value for key, value in numbers.items() if value is not None},
        "commercial_use": None if forbidden is None else forbidden == "no",
        "forbidden_by": None if forbidden in (None, "no") else forbidden,
        "signature": tags.get(SIGNATURE_TAG, "none"),
        "commit": tags.get("git.commit"),
        "clean": None if dirty is None else dirty == "false",
        "bundle": version.bundle_digest,
        "run": version.run,
        "tags": dict(sorted(tags.items())),
    }


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # anybody who may tag a version can write there what they like
        return None


def _holder(versions: list[ModelVersion], alias: str) -> int | None:
    return next((one.number for one in versions if alias in one.aliases), None)


def _prefers_json(accept: str) -> bool:
    """Whether an Accept header names JSON, and HTML not, or later, or with less weight."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, _, options = part.partition(";")
        weight = options.strip().removeprefix("q=") if options.strip().startswith("q=") else "1"
        weights.setdefault(kind.strip(), _number(weight) or 0.0)
    return weights.get("application/json", 0.0) > weights.get("text/html", 0.0)
