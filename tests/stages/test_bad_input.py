"""What users get wrong, and the one line that each stage answers. docs/errors.md is this table; it can't drift.

Regenerate it with FINSIGHT_UPDATE_DOCS=1.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import REPO, STAGES, Project, starter_rows, write_csv

DOC = REPO / "docs/errors.md"
LINES: dict[str, str] = {}


def rows_file(project: Project) -> Path:
    return project.root / "data/starter/rows.csv"


def missing_file(p: Project) -> None:
    p.set(corpora__starter__path="data/starter/gone.csv")


def wrong_encoding(p: Project) -> None:
    rows_file(p).write_bytes(rows_file(p).read_bytes() + "Café sales rose,positive,report,easy\r\n".encode("latin-1"))


def missing_column(p: Project) -> None:
    p.set(corpora__starter__text="headline")


def unknown_label(p: Project) -> None:
    rows = starter_rows(240)
    rows[7]["label"] = rows[9]["label"] = "bullish"
    write_csv(rows_file(p), rows)


def empty_text(p: Project) -> None:
    rows = starter_rows(240)
    rows[7]["text"] = " "
    write_csv(rows_file(p), rows)


def empty_corpus(p: Project) -> None:
    rows_file(p).write_text("text,label,kind,difficulty\n")


def one_class(p: Project) -> None:
    write_csv(rows_file(p), [row for row in starter_rows(400) if row["label"] == "neutral"])


def class_with_two_rows(p: Project) -> None:
    rows = starter_rows(240)
    negative = [row for row in rows if row["label"] == "negative"]
    write_csv(rows_file(p), [row for row in rows if row not in negative[2:]])


def long_text(p: Project) -> None:
    p.set(validate__max_characters=60)


def path_outside(p: Project) -> None:
    p.set(corpora__starter__path="data/mine.csv")


def huge_lr(p: Project) -> None:
    p.set(train__lr=1e30, train__max_grad_norm=1e30)


def long_rows(p: Project) -> None:
    p.set(prepare__max_length=1024)


def damaged_table(p: Project) -> None:
    path = p.root / "data/prepared/test.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def damaged_weights(p: Project) -> None:
    path = p.root / "models/checkpoint/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def unknown_corpus(p: Project) -> None:
    p.set(ingest__corpora=["nosuch"])


def unknown_key(p: Project) -> None:
    p.set(train__learnin_rate=1)


def wrong_type(p: Project) -> None:
    p.set(train__epochs="many")


def missing_backbone(p: Project) -> None:
    p.set(train__backbone="/no/such/folder")


def tampered_backbone(p: Project) -> None:
    folder = p.root / "cache/backbones/minilm-53aa51172d14"
    shutil.copytree(p.backbone, folder)
    for name in ("vocab.txt", "special_tokens_map.json"):
        (folder / name).touch()
    p.set(train__backbone="minilm")


def unreachable_s3(p: Project) -> None:
    p.set(train__backbone="s3://models/minilm")
    p.env |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def no_gpu(p: Project) -> None:
    p.set(train__device="cuda")


def failed_gate(p: Project) -> None:
    p.set(export__gates__fp32__max_abs_diff=0.0)


def damaged_bundle(p: Project) -> None:
    path = p.root / "models/bundle/tokenizer.json"
    path.write_bytes(path.read_bytes() + b" ")


# What is wrong, the stage that finds it, how it comes about, the words that its line must have.
CASES: list[tuple[str, str, Callable[[Project], None], list[str]]] = [
    ("a missing file", "ingest", missing_file, ["data/starter/gone.csv", "corpora.starter.path", "finsight corpus add"]),
    ("a wrong encoding", "ingest", wrong_encoding, ["rows.csv: line", "byte 0xe9", "corpora.starter.encoding"]),
    ("a missing column", "ingest", missing_column, ["no column 'headline'", "corpora.starter.text"]),
    ("an unknown label", "ingest", unknown_label, ["label 'bullish'", "rows.csv:9", "corpora.starter.label_map"]),
    ("an empty text", "ingest", empty_text, ["empty text", "rows.csv:9", "ingest.max_quarantined"]),
    ("an empty corpus", "ingest", empty_corpus, ["corpora.starter: no rows"]),
    ("a corpus with one class", "validate", one_class, ["each label has at least 10 rows", "negative has 0, positive has 0"]),
    ("a class with two rows", "validate", class_with_two_rows, ["each label has at least 10 rows", "negative has 2"]),
    ("a text that is too long", "validate", long_text, ["no text is longer than 60 characters", "starter/rows.csv:2", "index.html"]),
    ("a corpus that DVC would not see", "ingest", path_outside, ["data/mine.csv", "finsight corpus add starter data/mine.csv"]),
    ("a loss that grows without end", "train", huge_lr, ["train.lr", "lower it"]),
    ("more tokens than the backbone takes", "prepare", long_rows, ["prepare.max_length", "512"]),
    ("a damaged table", "evaluate", damaged_table, ["data/prepared/test.parquet: not a whole Parquet file"]),
    ("damaged weights", "evaluate", damaged_weights, ["models/checkpoint: not a transformers model"]),
    ("an unknown corpus", "ingest", unknown_corpus, ["ingest.corpora", "'nosuch'", "starter"]),
    ("an unknown key", "ingest", unknown_key, ["train.learnin_rate: unknown key", "lr"]),
    ("a value of the wrong type", "ingest", wrong_type, ["train.epochs", "'many'", "integer"]),
    ("a missing backbone", "ingest", missing_backbone, ["/no/such/folder", "minilm"]),
    ("a tampered backbone", "prepare", tampered_backbone, ["SHA-256 is", "was not loaded", "make setup"]),
    ("an S3 server that is away", "prepare", unreachable_s3, ["s3://models/minilm", "AWS_ENDPOINT_URL"]),
    ("a GPU that is not there", "train", no_gpu, ["train.device", "cpu"]),
    ("a graph that is not the checkpoint", "export", failed_gate, ["not written", "max_abs_diff", "export.gates"]),
    ("a damaged bundle", "register", damaged_bundle, ["tokenizer.json: SHA-256 is", "don't use this bundle"]),
]


def outputs(project: Project) -> dict[str, bytes]:
    folders = (project.root / name for name in ("data/raw", "data/prepared", "models", "reports"))
    files = (p for folder in folders for p in folder.rglob("*") if p.is_file() and p.name != "steps.jsonl")  # a log of what happened
    return {p.relative_to(project.root).as_posix(): p.read_bytes() for p in files}


def generic(line: str, project: Project) -> str:
    """The line without what differs from machine to machine."""
    line = line.replace(str(project.root), "…").replace(str(project.backbone), "…/backbone")
    line = re.sub(r"[0-9a-f]{12}…", "0123456789ab…", line)
    line = re.sub(r"loss (nan|inf) at step \d+", "loss nan at step 1", line)
    return re.sub(r"is \d[.\d]*(e-\d+)?,", "is 0.01,", line)


@pytest.mark.parametrize(("what", "stage", "arrange", "words"), CASES, ids=[c[0] for c in CASES])
def test_each_ends_in_one_line_and_leaves_nothing_half_written(
    what: str,
    stage: str,
    arrange: Callable[[Project], None],
    words: list[str],
    finished: Project,
    copy_of: Callable[[Project], Project],
) -> None:
    if what.startswith("a GPU"):
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
    project = copy_of(finished)
    arrange(project)
    earlier = STAGES[: STAGES.index(stage)] if arrange in (one_class, class_with_two_rows) else ()
    project.run(*earlier)
    before = outputs(project)
    line = project.fail(stage)
    for word in words:
        assert word in line, line
    after = outputs(project)
    assert not [name for name in after if ".partial" in name]
    if stage != "validate":  # its report and Data Docs are written, whole, whatever the outcome
        assert after == before
    LINES[what] = f"| {what} | `{stage}` | {generic(line, project).replace('|', chr(92) + '|')} |"


@pytest.mark.parametrize(
    ("stage", "output"), [("ingest", "data/raw"), ("prepare", "data/prepared"), ("train", "models"), ("export", "models/bundle")]
)
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    stage: str, output: str, finished: Project, copy_of: Callable[[Project], Project]
) -> None:
    """On a real, small file system: a namespace of the test's own may mount one."""
    project = copy_of(finished)
    command, folder = project.command(stage), output
    if stage in ("prepare", "export"):  # what these read lies beside what they write, and must stay visible
        folder = "full"
        command = [part.replace(output, f"full/{Path(output).name}") for part in command]
    (project.root / folder).mkdir(exist_ok=True)
    script = 'mount -t tmpfs -o size=16k tmpfs "$0" && "$@"; code=$?; ls -A "$0" >listing; exit $code'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, folder]
    done = subprocess.run([*namespace, *command], cwd=project.root, env={**os.environ, **project.env}, capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this machine lets no user mount a file system: {done.stderr.strip()}")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "no space left on the device; nothing was left half-written: free some space and run again" in errors[0]
    assert (project.root / "listing").read_text().strip() == ""


def test_debug_shows_where_it_came_from(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    unknown_key(project)
    done = subprocess.run([*project.command("ingest"), "--debug"], cwd=project.root, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "ParamsError" in done.stderr


def test_a_push_to_a_server_that_is_away_is_one_line(tmp_path: Path) -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / ".dvc/config").write_text("['remote \"minio\"']\n    url = s3://finsight/dvc\n    endpointurl = http://127.0.0.1:9\n")
    done = subprocess.run([sys.executable, "-m", "finsight.cli", "push"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: remote minio at http://127.0.0.1:9: Connection refused; start it (`make storage`) or set its endpointurl"
    )


def test_the_documentation_has_these_very_lines() -> None:
    if set(LINES) != {c[0] for c in CASES}:
        pytest.skip("the other tests of this file did not all run")
    head = (
        "# What goes wrong, and the line that says so\n\n"
        "Each ends with exit code 1 (3 where a gate of params.yaml refuses), one line on stderr, and no half-written output; "
        "`--debug` on a stage's own command line\n"
        "(`stages/run STAGE … --debug`) shows where it came from. This page is written by tests/stages/test_bad_input.py.\n\n"
        "| what | stage | line |\n|---|---|---|\n"
    )
    text = head + "\n".join(LINES[c[0]] for c in CASES) + "\n"
    if os.environ.get("FINSIGHT_UPDATE_DOCS"):
        DOC.write_text(text)
    assert DOC.read_text() == text
