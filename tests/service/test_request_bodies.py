"""Every body of JSON that a route takes: what the document allows is taken, and nothing else made into it."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from finsight.service.app import described
from finsight.service.openapi import operations
from finsight.service.schemas import RequestBody

BODIES = {body.__name__: body for body in RequestBody.__subclasses__()}
OTHERS: list[Any] = [True, False, 0, 1, 2.0, 2.5, "1", "true", "", None, [], [1], [True], {}]


def example_of(body: type[RequestBody]) -> dict[str, Any]:
    schema = body.model_json_schema()
    found: dict[str, Any] = schema["example"] if "example" in schema else schema["examples"][0]
    return found


def test_no_route_takes_another_body() -> None:
    described_bodies = [operation["requestBody"]["content"] for operation in operations(described()) if "requestBody" in operation]
    schemas = [content["application/json"]["schema"] for content in described_bodies if "application/json" in content]
    assert {schema.get("title") or schema["$ref"].rpartition("/")[2] for schema in schemas} == set(BODIES)


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_body_takes_what_the_document_allows_and_nothing_of_another_type(name: str) -> None:
    body = BODIES[name]
    good = example_of(body)
    body.model_validate(good)
    with pytest.raises(ValidationError, match="Extra inputs"):
        body.model_validate({**good, "more": 1})
    document = Draft202012Validator(body.model_json_schema())
    wrong = 0
    for member in body.model_fields:
        for value in OTHERS:
            asked = {**good, member: value}
            if document.is_valid(asked):
                body.model_validate(asked)
            else:
                wrong += 1
                with pytest.raises(ValidationError):
                    body.model_validate(asked)
    assert wrong > len(OTHERS) / 2
