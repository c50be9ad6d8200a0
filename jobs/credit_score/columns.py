"""The columns of the example: what each holds, in which unit, how sensitive, and which party has it.

Source:    LendingClub's public loan statistics in the R package modeldata; data/PROVENANCE.md tells more.
Not here:  rows (``split``), how columns become features (``sandbox.kinds.features``).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from sandbox.catalog.schema import Field, FieldType, Grade, Schema

ID: Final = "id"
DEFAULT: Final = "default"
LABEL: Final = "Class"  # the label's name in the source, "good" or "bad"
MONEY: Final = Decimal("0.6")  # price coefficients: what a field counts for in the fee
COUNT: Final = Decimal("0.4")


def _id(meaning: str) -> Field:
    return Field(ID, FieldType.STRING, meaning, "", Grade.L4, "drop", Decimal(1))


def _own(name: str, type_: FieldType, meaning: str, unit: str = "", grade: Grade = Grade.L3) -> Field:
    return Field(name, type_, meaning, unit, grade, "", Decimal(0))


def _record(name: str, meaning: str, unit: str, price: Decimal, type_: FieldType = FieldType.INTEGER) -> Field:
    return Field(name, type_, meaning, unit, Grade.L3, "", price)


BANK: Final = Schema(
    fields=(
        _id("made-up identity number of the borrower"),
        _own("funded_amnt", FieldType.INTEGER, "amount of the loan", "US dollar"),
        _own("term", FieldType.STRING, "number of monthly payments, term_36 or term_60"),
        _own("annual_inc", FieldType.DECIMAL, "yearly income as the borrower stated it", "US dollar"),
        _own("emp_length", FieldType.STRING, "years in employment, emp_lt_1 to emp_ge_10, or emp_unk"),
        _own("verification_status", FieldType.STRING, "whether the income or its source was verified"),
        _own("addr_state", FieldType.STRING, "state of residence, two letters", grade=Grade.L2),
        _own(DEFAULT, FieldType.INTEGER, "1: charged off, in default or at least 21 days late; 0: not", grade=Grade.L4),
    ),
    key=(ID,),
)

OPERATOR: Final = Schema(
    fields=(
        _id("made-up identity number of the person"),
        _record("delinq_2yrs", "times 30 or more days late in the past 2 years", "count", COUNT),
        _record("inq_last_6mths", "credit inquiries in the past 6 months", "count", COUNT),
        _record("revol_util", "used part of the revolving credit lines", "percent", MONEY, FieldType.DECIMAL),
        _record("acc_now_delinq", "accounts late at present", "count", COUNT),
        _record("open_il_6m", "instalment accounts active at present", "count", COUNT),
        _record("open_il_12m", "instalment accounts opened in the past 12 months", "count", COUNT),
        _record("open_il_24m", "instalment accounts opened in the past 24 months", "count", COUNT),
        _record("total_bal_il", "balance of all instalment accounts", "US dollar", MONEY),
        _record("all_util", "balance of all accounts against their limits", "percent", MONEY),
        _record("inq_fi", "inquiries by personal finance companies", "count", COUNT),
        _record("inq_last_12m", "credit inquiries in the past 12 months", "count", COUNT),
        _record("delinq_amnt", "amount overdue on accounts late at present", "US dollar", MONEY),
        _record("num_il_tl", "instalment accounts ever held", "count", COUNT),
        _record("total_il_high_credit_limit", "credit limit of all instalment accounts", "US dollar", MONEY),
    ),
    key=(ID,),
)

BANK_FEATURES: Final = tuple(name for name in BANK.names if name not in (ID, DEFAULT))
OPERATOR_FEATURES: Final = tuple(name for name in OPERATOR.names if name != ID)
