"""The audit log's chain: each record carries the digest of the one before, so that none can be changed, removed, moved or slipped in
without breaking it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

GENESIS = "0" * 64
DONE, FAILED, REFUSED = "done", "failed", "refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened.

    :param when: ISO 8601 with microseconds, UTC.
    :param who: the subject; empty where nobody was recognised.
    :param tenant: theirs; empty where nobody was recognised.
    :param action: ``models.promote``, or method and path of a route where the action is not known.
    :param resource: path of what was asked for.
    :param outcome: ``done``; ``failed`` where the service broke down on the way, and may have changed something; ``refused``.
    :param status: of the answer.
    :param correlation_id: the request's.
    :param address: the client's, as the socket has it.
    :param repeats: how many like it came since the one before and have no record of their own.
    """

    when: str
    who: str
    tenant: str
    action: str
    resource: str
    outcome: str
    status: int
    correlation_id: str
    address: str
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends: the number of its last record (0 for none), and that record's digest."""

    number: int = 0
    digest: str = GENESIS


@dataclass(frozen=True, slots=True)
class Record:
    """An entry at its place.

    :param entry: None where it can't be read: it is encrypted with another key, or damaged.
    """

    number: int
    entry: Entry | None
    digest: str


def digest(number: int, previous: str, entry: Entry) -> str:
    """SHA-256, hexadecimal, of the canonical JSON (sorted keys, no blanks, UTF-8) of a record."""
    content = {"number": number, "previous": previous, "entry": asdict(entry)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def chained(head: Head, entry: Entry) -> Record:
    """The record that follows."""
    return Record(head.number + 1, entry, digest(head.number + 1, head.digest, entry))


def check(records: Iterable[Record], written: int, anchor: Head | None = None) -> tuple[Head, str]:
    """Walk a chain from its beginning; the last record that holds, and what is wrong with the next (empty where nothing is).

    :param records: in the order of the log.
    :param written: the number of the last record that the log knows to have written.
    :param anchor: where the chain ended when somebody looked, kept apart from the log. Without one, a log that was written anew as a
        whole holds, and so does one whose last record was changed together with its digest.
    """
    head = Head()
    for record in records:
        if problem := _problem(head, record, anchor):
            return head, problem
        head = Head(record.number, record.digest)
    if head.number < written:
        return (
            head,
            f"record {head.number + 1} is missing: the log ends with {head.number}, and {written} were written; its tail was cut off",
        )
    if anchor and head.number < anchor.number:
        return head, f"record {head.number + 1} is missing: the log ends with {head.number}, and the anchor knows {anchor.number}"
    return head, ""


def _problem(head: Head, record: Record, anchor: Head | None) -> str:
    number = head.number + 1
    if record.number != number:
        return f"record {number} is missing: the one after {head.number} is {record.number}"
    if record.entry is None:
        return f"record {number} can't be read: it is damaged, or encrypted with another key than FINSIGHT_ENCRYPTION_KEY"
    if digest(number, head.digest, record.entry) != record.digest:
        return f"record {number} is not what was written, or does not follow record {head.number}: its digest differs"
    if anchor and anchor.number == number and anchor.digest != record.digest:
        return f"record {number} or one before it was written anew: its digest is not the anchor's"
    return ""
