"""Scenario, admission and quota: each refusal by its own words, and what is let through."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from core_builders import (
    ALL,
    BANK,
    DAY,
    FLOORS,
    JOB,
    LEFT,
    NOW,
    OTHER,
    RIGHT,
    THIRD,
    departments,
    facts,
    psi,
    scenario,
    standing,
    totals,
)
from sqlalchemy import select

from sandbox.errors import BudgetSpent, InvalidSpec, PartyFailed, PolicyRefused, Unavailable
from sandbox.kinds import confined
from sandbox.model import (
    ApplicantScore,
    BatchScore,
    Consent,
    ConsentRule,
    DatasetRef,
    Dimension,
    JobKind,
    JobSpec,
    MeasureRange,
    ModelSpec,
    NoticeKind,
    OutputClass,
    OutputRule,
    PartyRole,
    Plan,
    PriceTerms,
    PsiEngine,
    PsiSpec,
    QuerySpec,
    Quota,
    Scenario,
    ScoreScope,
    ScoreSpec,
    State,
    TrainSpec,
    VersionRule,
)
from sandbox.policy import quota
from sandbox.policy.admit import REFUSALS, Choices, Earlier, Facts, OwnDataset, Used, admit, agree, rows_needed
from sandbox.policy.scenario import Given, check, coefficient, required
from sandbox.store import Store, usage
from sandbox.tee_sim.levels import Level

ONE = scenario()
BANK_USE, OPERATOR_USE = ONE.datasets
ALIGNED, TRAINING, METRICS, SCORES = ONE.outputs


# --- the application ------------------------------------------------------------------------------------------------


def uses(**changes: Any) -> dict[str, Any]:
    return {"datasets": (replace(BANK_USE, **changes), OPERATOR_USE)}


def outputs(rule: OutputRule, **changes: Any) -> dict[str, Any]:
    return {"outputs": (*(r for r in ONE.outputs if r is not rule), replace(rule, **changes))}


BANDS, RANGE = Dimension("bands", "late", (), (1, 5)), MeasureRange("income", 0, 1)
LATE_RANGE = MeasureRange("late", 0, 9)
MEMBERS = OutputRule(JobKind.PSI, "members", OutputClass.ROW_CONSENTED, 0, 1, 1000, 100_000)
CARD = OutputRule(JobKind.TRAIN, "scorecard", OutputClass.MODEL, 10, 10, 1000, 100_000, reviewed=True)
ROWS: dict[str, Any] = {"kinds": (JobKind.PSI,), "outputs": (MEMBERS,)}  # rows of people leave, and nobody is scored
TABLE = OutputRule(JobKind.QUERY, "table", OutputClass.AGGREGATE, 10, 10, 1000, 100_000)
LEARNT = OutputRule(JobKind.MODEL, "learnt", OutputClass.MODEL, 10, 10, 1000, 100_000, reviewed=True)
STATED: dict[str, Any] = {"kinds": (JobKind.QUERY,), "outputs": (TABLE,), "measures": (RANGE,), "computing_parties": ()}
MODELS: dict[str, Any] = {"kinds": (JobKind.MODEL,), "outputs": (LEARNT,), "bundles": (b"B" * 32,)}

BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"datasets": ()}, "not complete: datasets ("),
    ({"datasets": tuple(replace(BANK_USE, version=n) for n in range(1, 10))}, "datasets must name one to eight"),
    ({"datasets": (BANK_USE, BANK_USE)}, "datasets names one twice"),
    ({"recipient": replace(ONE.recipient, node_id="witness")}, "recipient.node_id must be"),
    ({"computing_parties": ("operator",)}, "computing_parties must not own"),
    (uses(version=0), "datasets.bank-loans.version"),
    (uses(key=()), "datasets.bank-loans.key"),
    (uses(key=("id", "id")), "datasets.bank-loans.key"),
    (uses(fields=("income", "income")), "datasets.bank-loans.fields names one twice"),
    (uses(fields=("income", "id")), "datasets.bank-loans.fields must not repeat"),
    (uses(fields=("income", "bad")), "datasets.bank-loans.fields must not repeat"),
    ({"kinds": ()}, "not complete: kinds ("),
    ({"kinds": (*ONE.kinds, JobKind.PSI)}, "kinds must name"),
    (uses(label=""), "not complete: datasets.label ("),
    ({"datasets": (BANK_USE, replace(OPERATOR_USE, label="late2"))}, "datasets must name one label"),
    ({"computing_parties": ()}, "not complete: computing_parties ("),
    ({"kinds": (JobKind.PSI, JobKind.SCORE)}, "outputs.training is of a kind"),
    (outputs(ALIGNED, name="rows"), "outputs.rows is not an output"),
    (outputs(ALIGNED, class_=OutputClass.REPORT), "outputs.aligned is not an output"),
    ({"outputs": (*ONE.outputs, ALIGNED)}, "outputs.aligned is named twice"),
    ({"outputs": ()}, "not complete: outputs of psi ("),
    (outputs(ALIGNED, min_group=9), "outputs.aligned.min_group is below 10"),
    (outputs(METRICS, round_to=9), "outputs.metrics.round_to is below 10"),
    (outputs(SCORES, max_rows=0), "outputs.scores.max_rows"),
    (outputs(SCORES, max_bytes=0), "outputs.scores.max_bytes"),
    ({"not_after_ms": ONE.not_before_ms}, "not_after_ms must follow"),
    ({"not_after_ms": ONE.not_before_ms + 4 * 366 * DAY}, "not_after_ms must follow"),
    (outputs(ALIGNED, top_two=1001), "outputs.aligned.top_two must be"),
    ({"outputs": (*ONE.outputs, replace(CARD, reviewed=False))}, "outputs.scorecard.reviewed must be true"),
    ({"outputs": (*ONE.outputs, CARD)}, "outputs must not give out both people's scores"),
    ({"kinds": ONE.kinds[:2], "outputs": (*ONE.outputs[:2], CARD), "score_step": 4}, "score_step is finer than 5"),
    ({"quota": Quota(0, 1, 1)}, "quota.calls_per_day"),
    ({"quota": Quota(1, 0, 1)}, "quota.calls_total"),
    ({"quota": Quota(1, 1, 0)}, "quota.rows_total"),
    ({"score_step": 4}, "score_step is finer than 5"),
    ({"models_per_person": 0}, "models_per_person"),
    ({"consent": replace(ONE.consent, single=ConsentRule.HELD_LETTER)}, "consent.single must be TOKEN"),
    ({"consent": replace(ONE.consent, batch=ConsentRule.NONE)}, "not complete: consent.batch ("),
    ({"consent": replace(ONE.consent, issuers=())}, "not complete: consent.issuers ("),
    ({"dimensions": (BANDS, BANDS)}, "dimensions names one twice"),
    ({"dimensions": (BANDS, replace(BANDS, name="finer", edges=(1, 2, 5)))}, "dimensions has two over one column"),
    ({"dimensions": (replace(BANDS, edges=(2, 1)),)}, "dimensions.bands must have ascending edges"),
    ({"dimensions": (replace(BANDS, values=("a",)),)}, "dimensions.bands must have either"),
    ({"dimensions": (replace(BANDS, column="id"),)}, "dimensions.bands.column is no field"),
    ({"dimensions": (replace(BANDS, column=""),)}, "dimensions.bands.column is no field"),
    ({"measures": (RANGE, RANGE)}, "measures names a column twice"),
    ({"measures": (replace(RANGE, low=2),)}, "measures.income must have low <= high"),
    ({"measures": (replace(RANGE, column="id"),)}, "measures.id is no field"),
    ({"measures": (replace(RANGE, places=10),)}, "measures.income must have 0 to 9 places"),
    ({**ROWS, "consent": Consent(ConsentRule.NONE, ConsentRule.NONE, ())}, "not complete: consent.batch ("),
    ({**ROWS, "consent": Consent(ConsentRule.TOKEN, ConsentRule.NONE, ())}, "consent.batch must be HELD_LETTER"),
    ({"isolation": "confined"}, "isolation is for queries and models"),
    ({"isolation": "none"}, "isolation must be one of confined, unprivileged, narrowed"),
    ({"bundles": (bytes(32),)}, "bundles must name one for models, and none without"),
    ({**STATED, "isolation": "Confined"}, "isolation must be one of"),
    ({**STATED, "datasets": (BANK_USE, replace(BANK_USE, version=2))}, "datasets must be one of each owner"),
    ({**MODELS, "bundles": ()}, "not complete: bundles ("),
    ({**MODELS, "bundles": (bytes(32), bytes(32))}, "bundles names one twice"),
    ({"price": PriceTerms("fujian-2024", "1.5", False)}, "price.coefficient"),
    ({"price": PriceTerms("fujian-2024", "1e0", False)}, "price.coefficient"),
    ({"price": PriceTerms("fujian-2024", "1\n", False)}, "price.coefficient"),
    ({"price": PriceTerms("fujian-2024", "-0.1", False)}, "price.coefficient"),
]


def test_a_whole_scenario_passes() -> None:
    check(ONE, FLOORS)
    check(scenario(dimensions=(BANDS, replace(BANDS, name="bad", column="bad")), measures=(RANGE,)), FLOORS)
    check(scenario(**ROWS, consent=Consent(ConsentRule.HELD_LETTER, ConsentRule.NONE, (), letter_days=14)), FLOORS)
    check(departments(), FLOORS)
    check(scenario(**STATED), FLOORS)
    check(scenario(**MODELS, isolation="narrowed"), FLOORS)
    assert required(ONE) == {"bank", "operator", "witness"}
    assert coefficient(replace(ONE, price=PriceTerms("fujian-2024", "0.25", False))) == Decimal("0.25")


@pytest.mark.parametrize(("changes", "told"), BROKEN, ids=[f"{n}-{told[:30]}" for n, (_, told) in enumerate(BROKEN)])
def test_a_scenario_that_could_not_run_or_asks_too_much_is_refused_by_field(changes: Any, told: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        check(scenario(**changes), FLOORS)
    assert told in refusal.value.tell


def test_totals_are_over_one_dataset_of_each_owner() -> None:
    """Two versions of one dataset differ by a few people, and so would their totals."""
    held = departments()
    more = replace(held.datasets[1], version=3)
    with pytest.raises(InvalidSpec, match="one of each owner for totals"):
        check(replace(held, datasets=(*held.datasets, more)), FLOORS)
    kept = tuple(rule for rule in held.outputs if rule.kind is JobKind.PSI)
    check(replace(held, datasets=(*held.datasets, more), kinds=(JobKind.PSI,), outputs=kept), FLOORS)


@pytest.mark.parametrize("where", ["applicant_key", "recipient.identity_key", "recipient.sealing_key", "issuers"])
def test_a_key_that_is_no_point_is_refused(where: str) -> None:
    off = b"\4" + bytes(63) + b"\1"
    changed: dict[str, dict[str, Any]] = {
        "applicant_key": {"applicant_key": off},
        "recipient.identity_key": {"recipient": replace(ONE.recipient, identity_key=off)},
        "recipient.sealing_key": {"recipient": replace(ONE.recipient, sealing_key=off)},
        "issuers": {"consent": replace(ONE.consent, issuers=(off,))},
    }
    with pytest.raises(InvalidSpec):
        check(scenario(**changed[where]), FLOORS)


def test_where_a_scenario_stands() -> None:
    assert standing().state(NOW) == "active"
    assert standing(approved_by={"bank": Given()}).state(NOW) == "awaiting"
    assert standing(approved_by={"bank": Given()}).awaiting() == {"operator", "witness"}
    assert standing().state(ONE.not_before_ms - 1) == "awaiting"
    assert standing().state(ONE.not_before_ms) == "active"
    assert standing().state(ONE.not_after_ms - 1) == "active"
    assert standing().state(ONE.not_after_ms) == "expired"
    assert standing(revoked=True).state(NOW) == "revoked"
    assert standing(revoked=True, approved_by={}).state(ONE.not_after_ms) == "revoked"


# --- admission ------------------------------------------------------------------------------------------------------


def plan_of(spec: JobSpec | None = None, known: Facts | None = None, choices: Choices = BANK) -> Plan:
    return admit(spec or psi(), JOB, b"D" * 32, known or facts(), choices)


def earlier(kind: JobKind, **changes: Any) -> Earlier:
    done = Earlier(kind, State.RELEASED, plan_of(), 480)
    return replace(done, **changes)


TRAIN = JobSpec("t", b"S" * 32, TrainSpec("cd" * 16, 30, 20, b"seed", 1000))
BATCH = JobSpec("b", b"S" * 32, ScoreSpec("ef" * 16, BatchScore(ScoreScope.HOLDOUT)))
SINGLE = JobSpec("s", b"S" * 32, ScoreSpec("ef" * 16, ApplicantScore(bytes(32))))
ALIGNED_JOB, MODEL_JOB = earlier(JobKind.PSI), earlier(JobKind.TRAIN)


def held(**changes: Any) -> Facts:
    return facts(standing=standing(scenario=scenario(**changes)))


QUERY = JobSpec("q", b"S" * 32, QuerySpec(LEFT, "SELECT avg(income) AS mean FROM data"))
CODE = JobSpec("m", b"S" * 32, ModelSpec(LEFT, b"B" * 32))


def confining(*levels: Level, **changes: Any) -> Facts:
    """What a node knows that confines code at some levels, under a scenario for statements."""
    reasons = {confined.at_level(level): "" if level in levels else f"no {level} here" for level in Level}
    engines = {"duckdb": "", "jail": "" if levels else "no jail here", **reasons}
    return replace(held(**{**STATED, **changes}), engines=engines)


def meeting(accepted: bool = True, **changes: Any) -> Facts:
    """What the bank knows under a scenario whose enclave is the operator's, over an alignment."""
    given = {"bank": Given(simulated=accepted), "operator": Given(), "witness": Given()}
    kinds = {"kinds": (JobKind.PSI, JobKind.QUERY), "enclave": "operator", "accepts_simulated": True}
    whole = scenario(**{**STATED, "measures": (RANGE, LATE_RANGE), **kinds, **changes})
    return facts(standing=standing(scenario=whole, approved_by=given), earlier=ALIGNED_JOB, engines={})


