"""Scenarios after real ones: each taken through the whole line, on nodes that insist on twins first."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.car_history import generate as car_history
from jobs.health_certificates import generate as health_certificates
from jobs.inclusive_finance import generate as inclusive_finance
from jobs.loan_medians import generate as loan_medians
from jobs.marriage_check import generate as marriage_check
from jobs.oyster_weather import generate as oyster_weather
from jobs.power_and_pollution import generate as power_and_pollution
from jobs.walkthrough import STRICT, Application, Done, Example, Walk, main
from sandbox.catalog.grading import suggest
from sandbox.catalog.intake import read_table
from sandbox.catalog.schema import Grade, read_schema
from sandbox.catalog.survey import Survey
from sandbox.client import read_scenario
from sandbox.demo.nodes import LocalNodes
from sandbox.errors import InvalidSpec, Unavailable
from sandbox.gate.release import rounded
from sandbox.model import Environment, OutputClass, State
from sandbox.policy.admit import REFUSALS
from sandbox.tee_sim import probes
from sandbox.tee_sim.levels import Level

MODULES = {
    "inclusive_finance": inclusive_finance,
    "loan_medians": loan_medians,
    "marriage_check": marriage_check,
    "health_certificates": health_certificates,
    "car_history": car_history,
    "oyster_weather": oyster_weather,
    "power_and_pollution": power_and_pollution,
}
CONFINED = {"oyster_weather": Level.NARROWED, "loan_medians": Level.CONFINED}  # the least that its scenario accepts
ORGANISATIONS = {"operator": "City Public Data Operator", "partner": "Data Users' Node", "witness": "City Audit Office"}
EXAMPLES = {name: Example.read(name) for name in MODULES}
each = pytest.mark.parametrize("name", MODULES)


# --- the folders, without a node --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=MODULES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Example, Path]:
    """An example and its generated files."""
    folder = tmp_path_factory.mktemp(request.param) / "data"
    assert MODULES[request.param].main([str(folder)]) == 0
    return EXAMPLES[request.param], folder


def test_rows_are_what_their_schema_and_terms_say(written) -> None:
    """Every value is a sensible one, no grade is lower than its column looks, and the day is known."""
    example, folder = written
    assert {one.table for one in example.datasets} == {path.stem for path in folder.glob("*.parquet")}
    for one in example.datasets:
        schema = read_schema(folder / f"{one.table}.schema.json")
        survey = Survey(schema, one.terms.as_of, one.terms.update_days)
        rows = sum(batch.num_rows for batch in survey.watch(read_table(folder / f"{one.table}.parquet", schema)))
        profile = survey.profile()
        assert rows > 100 and profile.as_of is not None
        assert survey.too_low() == ()
        ruled = [column for column in profile.columns if column.valid is not None]
        assert len(ruled) >= 1 and all(column.valid == 1000 for column in ruled)
        assert all(column.complete == 1000 for column in profile.columns)


def test_what_looks_like_a_person_is_masked(written) -> None:
    example, folder = written
    for one in example.datasets:
        schema = read_schema(folder / f"{one.table}.schema.json")
        found = {each.column for each in suggest(read_table(folder / f"{one.table}.parquet", schema))}
        sensitive = {field.name for field in schema.fields if field.grade in (Grade.L3, Grade.L4)}
        masked = {field.name for field in schema.fields if field.masking}
        assert found <= masked
        # Without a rule, grade L3 shows nothing, but dates as their year.
        assert all(field.masking or field.grade is Grade.L3 for field in schema.fields if field.name in sensitive)


def test_files_say_that_they_were_generated(written) -> None:
    example, folder = written
    text = (folder / "PROVENANCE.md").read_text(encoding="utf-8")
    assert "Every row was generated" in text and f"jobs.{example.folder.name}.generate" in text
    assert "does not exist" in text or "no such stations" in text


@each
def test_the_same_seed_gives_the_same_rows(name: str) -> None:
    module = MODULES[name]
    first, again, other = module.generate(1), module.generate(1), module.generate(2)
    assert all(first[table].equals(again[table]) and not first[table].equals(other[table]) for table in first)


@each
def test_a_folder_is_complete(name: str) -> None:
    example = EXAMPLES[name]
    jobs = {document for application in example.applications for document in application.jobs}
    documents = {application.document for application in example.applications}
    assert {path.name for path in example.folder.glob("*.toml")} == jobs | documents | {"walkthrough.toml"}
    text = (example.folder / "scenario.toml").read_text(encoding="utf-8")
    assert all(words in text for words in ("用什么数：", "怎样供数：", "解决什么问题："))
    operated = [one for one in example.datasets if one.owner == "data-officer"]
    assert operated and all(one.terms.department for one in operated)
    for one in example.datasets:
        kinds = {word.isascii() for word in one.terms.keywords}
        assert kinds == {True, False}, f"{one.table}: keywords in both languages"
        assert one.terms.update_days and one.retention_days and one.terms.twin_epsilon_milli


@each
def test_the_page_registers_people_and_tables_as_the_walk_does(name: str) -> None:
    example = EXAMPLES[name]
    page = (example.folder / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    typed = [
        shlex.split(line) for line in page.splitlines() if line.startswith(("person ", "sandbox dataset register"))
    ]
    people = [tuple(words[1:]) for words in typed if words[0] == "person"]
    assert people == [(one.name, one.organisation, one.node, *one.roles) for one in example.people]
    nodes = {one.name: one.node for one in example.people}
    registered = [words[3:] for words in typed if words[0] == "sandbox"]
    assert len(registered) == len(example.datasets)
    for one, words in zip(example.datasets, registered, strict=True):
        terms = one.terms
        expected = [
            f"data/{one.table}.parquet",
            *("--schema", f"data/{one.table}.schema.json", "--name", one.name),
            *(("--department", terms.department) if terms.department else ()),
            *("--domain", terms.domain),
            *(part for word in terms.keywords for part in ("--keyword", word)),
            *("--update-days", str(terms.update_days), "--as-of", terms.as_of),
            *("--retention-days", str(one.retention_days), "--licence", one.licence),
            *("--twin-epsilon", f"{terms.twin_epsilon_milli / 1000:g}"),
            *("--key", one.owner, "--node", f"{nodes[one.owner]}.peer", "--json", ">", f"{one.table}.dataset.json"),
        ]
        assert words == expected


def test_an_example_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="no example"):
        Example.read("credit_score")
    with pytest.raises(SystemExit):
        main(["marriage_check", str(tmp_path)])  # a folder that is there is left alone
    assert not list(tmp_path.iterdir())


# --- the whole line ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walked:
    """An example whose jobs have run on twins and on rows."""

    walk: Walk
    digests: dict[str, bytes]
    told: dict[str, str]  # application -> why its first job was refused on rows
    approved: dict[str, tuple[str, ...]]
    on_twins: dict[str, dict[str, Done]]
    on_rows: dict[str, dict[str, Done]]

    @property
    def applications(self) -> dict[str, Application]:
        return {called(one): one for one in self.walk.example.applications}

    def table(self, application: str, job: str) -> pd.DataFrame:
        (output,) = self.on_rows[application][job].outcome.outputs.values()
        assert isinstance(output, pd.DataFrame)
        return output


def called(application: Application) -> str:
    return application.values.get("table", "")


def unconfined(least: Level) -> str:
    """Why this machine does not confine code at that level or a stronger one; nothing if it does."""
    try:
        found = probes.strongest()
    except Unavailable as error:
        return error.tell
    levels = list(Level)
    return "" if levels.index(found) <= levels.index(least) else f"at level {found} only"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNodes]:
    """One set of nodes for all examples; they admit on rows only what has run on twins."""
    settings = dict.fromkeys(ORGANISATIONS, STRICT)
    with LocalNodes(tmp_path_factory.mktemp("shared"), settings, ORGANISATIONS) as running:
        yield running


@pytest.fixture(scope="module", params=MODULES)
def walked(request: pytest.FixtureRequest, nodes: LocalNodes) -> Iterator[Walked]:
    with Walk(EXAMPLES[request.param], nodes, nodes.folder / request.param) as walk:
        done = Walked(walk, {}, {}, {}, {}, {})
        walk.meet()
        walk.register()
        for name, application in done.applications.items():
            digest = done.digests[name] = walk.apply(application)
            done.approved[name] = walk.approve(application, digest)
            if request.param in CONFINED and (reason := unconfined(CONFINED[request.param])):
                with pytest.raises(Unavailable, match="cannot confine code"):
                    walk.run(application, digest, test=True)
                pytest.skip(f"its statement is not confined here, and the node says so: {reason}")
            done.told[name] = walk.refused(application, digest)
            done.on_twins[name] = walk.run(application, digest, test=True)
            done.on_rows[name] = walk.run(application, digest, test=False)
        yield done


@pytest.mark.slow
def test_the_whole_line(walked: Walked) -> None:
    """Departments approve, rows are refused before twins, both runs are green, and every receipt holds."""
    example = walked.walk.example
    for name, application in walked.applications.items():
        departments = {one.terms.department for one in example.datasets if one.terms.department}
        if application.values:
            departments = {application.values["department"]}
        assert departments <= set(walked.approved[name]) and "operator" in walked.approved[name]
        assert walked.told[name] == REFUSALS["untested"]
        for runs, environment in ((walked.on_twins, Environment.TEST), (walked.on_rows, Environment.PRODUCTION)):
            assert [f"{job}.toml" for job in runs[name]] == list(application.jobs)
            for done in runs[name].values():
                assert (done.view.state, done.view.environment) == (State.RELEASED, environment)
                proven = walked.walk.trust(application).verify(done.outcome.receipt)
                assert proven.entry.job_id == done.view.job_id and proven.cosigners


@pytest.mark.slow
def test_the_catalogue_says_what_the_owner_said(walked: Walked) -> None:
    for one in walked.walk.example.datasets:
        view, owner = walked.walk.views[one.table], walked.walk.clients[one.owner]
        assert (view.department, view.domain, view.keywords) == (
            one.terms.department,
            one.terms.domain,
            one.terms.keywords,
        )
        assert (view.update_days, view.as_of, view.retention_days) == (
            one.terms.update_days,
            one.terms.as_of,
            one.retention_days,
        )
        assert view.twin is not None and view.twin.rows == view.rows
        for word in one.terms.keywords:
            assert view.code in {found.code for found in owner.search_datasets(word, one.terms.department)}


@pytest.mark.slow
def test_the_answer_is_that_of_the_rows_in_the_clear(walked: Walked) -> None:
    ANSWERS[walked.walk.example.folder.name](walked)


@pytest.mark.slow
def test_the_page_shows_what_leaves(walked: Walked) -> None:
    folder = walked.walk.example.folder
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (folder / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    (shown,) = [block for language, block in blocks if not language]
    name, application = next(iter(walked.applications.items()))
    table = walked.table(name, Path(application.jobs[-1]).stem)
    table = table.sort_values("id") if "id" in table else table
    lines = table.head(len(shown.splitlines()) - 1).to_string(index=False).replace("\x1f", " ")
    assert shown == lines + "\n"


@pytest.mark.slow
def test_rows_leave_under_consent_only(walked: Walked) -> None:
    """What the pages say of consent is what the scenarios have."""
    for name, application in walked.applications.items():
        page = (walked.walk.example.folder / "README.md").read_text(encoding="utf-8")
        client = walked.walk.clients[application.applicant]
        scenario = read_scenario(client.find_scenario(walked.digests[name]))
        rows_leave = any(rule.class_ is OutputClass.ROW_CONSENTED for rule in scenario.outputs)
        assert rows_leave == ("`row_consented`" in page) == bool(scenario.consent.letter_days)


# --- plain answers ----------------------------------------------------------------------------------------------------


def plain(walked: Walked) -> dict[str, pd.DataFrame]:
    return {name: table.to_pandas() for name, table in MODULES[walked.walk.example.folder.name].generate().items()}


def check_totals_by_turnover(walked: Walked) -> None:
    tables = plain(walked)
    edges = [0, 300_000, 600_000, 1_200_000, np.inf]
    assert set(walked.on_rows) == set(inclusive_finance.KNOWN)
    for department, (_, shared) in inclusive_finance.KNOWN.items():
        both = tables["applicants"].merge(tables[department], on="id")
        assert len(both) == shared
        aligned = walked.on_rows[department]["align"].outcome.outputs["aligned"]
        assert aligned == {"aligned": rounded(shared, 10)}
        bands = both.groupby(pd.cut(both.turnover, edges, right=False, labels=False))
        table = walked.table(department, "totals")
        assert table["rows"].tolist() == [rounded(size, 10) for size in bands.size()]
        base = bands.monthly_base.agg(lambda values: values.astype(float).round().mean())
        assert np.allclose(table["average_base"], base, rtol=0, atol=0.501)
        assert np.allclose(table["average_months"], bands.months_paid.mean(), rtol=0, atol=0.0501)


def check_medians(walked: Walked) -> None:
    tables = plain(walked)
    both = tables["applicants"].merge(tables["social"], on="id").astype({"monthly_base": float})
    assert len(both) == inclusive_finance.KNOWN["social"][1]
    assert walked.on_rows[""]["align"].outcome.outputs["aligned"] == {"aligned": rounded(len(both), 10)}
    table = walked.table("", "medians").set_index("sector")
    assert tuple(table.index) == inclusive_finance.SECTORS
    groups = both.groupby("sector")
    assert table["known"].tolist() == [rounded(size, 10) for size in groups.size().loc[table.index]]
    expected = pd.DataFrame(
        {
            "lower_quarter": groups.monthly_base.quantile(0.25),
            "middle": groups.monthly_base.median(),
            "upper_quarter": groups.monthly_base.quantile(0.75),
            "mean_turnover": groups.turnover.mean(),
        }
    ).loc[table.index]
    # Of amounts in whole yuan, and then in whole yuan itself.
    assert np.allclose(table[expected.columns], expected, rtol=0, atol=1.001)


def check_couples(walked: Walked) -> None:
    tables = plain(walked)
    spelled = {
        name: {
            tuple("".join(part.split()).upper() for part in couple)
            for couple in table[["husband_id", "wife_id"]].itertuples(index=False)
        }
        for name, table in tables.items()
    }
    married = spelled["couples"] & spelled["marriages"]
    assert len(married) == marriage_check.MARRIED
    found = {tuple(key.split("\x1f")) for key in walked.table("", "members")["id"]}
    assert found == married
    husbands = {couple[0] for couple in spelled["marriages"]}
    astray = [couple for couple in spelled["couples"] - married if couple[0] in husbands]
    assert len(astray) == marriage_check.CROSSED  # married, but not to each other: not in the answer


def check_certificates(walked: Walked) -> None:
    tables = plain(walked)
    both = tables["couriers"].merge(tables["certificates"], left_on="worker_id", right_on="holder_id")
    assert len(both) == health_certificates.HELD
    _same_rows(walked.table("", "joined"), both.rename(columns={"worker_id": "id"})[["id", "kind", "valid_until"]])


def check_cars(walked: Walked) -> None:
    tables = plain(walked)
    both = tables["yard"].merge(tables["vehicles"], left_on="vin", right_on="vehicle_number")
    assert len(both) == car_history.ON_RECORD
    found = walked.table("", "joined")
    _same_rows(found, both.rename(columns={"vin": "id"})[["id", "first_registered", "mileage", "accidents"]])
    compared = found.merge(tables["yard"], left_on="id", right_on="vin")
    shown = np.searchsorted(car_history.EDGES, compared.clock, side="right")
    recorded = compared.mileage.map(car_history.MILEAGES.index)
    assert 0 < (shown < recorded).sum() < 15  # clocks that were turned back across a band


def check_index(walked: Walked) -> None:
    rows = plain(walked)["stations"]
    rows = rows.astype({"salinity": float, "water": float, "rain": float})
    groups = rows.groupby(["sea_area", "month"])
    table = walked.table("", "index").set_index(["sea_area", "month"])
    assert len(table) == len(oyster_weather.AREAS) * len(oyster_weather.MONTHS)
    expected = pd.DataFrame(
        {
            "mean_salinity": groups.salinity.mean(),
            "low_salinity": groups.salinity.quantile(0.25),
            "mean_water": groups.water.mean(),
            "mean_rain": groups.rain.mean(),
        }
    ).loc[table.index]
    assert table["days"].tolist() == [rounded(size, 10) for size in groups.size().loc[table.index]]
    assert np.allclose(table[expected.columns], expected, rtol=0, atol=0.0501)


def check_totals_by_industry(walked: Walked) -> None:
    rows = pd.concat(plain(walked).values()).astype({"purifier_kwh": float})
    assert not rows.credit_code.duplicated().any()
    groups = rows.groupby("industry")
    table = walked.table("", "totals").set_index("industry")
    expected = groups.purifier_kwh.agg(lambda values: values.round().sum()).loc[table.index]
    assert (table["kwh"] == expected).all()
    assert table["rows"].tolist() == [rounded(size, 10) for size in groups.size().loc[table.index]]
    bands = pd.crosstab(rows.industry, pd.cut(rows.idle_hours, [0, 8, 24, 10_000], right=False)).loc[table.index]
    told = table[[column for column in table if column.startswith("idle: ")]]
    assert told.to_numpy().tolist() == [[rounded(size, 10) for size in line] for line in bands.to_numpy()]


def _same_rows(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    for table in (found, expected):
        for column in table.columns:
            table[column] = table[column].astype(str)
    found, expected = (table.sort_values("id", ignore_index=True) for table in (found, expected))
    pd.testing.assert_frame_equal(found, expected)


ANSWERS = {
    "inclusive_finance": check_totals_by_turnover,
    "loan_medians": check_medians,
    "marriage_check": check_couples,
    "health_certificates": check_certificates,
    "car_history": check_cars,
    "oyster_weather": check_index,
    "power_and_pollution": check_totals_by_industry,
}
