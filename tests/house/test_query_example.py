"""The page of the query example, typed command by command; the answer is the one of the rows in the clear."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest
from example_page import Example, Ran

from jobs.joint_totals.generate import DISTRICTS, generate
from sandbox.errors import Unavailable
from sandbox.gate.release import rounded
from sandbox.tee_sim import probes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def income_query(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A fund and an analyst; on a machine that confines no code, the refusal instead."""
    page = Example("income_query", tmp_path_factory.mktemp("income-query"))
    try:
        told = {number: page.section(number) for number in range(1, 4)}
        try:
            probes.strongest()
        except Unavailable as error:
            with pytest.raises(AssertionError, match="cannot confine code at level narrowed"):
                page.section(4)
            pytest.skip(f"nothing is confined here, and the node says so: {error.tell}")
        told |= {number: page.section(number) for number in range(4, 6)}
        yield Ran(page, page.folder / "fund", told)
        page.section(6)
    finally:
        page.shell.close()


def test_the_table_is_that_of_the_rows(income_query: Ran) -> None:
    rows = generate()["social"].to_pandas().astype({"monthly_income": float, "paid": float})
    rows = rows[rows.district.isin(DISTRICTS) & (rows.months_late < 3)]
    found = pd.read_parquet(income_query.folder / "answer" / "table.parquet")
    assert list(found.columns) == ["district", "payers", "mean_income", "middle_payment"]
    assert found.district.tolist()[:-1] == list(DISTRICTS) and pd.isna(found.district.iloc[-1])
    lines = [rows[rows.district == name] for name in DISTRICTS]
    for own, row in zip([*lines, rows], found.itertuples(), strict=True):
        assert row.payers == rounded(len(own), 10)
        # Incomes count in whole yuan, as the scenario declares, and a mean is told in whole yuan.
        assert row.mean_income == pytest.approx(own.monthly_income.round().mean(), abs=0.501)
        assert row.middle_payment == pytest.approx(own.paid.median(), abs=0.00501)


def test_the_table_on_the_page_is_the_one_that_leaves(income_query: Ran) -> None:
    assert len(income_query.page.shown) == 1
    assert income_query.page.shown[0] in income_query.told[4]


def test_the_plan_says_that_the_jail_is_simulated(income_query: Ran) -> None:
    assert f"runs in a jail of level {probes.strongest()} SIMULATED" in income_query.told[4]
    assert "the statement; it runs in a simulated enclave of this node" in income_query.told[4]


def test_what_does_not_leave_is_refused_or_withheld(income_query: Ran) -> None:
    told = income_query.told[5]
    assert "line 4, column 8: this function is not allowed" in told and "\nrefused\n" in told
    assert "the result is too specific to be released" in told and told.endswith("withheld\n")