JOINT = JobSpec("q", b"S" * 32, QuerySpec(None, "SELECT avg(income) AS a, avg(late) AS b FROM data", "cd" * 16))


def departmental(count: int = 3, **changes: Any) -> Facts:
    return facts(standing=standing(scenario=departments(count), **changes))


BY_RULE = replace(BANK_USE, rule=VersionRule.SAME_SCHEMA, version=0, content_hash=b"", schema_digest=b"C" * 32)
REFUSED: list[tuple[str, JobSpec, Facts, Choices]] = [
    ("unknown", psi(), facts(standing=None), BANK),
    ("awaiting", psi(), facts(standing=standing(approved_by={"bank": Given(True, True)})), BANK),
    ("awaiting", psi(), facts(now_ms=ONE.not_before_ms - 1), BANK),
    ("expired", psi(), facts(now_ms=ONE.not_after_ms), BANK),
    ("revoked", psi(), facts(standing=standing(revoked=True)), BANK),
    ("refused", psi(), facts(standing=standing(approved_by={}, told={"operator": NoticeKind.REFUSED})), BANK),
    ("changes", psi(), facts(standing=standing(approved_by={}, told={"operator": NoticeKind.CHANGES})), BANK),
    ("suspended", psi(), facts(standing=standing(told={"operator": NoticeKind.SUSPENDED})), BANK),
    ("amended", psi(), facts(standing=standing(amended_ms=ONE.not_before_ms)), BANK),
    ("submitter", psi(), facts(submitter=OTHER.public.to_bytes()), BANK),
    ("submitter", psi(), facts(submitter=b""), BANK),
    ("kind", TRAIN, replace(held(kinds=(JobKind.PSI,), outputs=(ALIGNED,)), earlier=ALIGNED_JOB), BANK),
    ("kind", psi(), held(outputs=(TRAINING, METRICS, SCORES)), BANK),
    ("dataset", psi(kind=PsiSpec(LEFT, DatasetRef("people", 3), PsiEngine.AUTO)), facts(), BANK),
    ("dataset", psi(), facts(own={LEFT: OwnDataset(b"X" * 32, 600, True)}), BANK),
    ("proposer", psi(kind=PsiSpec(RIGHT, LEFT, PsiEngine.AUTO)), facts(), BANK),
    ("proposer", psi(), facts(), Choices("operator")),
    ("proposer", psi(kind=PsiSpec(LEFT, LEFT, PsiEngine.AUTO)), facts(), BANK),
    ("label", TRAIN, replace(held(datasets=(replace(BANK_USE, label=""), OPERATOR_USE)), earlier=ALIGNED_JOB), BANK),
    ("earlier", TRAIN, facts(), BANK),
    ("earlier", TRAIN, facts(earlier=MODEL_JOB), BANK),
    ("earlier", BATCH, facts(earlier=ALIGNED_JOB), BANK),
    ("earlier", TRAIN, facts(earlier=replace(ALIGNED_JOB, state=State.RUNNING)), BANK),
    (
        "earlier",
        TRAIN,
        facts(earlier=replace(ALIGNED_JOB, plan=replace(ALIGNED_JOB.plan, scenario_digest=b"X" * 32))),
        BANK,
    ),
    ("earlier", TRAIN, facts(earlier=replace(ALIGNED_JOB, lasts=False)), BANK),
    ("output", replace(TRAIN, kind=replace(TRAIN.kind, release_scorecard=True)), facts(earlier=ALIGNED_JOB), BANK),
    ("contributors", totals(LEFT, RIGHT), departmental(), BANK),
    ("two", totals(LEFT, RIGHT), departmental(2), BANK),
    ("columns", totals(groups=("late_band",)), departmental(), BANK),
    ("bundle", CODE, replace(held(**{**MODELS, "bundles": (b"X" * 32,)}), engines={"jail": ""}), BANK),
    ("untested", QUERY, replace(confining(Level.CONFINED), is_tested=False), BANK),
    ("untested", psi(), facts(is_tested=False), BANK),
    ("enclave", JOINT, meeting(enclave=""), BANK),
    ("simulated", JOINT, meeting(accepted=False), BANK),
    ("simulated", JOINT, meeting(accepts_simulated=False), BANK),
    ("earlier", JOINT, replace(meeting(), earlier=None), BANK),
    ("version", psi(), held(datasets=(BY_RULE, OPERATOR_USE)), BANK),
    ("proposer", QUERY, confining(Level.CONFINED), Choices("operator")),
    ("dataset", replace(QUERY, kind=QuerySpec(THIRD, "SELECT 1")), confining(Level.CONFINED), BANK),
    ("recipient", QUERY, confining(Level.CONFINED, recipient=replace(ONE.recipient, node_id="operator")), BANK),
    ("models", BATCH, facts(earlier=MODEL_JOB, used=Used(0, 0, 0, frozenset({"a", "b"}))), BANK),
    ("recipient", psi(), held(recipient=replace(ONE.recipient, node_id="third")), BANK),
    ("recipient", BATCH, replace(held(recipient=replace(ONE.recipient, node_id="operator")), earlier=MODEL_JOB), BANK),
]


