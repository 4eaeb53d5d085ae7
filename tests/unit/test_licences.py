"""Which licences forbid commercial use."""

import pytest

from finsight.domain.licences import in_words, non_commercial


@pytest.mark.parametrize(
    "licence",
    [
        "CC-BY-NC-SA-3.0",
        "cc-by-nc-4.0",
        "CC BY-NC 4.0",
        "PolyForm-Noncommercial-1.0.0",
        "non-commercial",
        "Non Commercial use only",
        "for research use only",
        "Academic only",
        "LicenseRef-research-only",
    ],
)
def test_forbidden(licence: str) -> None:
    assert non_commercial({"corpus x": licence}) == {"corpus x": licence}


@pytest.mark.parametrize("licence", ["MIT", "Apache-2.0", "CC0-1.0", "CC-BY-SA-4.0", "NCSA", "BSD-3-Clause", "commercial", "NCGL-UK-2.0"])
def test_allowed(licence: str) -> None:
    assert non_commercial({"corpus x": licence}) == {}


def test_in_words() -> None:
    assert in_words({"corpus a": "CC-BY-NC-4.0", "backbone": "MIT", "corpus b": "non-commercial"}) == (
        "corpus a (CC-BY-NC-4.0), corpus b (non-commercial)"
    )
    assert in_words({"backbone": "MIT"}) == ""
