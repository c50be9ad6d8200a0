"""The rows of three owners who write the same people differently. All of it is generated.

    python -m jobs.intersections.generate DIR [--seed 1]

Shapes:    bank: 300 applicants of a month. operator: 20 000 insured people, 183 of the applicants among them. register:
           6 000 people who agreed to be looked up, 107 of those 183 among them. The key of each has two columns, an
           identity number and a name, under names of their own; ``docs/keys.md`` says what makes them one spelling.
           ``People.who`` tells which person each row is about; no file does.
Security:  nobody is described: see the page that is written beside the files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.generated import field as column
from jobs.generated import key_field, write
from sandbox.catalog.formats import KeyFormat
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.schema import FieldType, Grade, Schema

SEED: Final = 1
APPLICANTS, INSURED, REGISTERED = 300, 20_000, 6_000
SHARED: Final = 183  # applicants that the operator has too
AGREED: Final = 107  # of those, people in the register
FAMILY: Final = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
GIVEN: Final = "伟芳娜敏静秀丽强磊军洋勇艳杰娟涛明超兰霞平刚桂英华玉萍红"
LONG: Final = ("玛丽·怀特", "约翰·格林", "安娜·布朗", "汤姆·卡特")
CITIES: Final = ("Lakeside", "Old Town", "Northbank", "Hillfoot")

Numbers = NDArray[np.int64]

SCHEMAS: Final = {
    "bank": Schema(
        fields=(
            key_field("id_no", "made-up identity number of the applicant", KeyFormat.ID_NUMBER),
            key_field("applicant", "made-up name of the applicant", KeyFormat.NAME),
            column("amount", FieldType.INTEGER, "loan applied for", "yuan"),
        ),
        key=("id_no", "applicant"),
    ),
    "operator": Schema(
        fields=(
            key_field("identity_number", "made-up identity number of the insured", KeyFormat.ID_NUMBER),
            key_field("full_name", "made-up name of the insured", KeyFormat.NAME),
            column("city", FieldType.STRING, "where contributions are paid", grade=Grade.L2),
            column("months_insured", FieldType.INTEGER, "months with contributions", "month"),
            column("arrears", FieldType.DECIMAL, "contributions owed", "yuan"),
        ),
        key=("identity_number", "full_name"),
    ),
    "register": Schema(
        fields=(
            key_field("person", "made-up identity number of who agreed", KeyFormat.ID_NUMBER),
            key_field("name", "made-up name of who agreed", KeyFormat.NAME),
            column("months_left", FieldType.INTEGER, "how long the agreement holds", "month"),
        ),
        key=("person", "name"),
    ),
}


@dataclass(frozen=True, slots=True)
class People:
    """Every owner's rows, and, for tests only, the person each row is about."""

    tables: dict[str, pa.Table] = field(repr=False)
    who: dict[str, Numbers] = field(repr=False)


def generate(seed: int = SEED) -> People:
    """Return every owner's rows; the same seed, the same rows."""
    random = np.random.default_rng(seed)
    everybody = APPLICANTS + INSURED + REGISTERED
    ids, names = made_up_ids(everybody, seed).to_pylist(), _names(everybody, random)
    others = APPLICANTS + np.arange(INSURED + REGISTERED)
    who = {
        "bank": np.arange(APPLICANTS),
        "operator": np.concatenate([np.arange(SHARED), others[: INSURED - SHARED]]),
        "register": np.concatenate([np.arange(AGREED), others[: REGISTERED - AGREED] + 3 * INSURED // 4]),
    }
    who = {owner: random.permutation(people).astype(np.int64) for owner, people in who.items()}
    # As each writes it: the bank in groups and with a small x, the operator as it should be, the register from a form.
    tables = {
        "bank": _keys("bank", who, ids, names, lambda i: f"{i[:6]} {i[6:14]} {i[14:].lower()}", lambda n: " ".join(n)),
        "operator": _keys("operator", who, ids, names, str, str),
        "register": _keys("register", who, ids, names, _full_width, lambda n: n.replace("·", "•") + "\u3000"),
    }
    owed = np.where(random.random(INSURED) < 0.3, np.round(2500 * random.random(INSURED), 2), 0.0)
    values: dict[str, dict[str, pa.Array]] = {
        "bank": {"amount": pa.array(1000 * random.integers(5, 300, APPLICANTS))},
        "operator": {
            "city": pa.array(random.choice(CITIES, INSURED).tolist(), pa.string()),
            "months_insured": pa.array(random.integers(0, 361, INSURED)),
            "arrears": pa.array([f"{one:.2f}" for one in owed]).cast(pa.decimal128(38, 10)),
        },
        "register": {"months_left": pa.array(random.integers(1, 25, REGISTERED))},
    }
    for owner, columns in values.items():
        for name, content in columns.items():
            tables[owner] = tables[owner].append_column(name, content)
    return People(tables, who)


def main(arguments: list[str]) -> int:
    """Write the files of all owners."""
    parser = argparse.ArgumentParser(prog="jobs.intersections.generate", description="generated rows of 3 owners")
    parser.add_argument("directory", type=Path, help="new directory for them")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args(arguments)
    if chosen.directory.exists():
        parser.error(f"{chosen.directory} is there already; name a new directory")
    made = {name: (table, SCHEMAS[name]) for name, table in generate(chosen.seed).tables.items()}
    write(chosen.directory, made, "jobs.intersections.generate", chosen.seed)
    for name, (table, _) in made.items():
        print(f"{name}: {table.num_rows} generated rows")
    return 0


def _names(count: int, random: np.random.Generator) -> list[str]:
    family, given = np.array(list(FAMILY)), np.array(list(GIVEN))
    parts = family[random.integers(0, len(family), count)], *given[random.integers(0, len(given), (2, count))]
    two = random.random(count) < 0.4
    names = ["".join(one[: 2 if short else 3]) for *one, short in zip(*parts, two, strict=True)]
    for place in np.flatnonzero(random.random(count) < 0.05):
        names[place] = LONG[place % len(LONG)]
    return names


def _keys(
    owner: str,
    who: dict[str, Numbers],
    ids: list[str],
    names: list[str],
    write_id: Callable[[str], str],
    write_name: Callable[[str], str],
) -> pa.Table:
    people = who[owner].tolist()
    columns = [write_id(ids[person]) for person in people], [write_name(names[person]) for person in people]
    return pa.table(list(columns), names=list(SCHEMAS[owner].key))


def _full_width(digits: str) -> str:
    return "".join(chr(ord(one) + 0xFEE0) for one in digits)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