@pytest.mark.parametrize(
    ("name", "spec", "known", "choices"), REFUSED, ids=[f"{n}-{c[0]}" for n, c in enumerate(REFUSED)]
)
def test_each_refusal_has_its_fixed_wording(name: str, spec: JobSpec, known: Facts, choices: Choices) -> None:
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(spec, known, choices)
    assert refusal.value.tell == REFUSALS[name]


def test_every_wording_is_used() -> None:
    assert {name for name, *_ in REFUSED} == set(REFUSALS)
    assert len(set(REFUSALS.values())) == len(REFUSALS)


def test_a_plan_says_exactly_what_will_run() -> None:
    plan = plan_of()
    assert [(p.node_id, p.role, p.dataset, p.content_hash, p.fields) for p in plan.parties] == [
        ("bank", PartyRole.LEFT, LEFT, b"L" * 32, ()),  # an alignment uses keys alone
        ("operator", PartyRole.RIGHT, RIGHT, b"R" * 32, ()),
    ]
    assert (plan.job_id, plan.proposer, plan.kind, plan.engine) == (JOB, "bank", JobKind.PSI, "ecdh-x25519")
    assert (plan.outputs, plan.deadline_s, plan.time_ms, plan.recipient_node) == ((ALIGNED,), 900, NOW, "bank")
    assert (plan.scenario_digest, plan.submission_digest) == (b"S" * 32, b"D" * 32)
    assert {r.party for r in plan.reveals} == {"bank", "operator", "recipient"}


