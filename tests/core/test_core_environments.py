"""Two environments, recipes that tie them, and dataset versions by rule: as admission sees them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_builders import BANK, FLOORS, JOB, LEFT, NOW, OFFICER, OTHER, RIGHT, facts, psi, scenario, standing
from sqlalchemy import Connection, insert, update

from sandbox import pinned, signed, wire
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import IntegrityFailed, InvalidSpec, PolicyRefused, Unauthenticated, Unavailable
from sandbox.model import (
    AggregateSpec,
    ApplicantScore,
    Approval,
    ApprovalRecord,
    DatasetRef,
    DatasetUse,
    DepartmentApproval,
    Environment,
    JobKind,
    JobSpec,
    Measure,
    ModelSpec,
    Plan,
    PsiEngine,
    PsiSpec,
    QuerySpec,
    Scenario,
    ScoreSpec,
    Signed,
    State,
    Statistic,
    TrainSpec,
    VersionNotice,
    VersionRule,
)
from sandbox.policy import book, departments, versions
from sandbox.policy.admit import REFUSALS, Choices, Earlier, Facts, OwnDataset, admit, agree
from sandbox.policy.recipe import recipe
from sandbox.store import Store, datasets

DAY = 86_400_000
SCHEMA = b"C" * 32
TEST = psi(environment=Environment.TEST)
ANY = psi(kind=PsiSpec(DatasetRef(LEFT.code, 0), DatasetRef(RIGHT.code, 0), PsiEngine.AUTO))
OWNER = PrivateKey.generate()


def plan(spec: JobSpec, known: Facts, choices: Choices = BANK) -> Plan:
    return admit(spec, JOB, b"D" * 32, known, choices)


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_a_recipe_is_of_what_is_asked_not_of_which_day_or_person() -> None:
    left, right = PsiSpec(LEFT, RIGHT, PsiEngine.AUTO), DatasetRef(RIGHT.code, 9)
    same = [
        psi(),
        psi(kind=replace(left, right=right)),
        psi(request_id="another", deadline_s=60, environment=Environment.TEST),
    ]
    assert len({recipe(spec) for spec in same}) == 1
    assert recipe(psi(kind=replace(left, bucket_rows=1000))) == recipe(psi(kind=replace(left, bucket_rows=5000)))
    train = TrainSpec("a" * 32, 10, 20, b"seed", 5)
    trains = [replace(psi(), kind=kind) for kind in (train, replace(train, alignment="b" * 32, seed=b"other"))]
    assert recipe(trains[0], b"E" * 32) == recipe(trains[1], b"E" * 32) != recipe(trains[0], b"F" * 32)
    people = [
        replace(psi(), kind=ScoreSpec("a" * 32, ApplicantScore(commitment))) for commitment in (b"1" * 32, b"2" * 32)
    ]
    assert recipe(people[0], b"E" * 32) == recipe(people[1], b"E" * 32)


OTHERS: list[tuple[Any, dict[str, Any]]] = [
    (PsiSpec(LEFT, RIGHT, PsiEngine.AUTO), {"engine": PsiEngine.ECDH_SM2}),
    (PsiSpec(LEFT, RIGHT, PsiEngine.AUTO), {"right": DatasetRef("other", RIGHT.version)}),
    (PsiSpec(LEFT, RIGHT, PsiEngine.AUTO), {"columns": ("income",)}),
    (PsiSpec(LEFT, RIGHT, PsiEngine.AUTO), {"bucket_rows": 1000}),
    (TrainSpec("a" * 32, 10, 20, b"s", 5), {"steps": 11}),
    (TrainSpec("a" * 32, 10, 20, b"s", 5), {"release_scorecard": True}),
    (QuerySpec(LEFT, "SELECT 1"), {"sql": "SELECT 2"}),
    (ModelSpec(LEFT, b"B" * 32), {"bundle": b"C" * 32}),
    (ModelSpec(LEFT, b"B" * 32), {"params": '{"a":1}'}),
    (
        AggregateSpec((LEFT, RIGHT), "", ("city",), (Measure("n", Statistic.COUNT, "x"),), 2048),
        {"measures": (Measure("n", Statistic.SUM, "x"),)},
    ),
]


@pytest.mark.parametrize(("kind", "change"), OTHERS)
def test_whatever_else_is_asked_is_another_recipe(kind: Any, change: dict[str, Any]) -> None:
    one, other = (replace(psi(), kind=asked) for asked in (kind, replace(kind, **change)))
    assert recipe(one) != recipe(other)


def test_kinds_do_not_share_recipes() -> None:
    assert len({recipe(replace(psi(), kind=kind)) for kind, _ in OTHERS}) == 5


# --- test and production ----------------------------------------------------------------------------------------------


def test_production_waits_for_the_same_recipe_on_twins() -> None:
    with pytest.raises(PolicyRefused) as refused:
        plan(psi(), facts(is_tested=False))
    assert refused.value.tell == REFUSALS["untested"] and "--test" in refused.value.hint
    assert plan(psi(), facts(is_tested=True)).environment is Environment.PRODUCTION


def test_a_test_needs_a_twin_and_no_earlier_test() -> None:
    with pytest.raises(Unavailable, match="no twin"):
        plan(TEST, facts(is_tested=False))
    twin = facts(is_tested=False, own={LEFT: OwnDataset(b"L" * 32, 600, True, twin_rows=50)})
    assert plan(TEST, twin).environment is Environment.TEST


def test_tests_use_no_quota_and_what_is_used_up_does_not_stop_them() -> None:
    known = facts(own={LEFT: OwnDataset(b"L" * 32, 600, True, twin_rows=50)})
    spent = replace(known, used=replace(known.used, calls_total=10**6))
    assert plan(TEST, spent)


@pytest.mark.parametrize("environment", list(Environment))
def test_a_job_builds_on_one_of_its_own_environment(environment: Environment) -> None:
    own = {LEFT: OwnDataset(b"L" * 32, 600, True, twin_rows=50)}
    spec = JobSpec("t", b"S" * 32, TrainSpec("a" * 32, 10, 20, b"s", 5), environment=environment)
    for earlier in Environment:
        aligned = Earlier(JobKind.PSI, State.RELEASED, plan(psi(environment=earlier), facts(own=own)), 480)
        known = facts(own=own, earlier=aligned)
        if earlier is environment:
            assert plan(spec, known).environment is environment
        else:
            with pytest.raises(PolicyRefused) as refused:
                plan(spec, known)
            assert refused.value.tell == REFUSALS["earlier"]


# --- versions by rule -------------------------------------------------------------------------------------------------


def by_rule(max_age_days: int = 0) -> Scenario:
    """The scenario, with the operator's dataset by rule."""
    left, right = scenario().datasets
    ruled = replace(
        right,
        rule=VersionRule.SAME_SCHEMA,
        version=0,
        content_hash=b"",
        schema_digest=SCHEMA,
        max_age_days=max_age_days,
    )
    return scenario(datasets=(left, ruled))


