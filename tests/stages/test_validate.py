"""Validate: what fires, how severe it is, which rows it names, and what is written whatever the outcome."""

import csv
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest
from ruamel.yaml import YAML

from conftest import LABELS, REPO
from finsight.errors import ArtifactError, DataError
from finsight.params.file import load_params
from finsight.params.validate import ValidateParams
from finsight.pipeline.validated import approve
from raw_tables import SCHEMA, raw_row, starter_table, write_raw

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Great Expectations imports sre_constants
    from finsight.pipeline.validate import validate

PARAMS = load_params(REPO / "params.yaml").validate_.model_copy(update={"noise_sample": 0})
GERMAN = "Der Gewinn des Unternehmens ist im dritten Quartal deutlich gestiegen, Filiale"
Row = dict[str, Any]


def run(folder: Path, rows: list[Row], params: ValidateParams = PARAMS, schema: pa.Schema = SCHEMA, **kwargs: Any) -> dict[str, Any]:
    return validate(
        write_raw(folder / "corpus.parquet", rows, schema=schema, **kwargs),
        folder / "validated.json",
        LABELS,
        params,
        report=folder / "validation.json",
        docs=folder / "docs",
        profile=folder / "profile.json",
        suspects=folder / "suspects.csv",
        corrections=folder / "corrections.csv",
    )


def written(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "validation.json").read_text())
    return content


def failing(content: dict[str, Any]) -> dict[str, str]:
    return {sentence: what for sentence, what in content["expectations"].items() if not what.startswith("ok")}


def shown(folder: Path) -> str:
    """The text of every page of the Data Docs."""
    pages = [path.read_text() for path in sorted((folder / "docs").rglob("*.html"))]
    return " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", "".join(pages), flags=re.DOTALL).split())