def test_a_plan_says_in_what_an_engine_runs() -> None:
    fast = JobSpec("request-1", b"S" * 32, PsiSpec(LEFT, RIGHT, PsiEngine.RR22))
    assert plan_of(fast).isolation == "engine-child"
    assert plan_of(TRAIN, facts(earlier=ALIGNED_JOB)).isolation == "engine-child"
    assert plan_of().isolation == "process"
    assert plan_of(BATCH, facts(earlier=MODEL_JOB)).isolation == "process"


@pytest.mark.parametrize(
    ("accepted", "here", "planned"),
    [
        ("", (Level.CONFINED,), "confined SIMULATED"),
        ("confined", (Level.CONFINED,), "confined SIMULATED"),
        ("narrowed", (Level.CONFINED,), "confined SIMULATED"),  # never a weaker one than there is
        ("narrowed", (Level.NARROWED,), "narrowed SIMULATED"),
        ("unprivileged", (Level.UNPRIVILEGED, Level.NARROWED), "unprivileged SIMULATED"),
    ],
)
def test_a_statement_runs_at_the_strongest_level_there_is(accepted: str, here: tuple[Level, ...], planned: str) -> None:
    plan = plan_of(QUERY, confining(*here, isolation=accepted))
    assert (plan.kind, plan.engine, plan.isolation) == (JobKind.QUERY, "duckdb", planned)
    assert [(p.node_id, p.role, p.fields) for p in plan.parties] == [("bank", PartyRole.LEFT, ("income",))]
    assert [rule.name for rule in plan.outputs] == ["table"]
    assert confined.level_of(plan) in here


