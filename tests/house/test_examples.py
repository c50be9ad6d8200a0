"""The examples do what their pages say, command by command, and every answer is the one in the clear."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from by_hand_page import ROOT
from example_page import Ran

from jobs.intersections.generate import AGREED, SHARED, generate
from jobs.joint_totals.generate import DEPARTMENTS, DISTRICTS
from jobs.joint_totals.generate import generate as generate_payers
from jobs.own_model.generate import generate as generate_applicants
from jobs.own_model.score import model as score_card
from jobs.own_model.train import model as late_payer
from sandbox.gate.release import rounded

pytestmark = pytest.mark.slow
BANDS = {"below 5000": (0, 5000), "5000 to below 10000": (5000, 10000), "10000 and above": (10000, 1e9)}
LATE = {"below 1": (0, 1), "1 to below 3": (1, 3), "3 and above": (3, 99)}


# --- totals over three departments ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def payers() -> pd.DataFrame:
    """All departments' rows in one table: what nobody has."""
    rows = pd.concat([table.to_pandas() for table in generate_payers().values()])
    return rows.astype({"monthly_income": float, "paid": float})


def test_totals_are_those_of_the_pooled_rows(joint_totals: Ran, payers: pd.DataFrame) -> None:
    table = pd.read_parquet(joint_totals.folder / "totals" / "totals.parquet")
    expected = []
    for district in DISTRICTS:
        for band, (low, high) in BANDS.items():
            rows = payers[
                (payers.district == district) & (payers.monthly_income >= low) & (payers.monthly_income < high)
            ]
            late = [int(rows.months_late.between(*ends, inclusive="left").sum()) for ends in LATE.values()]
            counts = [rounded(count, 10) for count in (len(rows), rows.paid.count(), *late)]
            expected.append(
                [district, band, *counts[:2], rows.paid.mean(), rows.monthly_income.round().var(), *counts[2:]]
            )
    names = ["district", "income_band", "rows", "settled", "average_paid", "variance_income"]
    whole = pd.DataFrame(expected, columns=[*names, *(f"arrears: {band}" for band in LATE)])
    assert list(table.columns) == list(whole.columns)
    exact = [name for name in whole.columns if name not in ("average_paid", "variance_income")]
    assert table[exact].equals(whole[exact])
    # To the fen; and incomes count in whole yuan, as the scenario declares.
    assert np.allclose(table["average_paid"], whole["average_paid"], rtol=0, atol=0.00501)
    assert np.allclose(table["variance_income"], whole["variance_income"], rtol=0, atol=0.501)


def test_the_sum_is_exact_to_the_fen(joint_totals: Ran, payers: pd.DataFrame) -> None:
    line = pd.read_parquet(joint_totals.folder / "whole" / "totals.parquet")
    assert len(line) == 1
    assert line["paid"][0] == round(payers.paid.sum(), 2)
    assert line["rows"][0] == rounded(len(payers), 10)


def test_a_total_over_two_of_three_is_refused(joint_totals: Ran) -> None:
    assert "every data owner of the scenario takes part in a total" in joint_totals.told[5]
    assert joint_totals.told[5].endswith("refused\n")


def test_the_table_on_the_page_is_the_one_that_leaves(joint_totals: Ran) -> None:
    assert joint_totals.page.shown
    told = "".join(joint_totals.told.values())
    for shown in joint_totals.page.shown:
        assert shown in told


def test_no_party_receives_what_is_anothers(joint_totals: Ran) -> None:
    wire = json.loads((joint_totals.folder / "wire.json").read_text())
    assert sum(wire["shown"].values()) % 2**64 == wire["joint"] == sum(wire["plain"].values())
    assert all(wire["shown"][party] > 2**32 for party in DEPARTMENTS)  # uniform in 64 bits; the true ones are hundreds
    assert set(wire["plain"]) == set(DEPARTMENTS)
    got = {(one["to"], one["label"], one["from"]) for one in wire["messages"]}
    assert {who for who, label, _ in got if label == "cipher"} == {"housing"}  # adds up, and has no key
    assert {who for who, label, _ in got if label.startswith("share")} == {"social"}  # has the key, and one sum
    assert {label.partition(",")[0] for _, label, _ in got} == {"seed", "counts", "key", "cipher", "share"}
    assert len({one["begins"] for one in wire["messages"] if one["label"] == "cipher"}) == 2
    released = pd.DataFrame(wire["released"])
    table = pd.read_parquet(joint_totals.folder / "totals" / "totals.parquet")
    pd.testing.assert_frame_equal(released, table)  # the same documents, the same rows, the same answer


# --- intersections ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people():
    return generate()


def answer(intersections: Ran, name: str, output: str) -> pd.DataFrame:
    return pd.read_parquet(intersections.folder / "answers" / name / f"{output}.parquet")


def test_numbers_are_rounded(intersections: Ran) -> None:
    for name, output, number in (
        ("size", "size", SHARED),
        ("aligned", "aligned", SHARED),
        ("three", "aligned", AGREED),
    ):
        told = json.loads((intersections.folder / "answers" / name / f"{output}.json").read_text())
        assert told == {output: rounded(number, 10)}