def offer(version: int = 7, **changes: Any) -> VersionNotice:
    whole = VersionNotice(RIGHT.code, version, "operator", bytes([version]) * 32, SCHEMA, 900, NOW - 5 * DAY)
    return replace(whole, **changes)


def knowing(*notices: VersionNotice, max_age_days: int = 0) -> Facts:
    """Facts with versions on offer; the last one is the newest."""
    known = {DatasetRef(one.code, one.version): one for one in notices}
    if notices:
        known[DatasetRef(RIGHT.code, 0)] = notices[-1]
    return facts(standing=standing(scenario=by_rule(max_age_days)), offered=known)


def test_the_newest_version_is_pinned_in_the_plan() -> None:
    made = plan(ANY, knowing(offer(6), offer(7)))
    left, right = made.parties[:2]
    assert (left.dataset, left.content_hash) == (LEFT, b"L" * 32)
    assert (right.dataset, right.content_hash) == (DatasetRef(RIGHT.code, 7), bytes([7]) * 32)


def test_a_version_may_be_named() -> None:
    named = psi(kind=PsiSpec(LEFT, DatasetRef(RIGHT.code, 6), PsiEngine.AUTO))
    assert plan(named, knowing(offer(6), offer(7))).parties[1].dataset == DatasetRef(RIGHT.code, 6)


