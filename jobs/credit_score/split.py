"""Make the two parties of the example: a bank with its loans, an operator with credit records of many more people.

    make_parties(seed) -> Parties --write--> bank.parquet, operator.parquet and a schema beside each

Source:    the loans and credit records are real (data/PROVENANCE.md); the people are not. The identity numbers are made
           up, of a region that does not exist, and the operator's other people are real records drawn again with noise.
Shapes:    the bank: every loan, in random order. The operator: 60 000 people in another random order, among them 80 %
           of the bank's customers with the credit record that belongs to their loan. No column tells who is who.
Errors:    ``InvalidSpec`` from the generator of identity numbers.
Not here:  how the two find their common customers; that is the job.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.credit_score.columns import BANK, BANK_FEATURES, DEFAULT, ID, LABEL, OPERATOR, OPERATOR_FEATURES
from jobs.credit_score.convert import PARQUET
from sandbox.catalog.ids import made_up_ids
from sandbox.catalog.schema import FieldType, Schema, schema_bytes

PEOPLE: Final = 60_000  # rows of the operator
SHARED: Final = 0.8  # of the bank's customers
NOISE: Final = 0.15  # deviation of the factor that a filler's amounts and percentages are multiplied by
JITTER: Final = 0.2  # share of a filler's counts above zero that move by one

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parties:
    """What each party holds, and, for tests only, from which row of the source each row came (-1: filler)."""

    bank: pa.Table = field(repr=False)
    operator: pa.Table = field(repr=False)
    bank_source: _Rows = field(repr=False)
    operator_source: _Rows = field(repr=False)

    def write(self, directory: Path) -> None:
        """Write each party's table and schema into ``directory``."""
        for name, table, schema in (("bank", self.bank, BANK), ("operator", self.operator, OPERATOR)):
            pq.write_table(table, directory / f"{name}.parquet", compression="zstd")
            text = json.dumps(json.loads(schema_bytes(schema)), indent=2)
            (directory / f"{name}.schema.json").write_text(text + "\n", encoding="utf-8")


def read_source() -> pa.Table:
    """Return the real loans, in the order of the source."""
    return pq.read_table(PARQUET)


def make_parties(seed: int) -> Parties:
    """Return the two parties; the same seed, the same parties."""
    source = read_source()
    loans = source.num_rows
    shared = round(SHARED * loans)
    random = np.random.default_rng(seed)
    ids = made_up_ids(loans + PEOPLE - shared, seed)

    bank_source = random.permutation(loans)
    common = random.permutation(loans)[:shared]  # rows of the bank whose customer the operator knows
    filler = random.integers(0, loans, PEOPLE - shared)
    order = random.permutation(PEOPLE)

    bank = source.take(bank_source).select([*BANK_FEATURES, LABEL])
    bank = bank.append_column(ID, ids[:loans]).append_column(DEFAULT, pc.cast(pc.equal(bank[LABEL], "bad"), pa.int64()))
    real = source.take(bank_source[common]).select(list(OPERATOR_FEATURES))
    invented = _blur(source.select(list(OPERATOR_FEATURES)), filler, random)
    people = pa.concat_tables([real, invented])
    people = people.append_column(ID, pa.concat_arrays([ids.take(pa.array(common)), ids[loans:]]))
    operator_source = np.concatenate([bank_source[common], np.full(len(filler), -1, dtype=np.int64)])
    return Parties(
        bank=_shape(bank, BANK),
        operator=_shape(people.take(order), OPERATOR),
        bank_source=bank_source,
        operator_source=operator_source[order],
    )


def _blur(source: pa.Table, rows: _Rows, random: np.random.Generator) -> pa.Table:
    """Return the named rows with noise; every value stays in the range that its column has in the source."""
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for record in OPERATOR.fields[1:]:
        real = source[record.name].to_numpy().astype(np.float64)
        drawn = real[rows]
        if record.unit == "count":
            moves = random.choice((-1.0, 0.0, 1.0), len(rows), p=(JITTER / 2, 1 - JITTER, JITTER / 2))
            drawn += np.where(drawn > 0, moves, 0.0)  # what is rare in the source stays rare
        else:
            drawn *= np.exp(NOISE * random.standard_normal(len(rows)))
        places = 1 if record.type is FieldType.DECIMAL else 0
        columns[record.name] = np.clip(np.round(drawn, places), 0, real.max())
    # What is true of every real record stays true.
    columns["open_il_24m"] = np.maximum(columns["open_il_24m"], columns["open_il_12m"])
    columns["num_il_tl"] = np.maximum(columns["num_il_tl"], columns["open_il_6m"])
    return pa.table({name: pa.array(values).cast(source[name].type) for name, values in columns.items()})


def _shape(table: pa.Table, schema: Schema) -> pa.Table:
    """Return the columns of ``schema`` in its order and types."""
    columns = []
    for target in schema.arrow():
        column = table[target.name]
        if pa.types.is_decimal(target.type):
            column = pc.round(column, 2).cast(pa.string())  # by way of text: a binary fraction is no decimal one
        columns.append(column.cast(target.type))
    return pa.table(columns, schema=schema.arrow())