def test_a_sound_corpus_passes_and_its_report_has_the_keys_that_dvc_compares(tmp_path: Path) -> None:
    content = run(tmp_path, starter_table())
    assert content == written(tmp_path)
    assert (content["rows"], content["critical"], content["warning"], failing(content)) == (240, 0, 0, {})
    numbers = {"rows", "repeated", "conflicting", "damaged", "foreign_share", "labels"}
    assert set(content) == numbers | {"critical", "warning", "drift", "examined", "suspects", "corpora", "expectations"}
    assert set(content["corpora"]["starter"]) == numbers | {"longest", "drift"}
    assert sum(content["labels"].values()) == 240
    said = content["expectations"]["corpus starter: this many validated versions are compared with"]
    assert said.startswith("ok, none: `finsight corpus approve`")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A corpus that has everything: where its report stands, and the line that the stage ended with."""
    rows = starter_table()
    for at, cells in {
        20: {"text": None},
        21: {"text": " "},
        22: {"hash": "abc"},
        23: {"text": "x" * 10_001},
        24: {"id": rows[30]["id"]},
        25: {"text": "Up"},
        **{i: {"label": "bullish"} for i in range(40, 44)},
        **{i: {"text": "Sales of PÃ¤rnu rose"} for i in range(50, 53)},
    }.items():
        rows[at] |= cells
    rows += [raw_row(300 + i, rows[0]["text"], rows[0]["label"]) for i in range(20)]
    rows += [raw_row(400 + i, rows[i]["text"], "neutral" if rows[i]["label"] != "neutral" else "positive") for i in range(1, 5)]
    rows += [raw_row(500 + i, f"{GERMAN} {i}", "positive") for i in range(12)]
    folder = tmp_path_factory.mktemp("broken")
    with pytest.raises(DataError) as error:
        run(folder, rows)
    return folder, str(error.value)


# Severity, the sentence that fails, what is found: the number, then the first rows by their line in the file.
CASES = [
    ("critical", "each row has a text", "got 1, 1 of 276 rows (22)"),
    ("critical", "no text is empty", "got 1, 1 of 276 rows (23)"),
    ("critical", "each row has the hash of its text, 32 hexadecimal digits", "got 1, 1 of 276 rows (24)"),
    ("critical", "no text is longer than 10000 characters", "got 10001, 1 of 276 rows (25)"),
    ("critical", "each label is one of negative, neutral, positive", "got 4, 4 of 276 rows (42, 43, 44 and 1 more)"),
    ("critical", "each row has its own id", "got 1, 1 of 276 rows (32)"),
    ("warning", "no text is shorter than 3 characters", "got 1, 1 of 276 rows (27)"),
    ("warning", "at most 5% of the texts stand earlier in their corpus", "got 0.08696, 24 of 276 rows (302, 303, 304 and 21 more)"),
    ("warning", "at most 1% of the texts also stand with another label", "got 0.02899, 8 of 276 rows (3, 4, 5 and 5 more)"),
    ("warning", "at most 1% of the texts bear marks of a wrong encoding", "got 0.01087, 3 of 276 rows (52, 53, 54)"),
    ("warning", "at most 2% of the texts are in another language than en", "12 of 251 texts looked at (502, 503, 504 and 9 more)"),
]


@pytest.mark.parametrize(("severity", "sentence", "found"), CASES, ids=[c[1] for c in CASES])
def test_each_check_fires_with_its_severity_and_names_the_rows(severity: str, sentence: str, found: str, broken: tuple[Path, str]) -> None:
    folder, line = broken
    suite = "all corpora" if "own id" in sentence else "corpus starter"
    what = failing(written(folder))[f"{suite}: {sentence}"].replace("starter/rows.csv:", "")
    assert what.startswith(f"{severity}: got ")
    assert found in what
    assert (sentence in line) == (severity == "critical")
    assert f"{sentence} ({severity}): " in shown(folder)


def test_a_critical_failure_is_one_line_and_leaves_the_report_and_the_pages_but_nothing_to_approve(broken: tuple[Path, str]) -> None:
    folder, line = broken
    assert "\n" not in line
    assert line.startswith(f"{folder}/corpus.parquet: ")
    assert line.endswith(f"; correct the rows or the limits under validate in params.yaml, see {folder}/docs/index.html")
    assert "each row has a text: got 1, 1 of 276 rows (starter/rows.csv:22)" in line
    assert {p.name for p in folder.iterdir()} == {"corpus.parquet", "validation.json", "docs", "suspects.csv"}
    assert "each row has a text (critical): 1 of 276 rows (starter/rows.csv:22)" in shown(folder)
    front = (folder / "docs/index.html").read_text()
    assert "6 critical: the pipeline stopped here." in front
    assert "<td>each row has a text</td><td class=number>1</td><td>1 of 276 rows (starter/rows.csv:22)</td>" in front
    link = re.search(r'<h2>corpus starter · <a href="([^"]+)">', front)
    assert link is not None
    assert (folder / "docs" / unquote(link[1])).is_file()
    for page in (folder / "docs").rglob("*.html"):
        assert not re.search(r"<(script|link|img)[^>]*https?:", page.read_text()), f"{page} would fetch something"
    content = written(folder)
    assert (content["critical"], content["warning"]) == (6, 5)
    assert set(failing(content)) == {f"{'all corpora' if 'own id' in c[1] else 'corpus starter'}: {c[1]}" for c in CASES}


def test_the_rarest_and_the_most_frequent_label_are_named(tmp_path: Path) -> None:
    rows = [row for row in starter_table(400) if row["label"] == "neutral"]
    rows = [*rows, *(row for row in starter_table(240) if row["label"] == "positive")][: len(rows) + 3]
    with pytest.raises(DataError, match="each label has at least 10 rows: got 0, negative has 0, positive has 3"):
        run(tmp_path, rows)
    content = written(tmp_path)
    assert content["expectations"]["corpus starter: no label has more than 80% of the rows"].endswith(", neutral")
    assert content["expectations"]["corpus starter: no label has less than 5% of the rows"].endswith(", negative")


def test_a_table_of_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    schema = pa.schema([f for f in SCHEMA if f.name not in ("date", "agreement")]).append(pa.field("agreement", pa.int64()))
    rows = [{name: row[name] for name in schema.names} for row in starter_table()]
    with pytest.raises(DataError, match="column agreement holds int16: got int64; .*column date holds string: got missing"):
        run(tmp_path, rows, schema=schema)
    assert written(tmp_path)["critical"] == 2
    with pytest.raises(DataError, match="column weight holds string: got double"):
        run(tmp_path, [{**row, "weight": 1.0} for row in starter_table()], schema=SCHEMA.append(pa.field("weight", pa.float64())))


def test_columns_that_a_corpus_keeps_are_well(tmp_path: Path) -> None:
    content = run(tmp_path, [{**row, "kind": "post"} for row in starter_table()], schema=SCHEMA.append(pa.field("kind", pa.string())))
    assert content["critical"] == 0


def test_corpora_are_judged_each_by_itself_and_together(tmp_path: Path) -> None:
    rows = [*starter_table(240, "a"), *starter_table(240, "b")]
    content = run(tmp_path, rows, row_group_size=240)
    assert (content["repeated"], content["corpora"]["a"]["repeated"], content["corpora"]["b"]["repeated"]) == (240, 0, 0)
    (sentence,) = failing(content)
    assert sentence == "all corpora: at most 5% of the texts stand earlier in this or another corpus"
    assert {s.partition(":")[0] for s in content["expectations"]} == {"columns of the corpus", "all corpora", "corpus a", "corpus b"}


def test_drift_appears_after_a_shift_and_goes_when_it_is_approved(tmp_path: Path) -> None:
    run(tmp_path, starter_table(240))
    assert approve(tmp_path / "profile.json", tmp_path / "validated.json") == ["starter"]
    same = run(tmp_path, starter_table(240))
    assert same["corpora"]["starter"]["drift"] == {"labels": 0, "lengths": 0, "words": 0}
    shifted = [
        *(row for row in starter_table(240) if row["label"] == "neutral"),
        *(raw_row(500 + i, f"Ticker ${chr(97 + i % 26)}{i} closes up {i} points on volume", LABELS[i % 3]) for i in range(200)),
    ]
    content = run(tmp_path, shifted)
    moved = content["corpora"]["starter"]["drift"]
    assert min(moved.values()) > 0
    warned = [s for s, what in failing(content).items() if what.startswith("warning: got ")]
    assert [s for s in warned if "text lengths are like those of the validated version (PSI at most 0.2)" in s]
    assert [s for s in warned if "words are like those of the validated version (Jensen-Shannon distance at most 0.1)" in s]
    assert content["critical"] == 0
    approve(tmp_path / "profile.json", tmp_path / "validated.json")
    assert run(tmp_path, shifted)["corpora"]["starter"]["drift"] == {"labels": 0, "lengths": 0, "words": 0}


def test_the_corpora_together_drift_when_one_that_nobody_approved_joins_them(tmp_path: Path) -> None:
    together = [*starter_table(240, "a"), *(raw_row(300 + i, f"Yield {i} of the note", LABELS[1], "b") for i in range(200))]
    run(tmp_path, together[:240], row_group_size=240)
    approve(tmp_path / "profile.json", tmp_path / "validated.json")
    content = run(tmp_path, together, row_group_size=240)
    assert content["corpora"]["a"]["drift"] == {"labels": 0, "lengths": 0, "words": 0}
    assert content["drift"]["labels"] > 0.1
    assert [s for s in failing(content) if s.startswith("all corpora: the label shares are like those of the validated version")]
    approve(tmp_path / "profile.json", tmp_path / "validated.json")
    assert run(tmp_path, together, row_group_size=240)["drift"] == {"labels": 0, "lengths": 0, "words": 0}


def test_approving_keeps_the_corpora_that_were_not_there(tmp_path: Path) -> None:
    run(tmp_path, starter_table(240, "a"))
    approve(tmp_path / "profile.json", tmp_path / "validated.json")
    content = run(tmp_path, starter_table(240, "b"))
    assert content["corpora"]["b"]["drift"] == {}
    approve(tmp_path / "profile.json", tmp_path / "validated.json")
    assert list(json.loads((tmp_path / "validated.json").read_text())["corpora"]) == ["a", "b"]


def test_what_can_not_be_approved_or_compared_with_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="profile.json: no such file; `dvc repro validate` writes it"):
        approve(tmp_path / "profile.json", tmp_path / "validated.json")
    (tmp_path / "validated.json").write_text('{"corpora": {"starter": {"rows": 3}}}')
    with pytest.raises(ArtifactError, match="validated.json: not the profiles of a validated version; `git checkout"):
        run(tmp_path, starter_table())


def test_a_profile_with_other_histograms_is_nothing_to_compare_with(tmp_path: Path) -> None:
    one = {"labels": {"negative": 1}, "lengths": [1, 2], "words": [3]}
    (tmp_path / "validated.json").write_text(json.dumps({"corpora": {"starter": one}}))
    assert run(tmp_path, starter_table())["corpora"]["starter"]["drift"] == {}


def test_the_shipped_profile_is_that_of_the_starter_corpus(tmp_path: Path) -> None:
    from finsight.pipeline.profile import read_profiles

    path = write_raw(tmp_path / "corpus.parquet", starter_table(10_000))
    one = read_profiles(path, LABELS, PARAMS).corpora["starter"]
    assert json.loads((REPO / "data/validated.json").read_text()) == {"corpora": {"starter": one.kept()}}


def test_the_language_check_can_be_switched_off(tmp_path: Path) -> None:
    rows = [*starter_table(), *(raw_row(300 + i, f"{GERMAN} {i}", "positive") for i in range(12))]
    content = run(tmp_path, rows, PARAMS.model_copy(update={"language": ""}))
    assert (content["warning"], content["foreign_share"]) == (0, 0)
    assert not [s for s in content["expectations"] if "language" in s]


def test_the_stage_lists_doubtful_labels_and_says_what_to_read(tmp_path: Path) -> None:
    """As dvc.yaml calls it, in a process of its own."""
    shutil.copy(REPO / "params.yaml", tmp_path)
    shutil.copytree(REPO / "data", tmp_path / "data", ignore=lambda *_: {"raw", "prepared", "external", "starter"})
    write_raw(tmp_path / "data/raw/corpus.parquet", starter_table(2400))
    command = YAML(typ="safe").load((REPO / "dvc.yaml").read_text())["stages"]["validate"]["cmd"].split()[2:]
    done = subprocess.run([sys.executable, REPO / "stages/validate.py", *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ expectations, \d with warnings; read reports/data_docs/index.html", done.stdout)
    content = json.loads((tmp_path / "reports/validation.json").read_text())
    assert f"{content['suspects']} of {content['examined']} labels are contradicted by a simple model" in done.stdout
    with (tmp_path / "reports/suspects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == content["suspects"] > 0
    assert set(rows[0]) == {"hash", "label", "suggested", "quality", "id", "text"}
    assert content["corpora"]["starter"]["drift"]["words"] < 0.05

    with (tmp_path / "data/corrections.csv").open("a", encoding="utf-8") as file:
        file.write(f"{rows[0]['hash']},{rows[0]['label']},,\n")
    subprocess.run([sys.executable, REPO / "stages/validate.py", *command], cwd=tmp_path, check=True, capture_output=True)
    assert rows[0]["hash"] not in (tmp_path / "reports/suspects.csv").read_text(), "a person has looked at it"
    assert json.loads((tmp_path / "reports/validation.json").read_text())["suspects"] == content["suspects"] - 1


def test_the_command_approves(in_folder: Path) -> None:
    from click.testing import CliRunner

    from finsight.cli import main

    shown = CliRunner().invoke(main, ["corpus", "approve"])
    assert shown.exit_code == 1
    assert "reports/profile.json: no such file; `dvc repro validate` writes it" in shown.output
    (in_folder / "reports").mkdir()
    shutil.copy(REPO / "data/validated.json", in_folder / "reports/profile.json")
    shown = CliRunner().invoke(main, ["corpus", "approve"])
    assert shown.output == "data/validated.json: starter is what later versions are compared with; commit it\n"
    assert (in_folder / "data/validated.json").read_text() == (REPO / "data/validated.json").read_text()
