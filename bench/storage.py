"""Push and pull through a local S3 server: `finsight push` and `pull` beside `rclone copy` of the same files.

Peer: rclone-copy, at its defaults. The server is `rclone serve s3` on loopback, for both. Ours is the command as people run it: starting
Python and importing DVC count (about two seconds, most of what the small set takes). It does more: it hashes what arrives, keeps it in the
cache and copies it from there into place. Sets: the outputs of this clone's pipeline, or random files of the sizes that dvc.lock names
where it has not run; 1 GB in four files; 1 GB in one. They take turns, a new server a round; the fastest round counts.
`--json FILE` writes rows of {name, peer, ours, theirs, unit, ratio}; a ratio over 1 is in our favour.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

REPO = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PEER = "rclone-copy"
KEY, SECRET = "benchkey", "benchsecret"
BLOCK = 1 << 24


def random_file(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            file.write(os.urandom(min(BLOCK, size - start)))


def artifacts(folder: Path) -> None:
    """The pipeline's outputs, real where this clone has them."""
    stages = YAML(typ="safe").load((REPO / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    made = 0
    for out in (out for stage in stages.values() for out in stage["outs"]):
        source, target = REPO / out["path"], folder / out["path"]
        if source.is_dir() and not any(source.iterdir()):
            continue  # neither DVC nor S3 knows an empty folder
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, target)
        else:
            files = out.get("nfiles", 1)
            made += files
            for i in range(files):
                random_file(target / str(i) if "nfiles" in out else target, out["size"] // files)
    click.echo(f"the pipeline's outputs: {made} files are random, of the sizes that dvc.lock names; the others are this clone's own")


SETS: dict[str, Callable[[Path], Any]] = {
    "pipeline's outputs": artifacts,
    "1 GB, four files": lambda folder: [random_file(folder / str(i), 250_000_000) for i in range(4)],
    "1 GB, one file": lambda folder: random_file(folder / "0", 1_000_000_000),
}


@contextmanager
def server(root: Path) -> Iterator[str]:
    """An S3 server over ``root``; its endpoint."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    address = f"127.0.0.1:{port}"
    environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{KEY},{SECRET}"'}
    process = subprocess.Popen([BIN / "rclone", "serve", "s3", "--addr", address, str(root)], env=environment, stderr=subprocess.DEVNULL)
    try:
        while True:
            with socket.socket() as found:
                if found.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def timed(command: list[str], cwd: Path, environment: dict[str, str]) -> float:
    """Seconds that a command takes, with nothing left to be written to the disk before it starts."""
    os.sync()
    started = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return time.perf_counter() - started


def project(folder: Path, endpoint: str, place: str) -> None:
    """A DVC project with one remote, and no more."""
    folder.mkdir(parents=True)
    for command in (["git", "init", "-q"], [str(BIN / "dvc"), "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    shipped = "    verify = true\n"  # as .dvc/config has it
    (folder / ".dvc/config").write_text(
        f"['remote \"there\"']\n    url = s3://bench/{place}\n    endpointurl = {endpoint}\n{shipped}"
        f"    access_key_id = {KEY}\n    secret_access_key = {SECRET}\n"
    )


def one_round(work: Path, files: Path, endpoint: str, place: str) -> dict[str, float]:
    """Seconds of each of the four commands."""
    ours, second, theirs = work / "ours", work / "second", work / "theirs"
    project(ours, endpoint, place)
    shutil.move(files, ours / "files")
    subprocess.run([BIN / "dvc", "add", "-q", "files"], cwd=ours, check=True)
    project(second, endpoint, place)
    shutil.copy(ours / "files.dvc", second)
    options = ("type=s3", "provider=Rclone", f"access_key_id={KEY}", f"secret_access_key={SECRET}", f"endpoint={endpoint}")
    names = {f"RCLONE_CONFIG_THERE_{name.upper()}": value for name, value in (option.split("=", 1) for option in options)}
    environment = {**os.environ, **names, "RCLONE_CONFIG": str(work / "none.conf"), "PYTHONPATH": str(REPO / "src")}
    finsight, rclone = [sys.executable, "-m", "finsight.cli"], [str(BIN / "rclone"), "copy"]
    seconds = {
        "our push": timed([*finsight, "push", "-r", "there"], ours, environment),
        "their push": timed([*rclone, "files", f"there:bench/{place}-rclone"], ours, environment),
        "our pull": timed([*finsight, "pull", "-r", "there"], second, environment),
        "their pull": timed([*rclone, f"there:bench/{place}-rclone", str(theirs)], ours, environment),
    }
    for got in (second / "files", theirs):
        same = subprocess.run(["diff", "-r", ours / "files", got], capture_output=True)
        if same.returncode:
            raise click.ClickException(f"{got} differs from what was sent")
    shutil.move(ours / "files", files)
    return seconds


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    """Two rows: push and pull of one set."""
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-storage-") as temporary:
        files = Path(temporary, "files")
        SETS[name](files)
        size = sum(path.stat().st_size for path in files.rglob("*") if path.is_file())
        click.echo(f"{name}: {size / 1e6:.0f} MB in {sum(path.is_file() for path in files.rglob('*'))} files")
        for i in range(rounds):
            with tempfile.TemporaryDirectory(dir=temporary) as work:
                bucket = Path(work, "s3/bench")
                bucket.mkdir(parents=True)
                with server(bucket.parent) as endpoint:
                    found.append(one_round(Path(work), files, endpoint, f"round{i}"))
            click.echo(f"  round {i + 1}: " + ", ".join(f"{key} {value:.1f} s" for key, value in found[-1].items()))
    fastest = {key: min(one[key] for one in found) for key in found[0]}
    rows = []
    for verb in ("push", "pull"):
        ours, theirs = fastest[f"our {verb}"], fastest[f"their {verb}"]
        rows.append({"name": f"{verb}, {name}", "peer": PEER, "ours": ours, "theirs": theirs, "unit": "s", "ratio": theirs / ours})
    return rows


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--set", "names", type=click.Choice(list(SETS)), multiple=True, default=list(SETS), help="By default all.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(rounds: int, names: tuple[str, ...], json_path: Path | None) -> None:
    rows = [row for name in names for row in measure(name, rounds)]
    click.echo(f"\n{'':<28}{'ours':>8}{'theirs':>8}  {'unit':<5}{'ratio':>6}  peer")
    for row in rows:
        click.echo(f"{row['name']:<28}{row['ours']:>8.1f}{row['theirs']:>8.1f}  {row['unit']:<5}{row['ratio']:>6.2f}  {row['peer']}")
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
