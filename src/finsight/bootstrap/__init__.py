"""The only place that chooses adapters: parameters and settings in, ports out. Adapters are imported when they are asked for."""

from finsight.bootstrap.pipeline import (
    backbone,
    bundle_classifier,
    checkpoint_classifier,
    licences,
    load_params,
    reader,
    readers,
    registry,
    runtimes,
    scratch,
    student,
    teacher,
    token_cache,
    tracked,
    tracker,
)
from finsight.bootstrap.provenance import author, desk, facts, names_version, reproduce, statement, verified, verified_version
from finsight.bootstrap.search import tune
from finsight.bootstrap.signing import signer
from finsight.bootstrap.versions import bundle_folder, judge, model_version, registered, side, unneeded, version_side
from finsight.params.file import Params, flatten

__all__ = [
    "Params",
    "author",
    "backbone",
    "bundle_classifier",
    "bundle_folder",
    "checkpoint_classifier",
    "desk",
    "facts",
    "flatten",
    "judge",
    "licences",
    "load_params",
    "model_version",
    "names_version",
    "reader",
    "readers",
    "registered",
    "registry",
    "reproduce",
    "runtimes",
    "scratch",
    "side",
    "signer",
    "statement",
    "student",
    "teacher",
    "token_cache",
    "tracked",
    "tracker",
    "tune",
    "unneeded",
    "verified",
    "verified_version",
    "version_side",
]
