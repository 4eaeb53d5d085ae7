"""The statement beside a bundle, from `register` to `finsight verify`: what it says, and that nothing of it can be changed unseen."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from conftest import REPO, Project
from finsight.adapters.signer import Key, ModelSigner
from finsight.bundle import bundle_digest, read_bundle
from finsight.errors import ArtifactError
from finsight.files import sha256, write_json
from finsight.pipeline.evidence import INPUTS, REPORTS
from finsight.pipeline.provenance import read_statement, resolved, verify


@pytest.fixture
def project(finished: Project, copy_of: Callable[[Project], Project]) -> Project:
    return copy_of(finished)


def statement(project: Project) -> dict[str, Any]:
    return read_statement(project.root / "models/provenance")


def write_key(path: Path) -> Path:
    encoding, form, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(encoding, form, plain))
    return path


def test_the_statement_says_where_the_bundle_came_from(finished: Project) -> None:
    content = statement(finished)
    bundle = finished.root / "models/bundle"
    assert content["subject"] == [{"name": "bundle", "digest": {"sha256": bundle_digest(bundle)}}]
    assert (content["_type"], content["predicateType"]) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    predicate = content["predicate"]
    assert predicate["buildDefinition"]["externalParameters"]["params"]["train"]["lr"] == 0.01
    environment = predicate["buildDefinition"]["internalParameters"]["environment"]
    assert {"torch", "onnx", "dvc"} <= environment["packages"].keys()
    assert predicate["runDetails"]["metadata"]["invocationId"] == finished.json("registration.json")["run"]
    files = {file["name"]: file["digest"]["sha256"] for file in predicate["runDetails"]["byproducts"]}
    assert files["reports/metrics.json"] == sha256(finished.root / "reports/metrics.json")
    assert {"inputs/params.yaml", "reports/report.html", "reports/predictions.parquet", "reports/plots/curves.csv"} <= files.keys()
    entries = resolved(content)
    assert entries["corpora"]["annotations"] == {"starter": {"license": "CC0-1.0", "rows": 240}}
    assert entries[f"backbone {finished.backbone}"]["digest"]["sha256"] == read_bundle(bundle).backbone_sha256
    assert predicate["finsight_metrics"] == read_bundle(bundle).metrics
    assert predicate["finsight_signer"]["development"] is True


def test_what_was_made_outside_git_can_t_be_reproduced(finished: Project) -> None:
    error = finished.cli("reproduce", "1", ok=False)
    assert "version 1 can't be reproduced: it was made outside a git checkout" in error


def test_lineage_is_a_chain(finished: Project) -> None:
    lines = finished.cli("lineage", "champion").splitlines()
    assert lines[0] == f"bundle  sha256 {bundle_digest(finished.root / 'models/bundle')}"
    assert [line.strip().removeprefix("└ ").split("  ")[0] for line in lines[:3]] == ["bundle", "signed", "run"]
    assert any("corpus starter" in line and "240 rows, CC0-1.0" in line for line in lines)
    assert json.loads(finished.cli("lineage", "--json")) == json.loads(finished.cli("lineage", "1", "--json")) == statement(finished)


def test_verify_by_path_by_number_and_by_alias(finished: Project) -> None:
    by_path = finished.cli("verify")
    assert "match bundle.json" in by_path
    assert "signed with this clone's development key" in by_path
    for name in ("1", "champion"):
        assert "reports and inputs are what the statement says" in finished.cli("verify", name)
    assert "no such version" in finished.cli("verify", "challenger", ok=False)
    assert "no bundle there" in finished.cli("verify", "models/nothing", ok=False)


def test_a_bundle_without_provenance_says_so(project: Project) -> None:
    shutil.copytree(project.root / "models/bundle", project.root / "elsewhere/bundle")
    assert "no provenance beside it" in project.cli("verify", "elsewhere/bundle")


def flips(path: Path, n: int) -> Iterator[bytes]:
    """The file with one byte changed, at n places spread over it."""
    content = path.read_bytes()
    for i in sorted({i * (len(content) - 1) // max(n - 1, 1) for i in range(n)}):
        yield content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :]


@pytest.fixture
def signer(project: Project) -> ModelSigner:
    return ModelSigner(Key((project.root / ".signing/development.pem").read_bytes(), development=True))


def test_one_flipped_byte_of_any_file_is_refused(project: Project, signer: ModelSigner) -> None:
    bundle, folder = project.root / "models/bundle", project.root / "models/provenance"
    verify(bundle, folder, signer)
    with pytest.raises(ArtifactError, match="no such file"):
        verify(bundle, project.root, signer)
    files = [path for base in (bundle, folder) for path in sorted(base.iterdir())]
    assert len(files) == 8
    for path in files:
        kept = path.read_bytes()
        for changed in flips(path, 40 if path.parent == folder else 5):
            path.write_bytes(changed)
            with pytest.raises(ArtifactError):
                verify(bundle, folder, signer)
        path.write_bytes(kept)
    verify(bundle, folder, signer)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    yield from ((*path, key) for key, _ in items)
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def test_no_field_of_the_statement_can_be_changed_or_taken_away(project: Project, signer: ModelSigner) -> None:
    folder = project.root / "models/provenance"
    path = folder / "statement.json"
    content = json.loads(path.read_text())
    shown = [where for where in leaves(content) if "packages" not in where[:-1] and "byproducts" not in where[:-2]]
    assert len(shown) > 150
    for where in shown:
        for change in ("another", None):
            copy = json.loads(json.dumps(content))
            parent = copy
            for key in where[:-1]:
                parent = parent[key]
            if change is None:
                del parent[where[-1]]
            else:
                parent[where[-1]] = change
            path.write_text(json.dumps(copy, indent=2, ensure_ascii=False) + "\n")
            with pytest.raises(ArtifactError):
                verify(project.root / "models/bundle", folder, signer)


def test_a_tampered_report_of_a_version_is_found(project: Project) -> None:
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/new.db"  # the copied one names the files of the original
    project.run("register")
    run = project.json("registration.json")["run"]
    (kept,) = project.root.rglob(f"{run}/artifacts/reports/metrics.json")
    kept.write_text(kept.read_text().replace("0.", "0.9", 1))
    assert "reports/metrics.json: SHA-256 is" in project.cli("verify", "1", ok=False)


def test_a_given_key_signs_for_release(project: Project) -> None:
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/new.db"  # the copied one names the files of the original
    project.run("register")
    key = write_key(project.root / "key.pem")
    project.env["FINSIGHT_SIGNING_KEY"] = str(key)
    project.run("register")
    assert "signed with a trusted key" in project.cli("verify")
    assert statement(project)["predicate"]["finsight_signer"]["development"] is False
    del project.env["FINSIGHT_SIGNING_KEY"]
    error = project.cli("verify", ok=False)
    assert "which is not trusted here" in error
    shutil.copy(project.root / "models/provenance/key.pub", project.root / "theirs.pub")
    project.env["FINSIGHT_TRUSTED_KEYS"] = f"{project.root / 'theirs.pub'}{os.pathsep}"
    assert "signed with a trusted key" in project.cli("verify")


@pytest.mark.parametrize("command", [("predict", "Sales rose."), ("explain", "Sales rose.")])
def test_what_is_not_signed_as_asked_is_not_used(project: Project, command: tuple[str, str]) -> None:
    project.env["FINSIGHT_REQUIRE_SIGNATURE"] = "any"
    project.cli(*command)
    project.env["FINSIGHT_REQUIRE_SIGNATURE"] = "release"
    assert "signed with a development key, and FINSIGHT_REQUIRE_SIGNATURE is release" in project.cli(*command, ok=False)
    shutil.rmtree(project.root / "models/provenance")
    project.env["FINSIGHT_REQUIRE_SIGNATURE"] = "any"
    assert "provenance/statement.json: no such file" in project.cli(*command, ok=False)
    project.env["FINSIGHT_REQUIRE_SIGNATURE"] = "off"
    project.cli(*command)
    project.env["FINSIGHT_REQUIRE_SIGNATURE"] = "maybe"
    assert "FINSIGHT_REQUIRE_SIGNATURE: got 'maybe'" in project.cli(*command, ok=False)


def test_a_development_key_that_says_it_is_none_is_not_taken_for_release(project: Project, signer: ModelSigner) -> None:
    folder, bundle = project.root / "models/provenance", project.root / "models/bundle"
    content = statement(project)
    content["predicate"]["finsight_signer"]["development"] = False
    write_json(folder / "statement.json", content)
    signer.sign(folder / "statement.json", folder / "statement.sig")
    verify(bundle, folder, signer)
    project.env["FINSIGHT_REQUIRE_SIGNATURE"] = "release"
    assert "which is not trusted here" in project.cli("predict", "Sales rose.", ok=False)


def test_a_missing_public_key_is_written_again(project: Project) -> None:
    (project.root / "models/provenance/key.pub").unlink()
    assert "key.pub: no such file" in project.cli("verify", ok=False)
    project.run("register")
    project.cli("verify")


def test_params_that_are_no_longer_those_of_the_model_are_not_signed(project: Project) -> None:
    lock = "schema: '2.0'\nstages:\n  train:\n    cmd: x\n    params:\n      params.yaml:\n        train:\n          lr: 0.02\n"
    (project.root / "dvc.lock").write_text(lock)
    assert "params.yaml: train.lr is 0.01, the model was made with 0.02 (dvc.lock)" in project.fail("register")
    (project.root / "dvc.lock").write_text(lock.replace("0.02", "1.0e-2"))
    project.run("register")


@pytest.mark.long
@pytest.mark.parametrize("call", range(6))
def test_a_statement_that_takes_the_place_of_another_is_sent_whole_or_again(project: Project, call: int) -> None:
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/new.db"
    project.run("register")
    project.env["FINSIGHT_SIGNING_KEY"] = str(write_key(project.root / "key.pem"))
    # What the statement names goes first, a call a file; then its own four.
    there = [project.root / "reports" / name for name in REPORTS] + [project.root / name for name in INPUTS]
    target, number = "mlflow:MlflowClient.log_artifact", sum(path.is_file() for path in there) + call
    if call == 0:
        number = 3
    if call == 5:
        target, number = "mlflow:MlflowClient.set_model_version_tag", 4
    command = [sys.executable, str(REPO / "tests/kill.py"), target, str(number), *project.command("register")[1:]]
    killed = subprocess.run(command, cwd=project.root, env={**os.environ, **project.env}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    project.run("register")
    assert "signed with a trusted key" in project.cli("verify", "champion")
    assert json.loads(project.cli("models", "show", "1", "--json"))["signature"] == "release"


@pytest.mark.long
def test_a_statement_that_takes_the_place_of_another_names_what_the_run_has(project: Project) -> None:
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/new.db"
    project.run("register")
    # DVC writes the entry of register itself once register has ended.
    (project.root / "dvc.lock").write_text("schema: '2.0'\nstages:\n  register:\n    cmd: x\n")
    project.env["FINSIGHT_SIGNING_KEY"] = str(write_key(project.root / "key.pem"))
    project.run("register")
    assert "signed with a trusted key" in project.cli("verify", "1")


def test_registering_again_keeps_the_signature(project: Project) -> None:
    files = sorted((project.root / "models/provenance").iterdir())
    before = [path.read_bytes() for path in files]
    project.run("register")
    assert [path.read_bytes() for path in files] == before
    shutil.rmtree(project.root / "models/provenance")
    project.run("register")  # the run has it
    assert [path.read_bytes() for path in files] == before


def test_nothing_is_served_that_is_not_signed_as_asked(project: Project) -> None:
    project.env["FINSIGHT_REQUIRE_SIGNATURE"] = "release"
    assert "signed with a development key" in project.cli("serve", "--port", "1", ok=False)
    assert "signed with a development key" in project.cli("score", "data/starter/rows.csv", "out.jsonl", ok=False)
    assert not (project.root / "out.jsonl").exists()