BAD = {
    "unknown": knowing(),
    "another schema": knowing(offer(schema_digest=b"D" * 32)),
    "another's": knowing(offer(owner="third")),
    "too old": knowing(offer(created_ms=NOW - 31 * DAY), max_age_days=30),
    "of tomorrow": knowing(offer(created_ms=NOW + DAY), max_age_days=30),
    "gone": knowing(offer(gone=True)),
}


@pytest.mark.parametrize("case", BAD)
def test_a_version_that_the_rule_does_not_cover_is_refused(case: str) -> None:
    with pytest.raises(PolicyRefused) as refused:
        plan(ANY, BAD[case])
    assert refused.value.tell == REFUSALS["version"]


def test_a_version_is_as_old_as_the_rule_allows() -> None:
    assert plan(ANY, knowing(offer(created_ms=NOW - 30 * DAY), max_age_days=30))


def test_the_other_party_pins_what_the_proposer_did_even_if_it_has_newer() -> None:
    """It may have registered another version meanwhile; the proposer's choice stands as long as the rule covers it."""
    ours = plan(ANY, knowing(offer(6)))
    told = tuple(party.dataset for party in ours.parties if party.dataset is not None)
    known = knowing(offer(6), offer(7))
    theirs = replace(known, node_id="operator", own={DatasetRef(RIGHT.code, 6): OwnDataset(bytes([6]) * 32, 900, True)})
    choices = Choices("bank", ours.engine, ours.deadline_s, ours.time_ms, told)
    agree(plan(ANY, theirs, choices), ours, "operator")


def test_a_proposer_cannot_pin_other_than_was_asked() -> None:
    named = psi(kind=PsiSpec(LEFT, DatasetRef(RIGHT.code, 7), PsiEngine.AUTO))
    known = replace(knowing(offer(6), offer(7)), node_id="operator")
    with pytest.raises(PolicyRefused) as refused:
        plan(named, known, Choices("bank", datasets=(LEFT, DatasetRef(RIGHT.code, 6))))
    assert refused.value.tell == REFUSALS["dataset"]


def test_spec_and_scenario_have_their_versions_filled_in() -> None:
    made = plan(ANY, knowing(offer(7)))
    refs = [party.dataset for party in made.parties if party.dataset is not None]
    spec = pinned.spec_of(ANY, refs)
    assert isinstance(spec.kind, PsiSpec) and (spec.kind.left, spec.kind.right) == (LEFT, DatasetRef(RIGHT.code, 7))
    uses: tuple[DatasetUse, ...] = pinned.for_plan(by_rule(), made).datasets
    assert [(use.version, use.content_hash) for use in uses] == [(LEFT.version, b"L" * 32), (7, bytes([7]) * 32)]
    assert pinned.for_plan(scenario(), made) == scenario()


# --- notices ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.at(tmp_path / "store.db")
    made.create()
    return made


def dated(version: int = 7, **changes: Any) -> VersionNotice:
    """A notice that the clock of this machine has nothing against."""
    return offer(version, **{"created_ms": 1} | changes)


def given(version: int = 7, **changes: Any) -> Signed:
    return signed.sign(OWNER, "version", dated(version, **changes))


def put(conn: Connection, *notices: Signed) -> None:
    for one in notices:
        versions.file(conn, one, OWNER.public, "operator")


