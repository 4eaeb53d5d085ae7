"""The shipping of logs: whether what the files name is there. Fluent Bit itself has no package where the tests run."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from conftest import REPO

FOLDER = REPO / "deploy/fluent-bit"


def sections(path: Path) -> list[tuple[str, dict[str, str]]]:
    """A file in Fluent Bit's classic form, without the keys that come twice."""
    found: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if name := re.fullmatch(r"\[([A-Z]+)\]", line):
            found.append((name[1], {}))
        else:
            entry = re.fullmatch(r" {4}([\w.]+) +(\S.*)", line)
            assert entry, f"{path.name}:{number}: {line}"  # a tab, or a key without a value, is refused at start
            found[-1][1][entry[1]] = entry[2]
    return found


def test_tags_parsers_and_places_fit_together() -> None:
    parts, parsers = sections(FOLDER / "fluent-bit.conf"), sections(FOLDER / "parsers.conf")
    (service,) = (keys for kind, keys in parts if kind == "SERVICE")
    (source,) = (keys for kind, keys in parts if kind == "INPUT")
    (target,) = (keys for kind, keys in parts if kind == "OUTPUT")
    assert (FOLDER / service["Parsers_File"]).is_file()
    known = {keys["Name"] for _, keys in parsers}
    assert known == {source["Parser"], *(keys["Parser"] for kind, keys in parts if kind == "FILTER" and "Parser" in keys)}
    assert {keys["Match"] for kind, keys in parts if kind in ("FILTER", "OUTPUT")} == {source["Tag"]}
    services = YAML(typ="safe").load((REPO / "deploy/compose.yaml").read_text())["services"]
    assert target["Host"] in services
    # Else a line that OpenSearch refuses has all that came with it kept there once more, at each try; and written to this one's own log.
    assert target["Generate_ID"] == "On"
    assert "Trace_Error" not in target
    places = {mount["target"] for mount in services["fluent-bit"]["volumes"]}
    for path in (source["Path"], source["DB"], service["storage.path"]):
        assert any(path.startswith(f"{place}/") for place in places), path
    for name, one in services.items():
        tag = one["logging"]["options"]["tag"].replace("{{.Name}}", f"finsight-{name}-1")
        (wanted,) = (keys["Regex"] for kind, keys in parts if kind == "FILTER" and keys["Name"] == "grep")
        assert bool(re.search(wanted.split()[1], tag)) == (name != "fluent-bit"), name  # what it says of what it could not send
