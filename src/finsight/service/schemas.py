"""Names that users give, by strict patterns: nothing that passes can be an option, a path or a revision expression."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from finsight.domain.aliases import ALIAS, assignable

_NUMBER = "[1-9][0-9]{0,8}"


def example(
    content: dict[str, Any], extra: Literal["allow", "forbid", "ignore"] = "ignore", title: str | None = None, **schema: Any
) -> ConfigDict:
    """The configuration of a model that the OpenAPI document shows with an example.

    :param schema: more of its JSON schema.
    """
    return ConfigDict(json_schema_extra={"example": content, **schema}, extra=extra, title=title)


class RequestBody(BaseModel):
    """A body of JSON, taken as it is: `true` is no number, `"1"` neither, and a member that is not known is refused."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _whole(value: Any) -> Any:
    # 3.0 is an integer to JSON Schema, and some clients have no other numbers.
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""For an integer of a body; after its bounds, or the document would not show them."""


def _assignable(alias: str) -> str:
    if not assignable(alias):
        raise ValueError("latest and v1, v2, … are not given as aliases")
    return alias


Alias = Annotated[
    str,
    StringConstraints(pattern=f"^{ALIAS}$"),
    AfterValidator(_assignable),
    Field(description="Letters, digits, `-` and `_`, a letter first; not `latest`, `v1`, `v2`, …", examples=["champion"]),
]
Why = Annotated[
    str,
    StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$"),
    Field(description="The reason, for the audit log, on one line.", examples=["better on the news of the third quarter"]),
]
VersionName = Annotated[
    str,
    Path(pattern=f"^({_NUMBER}|{ALIAS})$", description="The number of a version, or an alias that points to one.", examples=["champion"]),
]


def _side(what: str, example: str) -> Any:
    words = f"{what}: the name of an experiment, the number or an alias of a version, or `workspace`."
    return Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$", description=words, examples=[example])


BaseSide = Annotated[str, _side("What is compared with", "champion")]
NewSide = Annotated[str, _side("What is asked about", "muddy-axle")]
