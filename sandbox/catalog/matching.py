"""Whether the keys of two datasets can meet: the same number of columns, each spelled in the same way on both sides.

    compatible(left, right) -> [] or what is wrong, in words for the people who draft a scenario

Shapes:    keys are compared position by position, in the order of ``Schema.key``; the names may differ. What is done
           about invalid keys may differ too: a side that keeps passports simply has some rows that the other lacks.
Security:  says names, types and formats of key columns, which both owners' catalogues show; nothing of any row.
Not here:  whether the columns mean the same: a telephone number of the customer and one of the branch are spelled
           alike. The meanings in both schemas are for people to compare.
"""

from __future__ import annotations

from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.schema import Schema


def compatible(left: Schema, right: Schema) -> list[str]:
    """Return why people who are in both datasets would not be found, a sentence each; empty if nothing is wrong."""
    if len(left.key) != len(right.key):
        return [f"the key of the left dataset is {_columns(left)}, that of the right one {_columns(right)}"]
    problems = []
    for place, (ours, theirs) in enumerate(zip(left.key_fields, right.key_fields, strict=True), 1):
        columns = f"key column {place}: {ours.name!r} (left)", f"{theirs.name!r} (right)"
        if ours.format is not theirs.format:
            problems.append(_differ(columns, ours.format, theirs.format, "format", "spell the same person differently"))
        elif ours.type is not theirs.type and ours.format is KeyFormat.TEXT:
            # Under another format a number is spelled as its text is: 13800138000 becomes +8613800138000 in both.
            problems.append(_differ(columns, ours.type, theirs.type, "type", "may write the same value differently"))
    return problems


def _differ(columns: tuple[str, str], ours: str, theirs: str, what: str, so: str) -> str:
    return f"{columns[0]} has the {what} {ours}, {columns[1]} the {what} {theirs}: they {so}"


def _columns(schema: Schema) -> str:
    names = ", ".join(repr(name) for name in schema.key)
    return f"1 column ({names})" if len(schema.key) == 1 else f"{len(schema.key)} columns ({names})"
