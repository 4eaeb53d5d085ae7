"""What the pages say is so: links lead somewhere, commands exist with their options, parameters are those of the schema."""

import itertools
import re
import sys
from functools import cache
from pathlib import Path

import click
import pytest
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from ruamel.yaml import YAML

from conftest import REPO
from doc_pages import Command, blocks, commands, pages, prose
from finsight.cli import main
from finsight.params.file import Params, load_yaml

sys.path.insert(0, str(REPO / "docs"))
import generate
from schemas import comments, sections, variables

PAGES = [pytest.param(page, id=str(page.relative_to(REPO))) for page in pages()]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def anchors(page: Path) -> set[str]:
    """What `#…` may name on a page, by the rule of the forges and of our site."""
    headings = re.findall(r"^#+ (.*)$", prose(page.read_text()), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(prose(page.read_text())):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: nothing is there"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for broken in ("[x](gone.md)", "[x](#no-heading)"):
        page.write_text(f"# A heading, with `code`\n\n{broken} [y](#a-heading-with-code)\n")
        with pytest.raises(AssertionError, match=r"nothing is there|no such heading"):
            test_every_link_leads_somewhere(page)


def refused(command: Command) -> str:
    """Why a command line can't be one of ours; empty where it can."""
    program, *words = command.words
    match program:
        case "finsight":
            return _finsight(words, command.whole)
        case "make":
            makefile = (REPO / "Makefile").read_text()
            known = {*re.findall(r"^([\w-]+):", makefile, re.MULTILINE), *re.findall(r"^(\w+) \?=", makefile, re.MULTILINE)}
            wrong = [word for word in words if word.partition("=")[0] not in known]
            return f"no target or variable {wrong}" if wrong else ""
        case _:
            return _dvc(words if command.whole else [*itertools.takewhile(lambda word: re.fullmatch("[a-z]+", word), words), "--help"])


def _finsight(words: list[str], whole: bool) -> str:
    command: click.Command = main
    while isinstance(command, click.Group):
        parser = command.make_parser(click.Context(command))
        parser.allow_interspersed_args = False
        try:
            _, words, _ = parser.parse_args(words)
        except click.UsageError as error:
            return error.format_message()
        if not words:
            return ""
        if words[0] not in command.commands:
            return f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    context = click.Context(command)
    try:
        given, left, _ = command.make_parser(context).parse_args(words)
        for param in command.params:
            value = given.get(param.name or "")
            if isinstance(param.type, click.Choice) and isinstance(value, str):
                for one in [value] if whole else value.split("|"):
                    param.type.convert(one, param, context)
    except click.UsageError as error:
        lacks = not whole and isinstance(error, click.BadOptionUsage)  # `finsight gc -r` speaks of the option
        return "" if lacks else error.format_message()
    return f"too many words: {left}" if left else ""


def _dvc(words: list[str]) -> str:
    try:
        get_main_parser().parse_args(words)
    except SystemExit as ended:
        return "dvc refuses it" if ended.code else ""
    except DvcParserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_is_one(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {" ".join(command.words): why for command in commands(page.read_text()) if (why := refused(command))}
    assert not wrong, capsys.readouterr().err


def test_command_lines_are_found() -> None:
    found = [command for page in pages() for command in commands(page.read_text())]
    assert sum(command.whole for command in found) > 80, "the pages have more of them"
    assert {"predict", "compare", "promote"} <= {word for command in found for word in command.words}


@pytest.mark.parametrize(
    "line",
    [
        "finsight predcit x",
        "finsight compare --baes main",
        "finsight compare --format docx",
        "finsight gc -r",
        "finsight verify a b",
        "finsight --nothing verify",
        "make dcos",
        "make diff BSAE=main",
        "dvc rpero",
        "dvc exp run --sett a=1",
    ],
)
def test_what_is_none_is_found(line: str) -> None:
    [command] = commands(f"```sh\n{line}   # as in a page\n```\n")
    assert refused(command)


def parameters(page: Path) -> list[str]:
    """Blocks of YAML that begin with a section of params.yaml."""
    return [b.code for b in blocks(page.read_text()) if b.language in ("yaml", "") and re.match(rf"({'|'.join(SECTIONS)}):\n", b.code)]


SECTIONS = [field.alias or name for name, field in Params.model_fields.items()]


@pytest.mark.parametrize("page", [p for p in PAGES if parameters(p.values[0])])  # type: ignore[arg-type]
def test_parameters_are_those_of_the_schema(page: Path) -> None:
    shipped = dict(load_yaml(REPO / "params.yaml"))
    for code in parameters(page):
        added = YAML(typ="safe").load(code.replace("…", ""))
        Params.model_validate(shipped | {name: shipped[name] | what for name, what in added.items()})


@pytest.mark.parametrize("name", generate.PAGES)
def test_written_pages_say_what_the_code_says(name: str) -> None:
    assert (REPO / "docs" / name).read_text() == generate.PAGES[name](), "run .venv/bin/python docs/generate.py, or make docs"


def test_every_parameter_and_setting_has_a_meaning() -> None:
    assert not [key.name for _, _, keys in sections() for key in keys if not key.meaning]
    assert not [name for name, _, meaning in variables() if not meaning]
    rows = {key.name for _, _, keys in sections() for key in keys}
    assert {"train.lr", "train.prune.heads", "prepare.split.held_out", "export.gates.fp32.max_abs_diff", "corpora.NAME.text"} <= rows


def test_comments_of_parameters_are_found_by_their_key() -> None:
    text = "a:\n  # of b,\n  # in two lines\n  b: 1  # and beside\n  c: '#1'\nd: 2 # of d\n"
    assert comments(text) == {"a.b": "of b, in two lines and beside", "d": "of d"}


def test_every_variable_that_is_read_is_described() -> None:
    described = {name for name, _, _ in variables()}
    for file in sorted([*(REPO / "src").rglob("*.py"), *(REPO / "stages").iterdir()]):
        if file.is_file():
            named = set(re.findall(r"\b((?:FINSIGHT|AWS|MLFLOW)_[A-Z0-9_]*?[A-Z0-9])(?:_FILE)?\b", file.read_text()))
            assert named <= described, f"{file}: {sorted(named - described)} is not in docs/schemas.py"


def test_modules_that_docstrings_and_pages_name_exist() -> None:
    """A module that was moved or never made is easily named on in prose."""
    layers = "adapters|bootstrap|cli|domain|modeling|params|pipeline|service|service_ports"
    texts = [*(REPO / "src").rglob("*.py"), *(REPO / "docs").rglob("*.md")]
    said = {found for path in texts for found in re.findall(rf"\bfinsight\.(?:{layers})\.[a-z_0-9]+\b", path.read_text(encoding="utf-8"))}
    assert len(said) > 100
    gone = {
        name for name in said if not (module := REPO / "src" / name.replace(".", "/")).is_dir() and not module.with_suffix(".py").is_file()
    }
    defined = {name for name in gone if re.search(rf"\b{name.rpartition('.')[2]}\b", _package(name).read_text(encoding="utf-8"))}
    assert gone - defined == set()


def _package(name: str) -> Path:
    return REPO / "src" / name.rpartition(".")[0].replace(".", "/") / "__init__.py"
