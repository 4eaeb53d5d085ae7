"""The house: what a stage depends on stands in dvc.yaml, scripts stay thin, help comes fast, nothing names a pickle."""

import ast
import re
import resource
import subprocess
import sys

import grimp
import pytest
from ruamel.yaml import YAML

from conftest import REPO, STAGES

PIPELINE = YAML(typ="safe").load((REPO / "dvc.yaml").read_text())
# The adapters that shape a stage's output, beside the use case itself.
SHAPING = {
    "ingest": ["finsight.adapters.table_corpus", "finsight.adapters.phrasebank_corpus", "finsight.adapters.fiqa_corpus"],
    "evaluate": ["finsight.adapters.torch_classifier"],
    "export": ["finsight.adapters.torch_classifier", "finsight.adapters.bundle_classifier", "finsight.adapters.cold_start"],
}
# What a stage reads of the project's own files beside its code.
FILES = {"report": {"src/finsight/pipeline/templates"}}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("finsight", exclude_type_checking_imports=True, cache_dir=None)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_import_closure_of_the_use_case(stage: str, imports: grimp.ImportGraph) -> None:
    roots = [f"finsight.pipeline.{stage}", *SHAPING.get(stage, [])]
    modules = {m for root in roots for m in {root, *imports.find_upstream_modules(root)}}
    files = {f"src/{m.replace('.', '/')}.py" for m in modules} | {f"stages/{stage}.py"}
    listed = {d for d in PIPELINE["stages"][stage]["deps"] if d.startswith(("src/", "stages/"))}
    assert sorted(listed) == sorted(files | FILES.get(stage, set()))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_watches_the_parameters_that_its_script_reads(stage: str) -> None:
    text = (REPO / "stages" / f"{stage}.py").read_text()
    read = {m.rstrip("_") for m in re.findall(r"params\.(\w+)", text)}
    watched = {p.split(".")[0] for p in PIPELINE["stages"][stage]["params"]}
    assert read <= watched


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_script_is_thin(stage: str) -> None:
    text = (REPO / "stages" / f"{stage}.py").read_text()
    tree = ast.parse(text)
    assert 20 <= text.count("\n") <= 50
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    assert [f.name for f in functions] == ["main"]
    assert not [n for n in ast.walk(tree) if isinstance(n, (ast.While, ast.Try, ast.ClassDef))]
    imported = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert imported <= {"finsight", "pathlib"}


@pytest.mark.parametrize("command", [*(f"stages/{s}.py" for s in STAGES), "-mfinsight.cli"])
def test_help_answers_in_well_under_a_second(command: str) -> None:
    # Processor time, since the machines are shared.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, command, "--help"], cwd=REPO, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_nothing_pickled_is_loaded() -> None:
    for path in [*(REPO / "src").rglob("*.py"), *(REPO / "stages").rglob("*.py")]:
        text = path.read_text()
        for word in ("import pickle", "cloudpickle", "joblib", "torch.load(", "allow_pickle=True", "trust_remote_code=True"):
            assert word not in text, f"{path}: {word}"


def test_the_makefile_lists_its_targets() -> None:
    done = subprocess.run(["make"], cwd=REPO, capture_output=True, text=True, check=True)
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    wanted = "setup repro test test-all lint docs audit secret-scan export diff storage push pull mlflow ui serve bench clean"
    assert set(wanted.split()) <= listed


def test_every_pin_is_exact() -> None:
    lines = [line for line in (REPO / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in line and "+" not in line for line in lines)
    assert "torch==2.13.0" in lines


def test_no_parameter_has_a_name_that_dvc_leaves_out() -> None:
    """The key of DVC's run cache leaves out sizes of files, by name and wherever they stand: `size: 1` and `size: 2` would be one run."""
    text = (REPO / "params.yaml").read_text()
    assert not re.findall(r"^\s*(?:size|nfiles):", text, re.MULTILINE)


@pytest.mark.parametrize("stage", STAGES)
def test_each_file_that_a_command_reads_is_a_dependency(stage: str) -> None:
    """Or DVC would not run the stage again when the file changes."""
    declared = PIPELINE["stages"][stage]
    named = {word for word in declared["cmd"].split() if word.startswith(("data/", "models/", "reports/"))}
    outs = {next(iter(out)) if isinstance(out, dict) else out for out in declared["outs"]}
    known = {*declared["deps"], *outs}
    missing = {name for name in named if not any(name == other or name.startswith(f"{other}/") for other in known)}
    missing -= {name for name in missing if any(out.startswith(f"{name}/") for out in outs)}  # a folder that it writes into
    # register gathers what other stages wrote; it always runs.
    assert missing == set() or declared.get("always_changed")
