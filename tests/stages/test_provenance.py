"""The statement beside a bundle, from `register` to `finsight verify`: what it says, and that nothing of it can be changed unseen."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from conftest import Project
from finsight.adapters.signer import Key, ModelSigner
from finsight.bundle import bundle_digest, read_bundle
from finsight.errors import ArtifactError
from finsight.files import sha256
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
    assert entries["corpus starter"]["annotations"] == {"license": "CC0-1.0", "rows": 240}
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


def test_registering_again_keeps_the_signature(project: Project) -> None:
    files = sorted((project.root / "models/provenance").iterdir())
    before = [path.read_bytes() for path in files]
    project.run("register")
    assert [path.read_bytes() for path in files] == before
    shutil.rmtree(project.root / "models/provenance")
    project.run("register")  # the run has it
    assert [path.read_bytes() for path in files] == before
