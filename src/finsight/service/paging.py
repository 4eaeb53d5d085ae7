"""Lists in pages. A cursor says after which item the next page begins, so that what is added meanwhile shifts nothing."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query

from finsight.service.problems import Problem

MOST = 100
Limit = Annotated[int, Query(ge=1, le=MOST, description="How many items a page has at most.", examples=[20])]
Item = TypeVar("Item")
Key = Callable[[Item], tuple[Any, ...]]


def page_cursor(*example: int | str) -> Any:
    """The query parameter of a list that says where its page begins.

    :param example: a key of such an item.
    """
    words = "`next` of the page before; the first page without."
    return Query(max_length=400, description=words, examples=[_encoded(example)])


def page(items: Sequence[Item], key: Key[Item], limit: int, cursor: str | None) -> tuple[list[Item], str | None]:
    """The items of a page, and the cursor of the next; None where this is the last.

    :param items: all of them, falling by ``key``, a tuple of numbers and strings that tells each from the others.
    :raises Problem: when the cursor is none of ours.
    """
    if cursor is not None:
        after = _decoded(cursor)
        try:
            items = [item for item in items if key(item) < after]
        except TypeError:  # the cursor of another list
            raise _wrong() from None
    shown = list(items[:limit])
    return shown, _encoded(key(shown[-1])) if len(items) > limit else None


def _encoded(key: tuple[Any, ...]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _decoded(cursor: str) -> tuple[Any, ...]:
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _wrong() from None
    if not isinstance(found, list) or not all(isinstance(part, int | str) for part in found):
        raise _wrong()
    return tuple(found)


def _wrong() -> Problem:
    return Problem(422, "cursor: expected the value of `next` of a page of this list", "invalid-request")