def newest(conn: Connection) -> int | None:
    """What version 0 means at a node that is not the owner's, or is."""
    wanted = DatasetRef(RIGHT.code, 0)
    found = versions.offered(conn, by_rule(), [wanted]).get(wanted)
    return None if found is None else found.version


def carried(conn: Connection, held: Scenario | None = None) -> list[VersionNotice]:
    """What a bundle says of versions."""
    return [wire.decode(VersionNotice, one.payload) for one in versions.records(conn, held or by_rule())]


def test_notices_count_if_their_owner_signed_them(store: Store) -> None:
    notice = given()
    with store.write() as conn:
        for _ in range(2):
            assert versions.file(conn, notice, OWNER.public, "operator") == dated()
        with pytest.raises(InvalidSpec, match="of operator"):
            versions.file(conn, notice, OWNER.public, "bank")
        with pytest.raises(Unauthenticated):
            versions.file(conn, notice, PrivateKey.generate().public, "operator")
        assert versions.records(conn, by_rule()) == (notice,)
        assert versions.records(conn, scenario()) == ()


def test_version_zero_means_the_newest_of_the_schema(store: Store) -> None:
    with store.write() as conn:
        for one in (dated(6), dated(7), dated(8, schema_digest=b"D" * 32), dated(9, owner="third")):
            versions.file(conn, signed.sign(OWNER, "version", one), OWNER.public, one.owner)
        wanted = DatasetRef(RIGHT.code, 0), DatasetRef(RIGHT.code, 6), DatasetRef(RIGHT.code, 8), LEFT
        found = versions.offered(conn, by_rule(), wanted)
    assert {ref: one.version for ref, one in found.items()} == {wanted[0]: 7, wanted[1]: 6}