@pytest.mark.parametrize(
    ("accepted", "here", "reason"),
    [
        ("", (Level.UNPRIVILEGED,), "at level confined: no confined here"),
        ("unprivileged", (Level.NARROWED,), "at level unprivileged: no unprivileged here"),
        ("narrowed", (), "at level narrowed: no narrowed here"),
    ],
)
def test_a_level_that_is_not_reached_is_refused_with_what_is_missing(
    accepted: str, here: tuple[Level, ...], reason: str
) -> None:
    with pytest.raises(Unavailable, match=f"bank cannot confine code {reason}") as refusal:
        plan_of(QUERY, confining(*here, isolation=accepted))
    assert (refusal.value.party, refusal.value.stage) == ("bank", "admit")
    assert "sandbox tee doctor" in refusal.value.hint


def test_rows_of_two_owners_meet_at_the_enclave_of_the_scenario_and_nowhere_else() -> None:
    plan = plan_of(JOINT, meeting())  # the bank confines nothing itself, and needs no engine for it
    assert (plan.engine, plan.isolation) == ("duckdb", "confined SIMULATED")
    assert [(p.node_id, p.role, p.fields) for p in plan.parties] == [
        ("bank", PartyRole.LEFT, ("income",)),
        ("operator", PartyRole.RIGHT, ("late",)),
    ]
    seen = {one.party for one in plan.reveals if "SIMULATED" in one.what}
    assert seen == {"operator"}
    able = {"duckdb": "", confined.at_level(Level.CONFINED): ""}
    there = replace(meeting(), node_id="operator", own={RIGHT: OwnDataset(b"R" * 32, 900, True)}, engines=able)
    assert plan_of(JOINT, there) == plan
    with pytest.raises(Unavailable, match="operator cannot confine code at level confined"):
        plan_of(JOINT, replace(there, engines={"duckdb": ""}))
    with pytest.raises(Unavailable, match="engine duckdb cannot run at operator"):
        plan_of(JOINT, replace(there, engines={}))