def test_sums_are_those_of_the_shared_rows(intersections: Ran, people) -> None:
    line = answer(intersections, "sums", "sums")
    shared = people.tables["operator"].to_pandas()[people.who["operator"] < SHARED]
    assert line["rows"].tolist() == [rounded(SHARED, 10)]
    assert line["owed"][0] == float(shared["arrears"].sum())
    assert abs(line["months"][0] - shared["months_insured"].mean()) < 0.0501


@pytest.mark.parametrize("name", ["members", "members_both", "prepared", "prepared-again", "joined"])
def test_rows_are_those_of_the_people_whom_both_have(intersections: Ran, people, name: str) -> None:
    found = answer(intersections, name, "joined" if name == "joined" else "members")
    operator = people.tables["operator"].to_pandas()
    operator["key"] = (
        operator["identity_number"] + "\x1f" + operator["full_name"]
    )  # the operator writes as keys are spelled
    shared = operator[people.who["operator"] < SHARED].set_index("key")
    assert sorted(found["id"]) == sorted(shared.index)
    if name == "joined":
        assert list(found.columns) == ["id", "city", "months_insured"]
        beside = shared.loc[found["id"]]
        assert found["city"].tolist() == beside["city"].tolist()
        assert found["months_insured"].tolist() == beside["months_insured"].tolist()
    else:
        assert list(found.columns) == ["id"]


def test_a_prepared_list_is_sent_once(intersections: Ran) -> None:
    carried = re.findall(r"^compute\t\d+\t(\d+)$", intersections.told[5], re.MULTILINE)
    first, second = (int(size) for size in carried[1::2])  # between them, and before, the runs on twins
    assert first > 12 * 20_000 > second


def test_plans_say_who_would_learn_what(intersections: Ran) -> None:
    assert "bank\thow many rows both have, not which" in intersections.told[3]
    assert "witness\twhich of its own rows all three have" in intersections.told[7]


def test_no_exact_number_of_people_is_told(intersections: Ran) -> None:
    told = "".join(intersections.told[number] for number in (3, 4, 7))
    numbers = re.findall(r"^ *(?:size|aligned|units|units at most|expected \w+): (\d+)$", told, re.MULTILINE)
    assert len(numbers) > 10
    assert {str(rounded(SHARED, 10)), str(rounded(AGREED, 10))} <= set(numbers)
    assert not {str(SHARED), str(AGREED)} & set(numbers)


def test_the_keys_on_the_page_are_one_persons(people) -> None:
    text = (ROOT / "jobs" / "intersections" / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| \w+ \| `\w+`, `\w+` \| `([^`]+)`, `([^`]+)` \|$", text, re.MULTILINE)
    assert len(told) == 3
    found = set()
    for (owner, table), key in zip(people.tables.items(), told, strict=True):
        columns = table.select(table.column_names[:2]).to_pylist()
        found.add(people.who[owner][[tuple(row.values()) for row in columns].index(key)])
    assert len(found) == 1


def test_the_answers_on_the_page_are_those_that_leave(intersections: Ran) -> None:
    assert intersections.page.shown
    told = "".join(intersections.told.values())
    for shown in intersections.page.shown:
        assert shown in told


# --- a merchant's own models ------------------------------------------------------------------------------------------


def test_points_are_those_that_the_merchants_code_gives_anywhere(own_model: Ran) -> None:
    rows = generate_applicants()
    bare = score_card.run({"applicants": rows}, {"base": 600})
    scores = pd.read_parquet(own_model.folder / "scores" / "scores.parquet").set_index("id_no")["points"]
    expected = bare["scores"].to_pandas().set_index("id_no")["points"]
    assert scores.sort_index().equals(expected.sort_index())
    summary = pd.read_parquet(own_model.folder / "scores" / "summary.parquet").set_index("band")["applicants"]
    assert summary.to_dict() == dict(zip(*bare["bands"].to_pydict().values(), strict=True))


def test_weights_are_those_of_a_fit_in_the_clear_rounded(own_model: Ran) -> None:
    bare = late_payer.run({"applicants": generate_applicants()}, {"strength": 1.0})
    for output, table in (("learnt", "weights"), ("summary", "quality")):
        found = pd.read_parquet(own_model.folder / "weights" / f"{output}.parquet")
        name, value = found.columns
        expected = dict(zip(*bare[table].to_pydict().values(), strict=True))
        places = 3 if output == "learnt" else 2
        assert found.set_index(name)[value].to_dict() == {
            key: pytest.approx(round(number, places), abs=1e-12) for key, number in expected.items()
        }


def test_everything_about_an_enclave_says_that_it_is_simulated(own_model: Ran) -> None:
    assert own_model.told[4].count("vendor: SIMULATED") == 2  # as it was made, and as it was checked offline
    assert "SIMULATED" in own_model.told[6] and "learnt: 5 of 5 rows" in own_model.told[6]
    assert re.search(r"^isolation: \w+ SIMULATED$", own_model.told[7], re.MULTILINE)
    assert "key-released" in own_model.told[7]


def test_what_the_page_of_own_models_shows_is_what_leaves(own_model: Ran) -> None:
    assert len(own_model.page.shown) > 3
    told = "".join(own_model.told.values())
    for shown in own_model.page.shown[1:]:  # the first is of `sandbox model try`, on nobody's node
        assert shown in told