def test_an_owner_that_says_two_things_of_one_version_is_found_out(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with store.write() as conn:
        put(conn, given(7))
        for other in (given(7, content_hash=b"x" * 32), given(7, created_ms=2), given(7, rows=1, gone=True)):
            with pytest.raises(IntegrityFailed) as failure:
                put(conn, other)
            assert failure.value.party == "operator"
        versions.learn(conn, [given(7, rows=1), given(8)], lambda owner: OWNER.public)  # the rest counts all the same
        assert newest(conn) == 8 and "two notices of people version 7" in caplog.text
        kept = versions.offered(conn, by_rule(), [DatasetRef(RIGHT.code, 7)])
    assert list(kept.values()) == [dated(7)]


def test_a_version_is_not_of_tomorrow(store: Store) -> None:
    now = signed.now_ms()
    with store.write() as conn:
        put(conn, given(6, created_ms=now + 60_000))
        with pytest.raises(InvalidSpec, match="in the future"):
            put(conn, given(7, created_ms=now + 180_000))
        assert newest(conn) == 6


def test_what_is_gone_is_no_version_any_more_whatever_comes_first(store: Store) -> None:
    with store.write() as conn:
        put(conn, given(5), given(6), given(7), given(7, gone=True), given(7))
        assert newest(conn) == 6
        assert versions.offered(conn, by_rule(), [DatasetRef(RIGHT.code, 7)]) == {}
        put(conn, given(6, gone=True), given(8, gone=True), given(8))
        assert newest(conn) == 5
        assert [(one.version, one.gone) for one in carried(conn)] == [(5, False), (8, True), (7, True), (6, True)]
        put(conn, given(9))
        assert carried(conn) == [dated(9)]


def test_a_bundle_has_room_for_what_is_gone(store: Store) -> None:
    with store.write() as conn:
        put(conn, given(1), *(given(version, gone=True) for version in range(2, 41)))
        found = [one.version for one in carried(conn)]
    assert found == [1, *range(40, 40 - versions.MOST_GONE, -1)] and 8 * len(found) <= 256


# --- own versions -----------------------------------------------------------------------------------------------------


def own(conn: Connection, version: int, department: str = "", state: str = "active") -> None:
    """A version in this node's catalogue, the operator's, with its notice."""
    text = dict.fromkeys(("domain", "keywords", "as_of", "visible_to", "words", "licence"), "")
    row = {"code": RIGHT.code, "version": version, "name": "people", "schema_json": b"{}", "rows": 900, "state": state}
    row |= {"content_hash": bytes([version]) * 32, "schema_digest": SCHEMA, "created_ms": 1, "retention_days": 0}
    conn.execute(insert(datasets).values(**row, **text, department=department, update_days=0, profile=b"{}"))
    put(conn, given(version))


def test_an_own_version_that_was_destroyed_is_not_offered_and_others_hear_of_it(store: Store) -> None:
    with store.write() as conn:
        own(conn, 6)
        own(conn, 7)
        assert newest(conn) == 7
        conn.execute(update(datasets).where(datasets.c.version == 7).values(state="destroyed"))
        assert newest(conn) == 6 and carried(conn) == [dated(6)]  # destroyed before there were words for it
        for _ in range(2):
            versions.withdraw(conn, OWNER, "operator", RIGHT.code, 7)
        versions.withdraw(conn, OWNER, "operator", RIGHT.code, 99)  # never offered
        assert newest(conn) == 6
        assert carried(conn) == [dated(6), dated(7, gone=True)]
        put(conn, given(8))  # offered by a node whose store was set back since: it does not have it
        assert newest(conn) == 6


def vouch(conn: Connection, held: Scenario, *names: str) -> None:
    """File a scenario and approve it in the operator's name, with the approvals of departments."""
    application = signed.sign(OFFICER, "scenario", held)
    digest = book.file(conn, application, FLOORS)
    approval = signed.sign(OTHER, "approval", Approval(digest, "operator", False, NOW))
    key = OTHER.public.to_bytes()
    inside = tuple(DepartmentApproval(name, approval, key) for name in names)
    record = signed.sign(OWNER, "approval-record", ApprovalRecord(approval, key, inside))
    book.approve(conn, record, OWNER.public, "operator")


def test_a_department_that_was_not_asked_lends_no_version(store: Store) -> None:
    held = by_rule()
    with store.write() as conn:
        own(conn, 5)
        own(conn, 6, "Health")
        own(conn, 7, "Social")
        assert newest(conn) == 5 and departments.allowed(conn, held, "operator") == {""}  # nobody approved yet
        vouch(conn, held, "Health")
        vouch(conn, replace(held, purpose="another"), "Health", "Social")
        assert departments.allowed(conn, held, "operator") == {"", "Health"}
        assert newest(conn) == 6 and carried(conn, held) == [dated(6)]
        for version in (6, 7):
            asked = DatasetRef(RIGHT.code, version)
            assert (asked in versions.offered(conn, held, [asked])) is (version == 6)
        versions.withdraw(conn, OWNER, "operator", RIGHT.code, 7)
        assert carried(conn, held) == [dated(6)]  # nor is it told that there was one


def test_admission_refuses_a_version_of_a_department_that_was_not_asked(store: Store) -> None:
    named = psi(kind=PsiSpec(LEFT, DatasetRef(RIGHT.code, 7), PsiEngine.AUTO))
    with store.write() as conn:
        own(conn, 7, "Social")
        for agreed, is_refused in (((), True), (("Social",), False)):
            held = replace(by_rule(), nonce=bytes([len(agreed)]) * 16)
            vouch(conn, held, *agreed)
            known = replace(knowing(), offered=versions.offered(conn, held, [DatasetRef(RIGHT.code, 7)]))
            if is_refused:
                with pytest.raises(PolicyRefused) as refused:
                    plan(named, known)
                assert refused.value.tell == REFUSALS["version"]
            else:
                assert plan(named, known).parties[1].dataset == DatasetRef(RIGHT.code, 7)