def test_a_stronger_level_than_the_scenario_s_is_not_planned_for_two() -> None:
    able = {"duckdb": "", confined.at_level(Level.CONFINED): "", confined.at_level(Level.NARROWED): ""}
    own = {RIGHT: OwnDataset(b"R" * 32, 900, True)}
    there = replace(meeting(isolation="narrowed"), node_id="operator", own=own, engines=able)
    assert plan_of(JOINT, there).isolation == plan_of(JOINT, meeting(isolation="narrowed")).isolation
    assert plan_of(JOINT, there).isolation == "narrowed SIMULATED"


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT avg(income) AS a FROM data", "this reads those of one"),
        ("SELECT avg(late) AS a FROM data", "this reads those of one"),
    ],
)
def test_a_statement_over_an_alignment_reads_both(sql: str, told: str) -> None:
    with pytest.raises(InvalidSpec, match=told):
        plan_of(replace(JOINT, kind=replace(JOINT.kind, sql=sql)), meeting())


def test_one_source_is_named() -> None:
    for kind in (QuerySpec(None, "SELECT 1"), QuerySpec(LEFT, "SELECT 1", "cd" * 16)):
        with pytest.raises(InvalidSpec, match="either a dataset or an alignment"):
            plan_of(replace(JOINT, kind=kind), meeting())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"enclave": "witness"}, "enclave must be the node of one of the owners"),
        ({"accepts_simulated": False}, "accepts_simulated must be true"),
        ({"kinds": (JobKind.QUERY,)}, "enclave is for queries and models over an alignment"),
        ({"datasets": (BANK_USE,)}, "enclave needs one dataset each of two owners"),
        ({"runtimes": (b"r" * 32,) * 2}, "runtimes names one twice"),
    ],
)
def test_an_enclave_for_two_is_declared_whole(changes: dict[str, Any], told: str) -> None:
    outputs = (TABLE,) if changes.get("kinds") else (TABLE, ALIGNED)
    joint = {**STATED, "kinds": (JobKind.PSI, JobKind.QUERY), "enclave": "operator", "accepts_simulated": True}
    check(scenario(**{**joint, "outputs": (TABLE, ALIGNED)}), FLOORS)
    with pytest.raises(InvalidSpec, match=told):
        check(scenario(**{**joint, "outputs": outputs, **changes}), FLOORS)


def test_a_statement_uses_the_rows_of_its_dataset() -> None:
    assert rows_needed(QUERY, [LEFT], confining(Level.CONFINED)) == rows_needed(CODE, [LEFT], facts()) == 600
    used = Used(0, 0, ONE.quota.rows_total - 599, frozenset())
    with pytest.raises(BudgetSpent, match="rows are used up"):
        plan_of(QUERY, replace(confining(Level.CONFINED), used=used))


def test_a_statement_is_read_before_any_work() -> None:
    late = replace(QUERY, kind=QuerySpec(LEFT, "SELECT avg(late) AS mean FROM data"))
    with pytest.raises(InvalidSpec, match="line 1, column 12"):
        plan_of(late, confining(Level.CONFINED))


def test_training_brings_the_third_party_and_one_person_no_metrics() -> None:
    train = plan_of(TRAIN, facts(earlier=ALIGNED_JOB))
    assert [(p.node_id, p.role) for p in train.parties][2:] == [("witness", PartyRole.COMPUTE)]
    assert [p.fields for p in train.parties] == [("income",), ("late",), ()]
    assert [rule.name for rule in plan_of(BATCH, facts(earlier=MODEL_JOB)).outputs] == ["metrics", "scores"]
    assert [rule.name for rule in plan_of(SINGLE, facts(earlier=MODEL_JOB)).outputs] == ["scores"]


def test_the_computing_party_believes_the_datasets_the_owners_will_check() -> None:
    third = facts(node_id="witness", own={})
    plan = plan_of(TRAIN, third, Choices("bank", "aby3", 900, NOW, (LEFT, RIGHT)))
    assert plan == plan_of(TRAIN, facts(earlier=ALIGNED_JOB))
    with pytest.raises(PolicyRefused, match=REFUSALS["dataset"]):
        plan_of(TRAIN, third, Choices("bank", "aby3", 900, NOW, (LEFT, DatasetRef("people", 3))))
    with pytest.raises(PolicyRefused, match=REFUSALS["earlier"]):
        plan_of(TRAIN, third, Choices("bank", "aby3", 900, NOW, (LEFT,)))
    with pytest.raises(PolicyRefused, match=REFUSALS["earlier"]):  # an owner believes nobody
        plan_of(TRAIN, facts(), Choices("bank", "aby3", 900, NOW, (LEFT, RIGHT)))


def test_quotas_hold_to_the_last_call_and_row() -> None:
    limits = ONE.quota
    plan_of(known=facts(used=Used(limits.calls_per_day - 1, limits.calls_total - 1, 10_000 - 600, frozenset())))
    for used in (Used(5, 5, 0, frozenset()), Used(0, 20, 0, frozenset()), Used(0, 0, 10_000 - 599, frozenset())):
        with pytest.raises(BudgetSpent, match="used up"):
            plan_of(known=facts(used=used))
    known_model = facts(earlier=MODEL_JOB, used=Used(0, 0, 0, frozenset({"a", "ef" * 16})))
    assert plan_of(BATCH, known_model).kind is JobKind.SCORE  # a model used before counts once


def test_rows_needed_are_those_of_this_node() -> None:
    assert rows_needed(psi(), [LEFT], facts()) == 600
    assert rows_needed(TRAIN, [], facts(earlier=ALIGNED_JOB)) == 480
    assert rows_needed(BATCH, [], facts(earlier=MODEL_JOB)) == 480
    assert rows_needed(SINGLE, [], facts(earlier=MODEL_JOB)) == 1


def test_engines_are_chosen_best_first_and_never_silently_replaced() -> None:
    slow = {"rr22": "spu is not installed", "ecdh-x25519": ""}
    assert plan_of(known=facts(engines=slow)).engine == "ecdh-x25519"
    assert plan_of(psi(PsiEngine.ECDH_X25519)).engine == "ecdh-x25519"
    with pytest.raises(Unavailable, match="rr22 cannot run at bank: spu is not installed"):
        plan_of(psi(PsiEngine.RR22), facts(engines=slow))
    with pytest.raises(Unavailable, match="rr22 cannot run"):  # the proposer chose; this node lacks it
        plan_of(psi(), facts(engines=slow), Choices("bank", "rr22"))
    with pytest.raises(PartyFailed, match="does not allow the proposed engine"):
        plan_of(psi(PsiEngine.ECDH_X25519), facts(), Choices("bank", "rr22"))


def test_a_dataset_that_is_gone_is_unavailable_whoever_asks() -> None:
    for own in ({}, {LEFT: OwnDataset(b"L" * 32, 600, False)}):
        with pytest.raises(Unavailable) as refusal:
            plan_of(known=facts(own=own))
        assert refusal.value.tell == "dataset bank-loans version 1 is not available"
        assert "ask the data owner" in refusal.value.hint


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (replace(TRAIN, kind=TrainSpec("cd" * 16, 0, 20, b"s", 0)), "train.steps"),
        (replace(TRAIN, kind=TrainSpec("cd" * 16, 501, 20, b"s", 0)), "train.steps"),
        (replace(TRAIN, kind=TrainSpec("cd" * 16, 30, 4, b"s", 0)), "train.holdout_percent"),
        (replace(TRAIN, kind=TrainSpec("cd" * 16, 30, 51, b"s", 0)), "train.holdout_percent"),
        (replace(TRAIN, kind=TrainSpec("cd" * 16, 30, 20, b"s", 1_000_001)), "train.l2_micro"),
        (replace(TRAIN, deadline_s=86_401), "deadline_s"),
    ],
)
def test_parameters_out_of_range_are_named(spec: JobSpec, field: str) -> None:
    with pytest.raises(InvalidSpec, match=field):
        plan_of(spec, facts(earlier=ALIGNED_JOB))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Plan)])
def test_any_difference_between_own_and_proposed_plan_is_a_disagreement(name: str) -> None:
    plan = plan_of()
    agree(plan, plan, "bank")
    value = getattr(plan, name)
    other: Any = {str: "z", bytes: b"z", int: 7, tuple: ()}.get(type(value), JobKind.TRAIN)
    with pytest.raises(PartyFailed) as refusal:
        agree(plan, replace(plan, **{name: other}), "bank")
    assert (refusal.value.tell, refusal.value.party) == ("disagrees on the plan", "bank")
    assert name in str(refusal.value)


# --- quota ----------------------------------------------------------------------------------------------------------

DIGEST = b"S" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "store.db")
    made.create()
    yield made
    made.close()


def used_of(store: Store, now: int = NOW) -> tuple[int, int, int]:
    with store.read() as conn:
        found = quota.used(conn, DIGEST, now, frozenset())
    return found.calls_today, found.calls_total, found.rows


def test_a_reservation_counts_until_it_is_given_back(store: Store) -> None:
    with store.write() as conn:
        quota.reserve(conn, "job-1", DIGEST, 600, NOW)
        quota.reserve(conn, "job-2", b"X" * 32, 5, NOW)
    assert used_of(store) == (1, 1, 600)
    assert used_of(store, NOW + DAY) == (0, 1, 600)
    with store.write() as conn:
        assert quota.give_back(conn, "job-1")
        assert not quota.give_back(conn, "job-1")
    assert used_of(store) == (0, 0, 0)
    with store.write() as conn:
        quota.reserve(conn, "job-3", DIGEST, 1, NOW)


def test_what_is_spent_stays_spent_and_settles_to_what_was_used(store: Store) -> None:
    with store.write() as conn:
        quota.reserve(conn, "job-1", DIGEST, 600, NOW)
        quota.spend(conn, "job-1")
        quota.settle(conn, "job-1", 480)
        assert not quota.give_back(conn, "job-1")
    assert used_of(store) == (1, 1, 480)
    with store.read() as conn:
        assert conn.scalar(select(usage.c.state)) == "spent"


def test_a_job_that_is_taken_up_again_spends_nothing_more(store: Store) -> None:
    with store.write() as conn:
        quota.reserve(conn, "job-1", DIGEST, 600, NOW)
    for _ in range(3):
        with store.write() as conn:
            quota.spend(conn, "job-1")
    assert used_of(store) == (1, 1, 600)
    with store.write() as conn:
        assert not quota.give_back(conn, "job-1")
    assert used_of(store) == (1, 1, 600)


def test_all_is_the_scenario_of_these_tests() -> None:
    assert set(ALL) == required(ONE) and isinstance(ONE, Scenario)
