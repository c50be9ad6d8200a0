"""Admission of totals and of every kind of intersection: who takes part, with which columns, by which engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from core_builders import (
    BANK,
    ENGINES,
    INCOME,
    JOB,
    LATE,
    LEFT,
    NOW,
    OUTPUTS,
    RIGHT,
    THIRD,
    departments,
    facts,
    psi,
    standing,
    totals,
)

from sandbox.errors import InvalidSpec, PartyFailed, PolicyRefused, Unavailable
from sandbox.kinds import KINDS
from sandbox.kinds.kind import Conditions
from sandbox.model import (
    DatasetRef,
    JobKind,
    JobSpec,
    Measure,
    PartyRole,
    Plan,
    PsiEngine,
    PsiOutput,
    PsiSpec,
    State,
    Statistic,
)
from sandbox.policy.admit import REFUSALS, Choices, Earlier, Facts, OwnDataset, admit, rows_needed
from sandbox.policy.scenario import Given

LATE_SUM = replace(LATE, name="lates", statistic=Statistic.SUM)
EVERYBODY = ("bank", "operator", "witness")
ACCEPTING = dict.fromkeys(EVERYBODY, Given(two_contributors=True))


def known(count: int = 3, approved: Any = None, scenario: Any = None, **changes: Any) -> Facts:
    held = standing(scenario=departments(count, **(scenario or {})))
    return facts(standing=replace(held, approved_by=approved) if approved else held, **changes)


def plan_of(spec: JobSpec, at: Facts, choices: Choices = BANK) -> Plan:
    return admit(spec, JOB, b"D" * 32, at, choices)


def intersect(output: PsiOutput, engine: PsiEngine = PsiEngine.AUTO, **changes: Any) -> JobSpec:
    members: dict[PsiOutput, dict[str, Any]] = {
        PsiOutput.SUMS: {"measures": (LATE,)},
        PsiOutput.JOINED: {"columns": ("city", "late")},
    }
    given = members.get(output, {})
    kind: Any = replace(PsiSpec(LEFT, RIGHT, engine, output), **{**given, **changes})
    return JobSpec("request-1", b"S" * 32, kind)


# --- totals over contributors ---------------------------------------------------------------------------------------


def test_all_owners_take_part_with_the_columns_that_are_used() -> None:
    plan = plan_of(totals(), known())
    assert [(p.node_id, p.role, p.dataset, p.fields) for p in plan.parties] == [
        (name, PartyRole.CONTRIBUTOR, ref, ("city", "income"))
        for name, ref in zip(EVERYBODY, (LEFT, RIGHT, THIRD), strict=True)
    ]
    assert (plan.kind, plan.engine, [rule.name for rule in plan.outputs]) == (
        JobKind.AGGREGATE,
        "paillier",
        ["totals"],
    )
    assert [reveal.party for reveal in plan.reveals] == [*EVERYBODY, "recipient"]
    assert rows_needed(totals(), [LEFT], known()) == 600


@pytest.mark.parametrize("missing", [(LEFT, RIGHT), (LEFT, THIRD)])
def test_a_total_over_some_beside_one_over_all_would_be_somebodys_own(missing: Any) -> None:
    for approved in (None, ACCEPTING):
        with pytest.raises(PolicyRefused) as refusal:
            plan_of(totals(*missing), known(approved=approved, scenario={"accepts_two_contributors": True}))
        assert refusal.value.tell == REFUSALS["contributors"]


def test_no_owner_takes_part_twice_and_the_submitting_node_comes_first() -> None:
    two_of_one = (*departments().datasets, replace(departments().datasets[2], code="more"))
    for refs, scenario in (
        ((LEFT, RIGHT, THIRD, DatasetRef("more", 3)), {"datasets": two_of_one}),
        ((RIGHT, LEFT, THIRD), {}),
    ):
        with pytest.raises(PolicyRefused) as refusal:
            plan_of(totals(*refs), known(scenario=scenario))
        assert refusal.value.tell == REFUSALS["proposer"]
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(totals(LEFT, RIGHT, DatasetRef("funds", 2)), known())
    assert refusal.value.tell == REFUSALS["dataset"]


GIVEN, KEPT = Given(two_contributors=True), Given()


@pytest.mark.parametrize(
    ("accepts", "approved", "runs"),
    [
        (True, {"bank": GIVEN, "operator": GIVEN}, True),
        (True, {"bank": GIVEN, "operator": KEPT}, False),
        (True, {"bank": KEPT, "operator": GIVEN}, False),
        (True, {"bank": KEPT, "operator": KEPT}, False),
        (False, {"bank": GIVEN, "operator": GIVEN}, False),
        (True, {"bank": Given(simulated=True), "operator": Given(simulated=True)}, False),
    ],
)
def test_over_two_the_scenario_and_both_approvals_must_accept_it(accepts: bool, approved: Any, runs: bool) -> None:
    at = known(2, approved, {"accepts_two_contributors": accepts})
    if runs:
        plan = plan_of(totals(LEFT, RIGHT), at)
        assert all("subtract its own part" in reveal.what for reveal in plan.reveals[:2])
        return
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(totals(LEFT, RIGHT), at)
    assert refusal.value.tell == REFUSALS["two"]


def test_over_three_nobody_needs_to_accept_that() -> None:
    assert plan_of(totals(), known(scenario={"accepts_two_contributors": False}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"groups": ("district",)}, "no dimension 'district'"),
        ({"groups": ("city", "city")}, "named twice"),
        ({"measures": (replace(INCOME, column="rent"),)}, "no range for 'rent'"),
        ({"measures": (INCOME, replace(INCOME, name="m", statistic=Statistic.MEAN))}, "two of sum, mean and variance"),
        ({"datasets": ()}, "either datasets or an alignment"),
        ({"alignment": "cd" * 16}, "either datasets or an alignment"),
        ({"datasets": (LEFT,)}, "two contributors or more"),
        ({"key_bits": 1024}, "key_bits"),
        ({"key_bits": 4096}, "key_bits"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_by_name(changes: Any, told: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        plan_of(totals(**changes), known())
    assert told in refusal.value.tell


@pytest.mark.parametrize(
    "changes",
    [{"groups": ("late_band",)}, {"measures": (LATE,)}, {"measures": (Measure("n", Statistic.COUNT, "bad"),)}],
)
def test_every_contributor_must_have_every_column(changes: Any) -> None:
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(totals(**changes), known())
    assert refusal.value.tell == REFUSALS["columns"]


def test_a_key_column_is_no_field() -> None:
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(totals(measures=(Measure("n", Statistic.COUNT, "id"),)), known())
    assert refusal.value.tell == REFUSALS["columns"]


def test_the_recipient_may_be_any_owner_and_nobody_else() -> None:
    recipient = departments().recipient
    for node in EVERYBODY:
        at = known(scenario={"recipient": replace(recipient, node_id=node)})
        assert plan_of(totals(), at).recipient_node == node
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(totals(), known(scenario={"recipient": replace(recipient, node_id="fourth")}))
    assert refusal.value.tell == REFUSALS["recipient"]


def test_another_owner_admits_the_same_plan() -> None:
    plan = plan_of(totals(), known())
    for name, ref, digest in (("operator", RIGHT, b"R"), ("witness", THIRD, b"T")):
        at = known(node_id=name, own={ref: OwnDataset(digest * 32, 5, True)})
        assert plan_of(totals(), at, Choices("bank", "paillier", 900, NOW, (LEFT, RIGHT, THIRD))) == plan
        assert rows_needed(totals(), [ref], at) == 5
    with pytest.raises(Unavailable, match="funds version 3"):
        plan_of(totals(), known(node_id="witness", own={}), Choices("bank", "paillier", 900, NOW))


# --- totals over an alignment ---------------------------------------------------------------------------------------

OVER = totals(datasets=(), alignment="cd" * 16, groups=("late_band",), measures=(replace(INCOME, column="bad"), LATE))


def aligned(**changes: Any) -> Earlier:
    done = plan_of(intersect(PsiOutput.ALIGNED), known())
    return replace(Earlier(JobKind.PSI, State.RELEASED, done, 480), **changes)


def test_over_an_alignment_each_side_brings_its_part() -> None:
    plan = plan_of(OVER, known(earlier=aligned()))
    assert [(p.node_id, p.role, p.fields) for p in plan.parties] == [
        ("bank", PartyRole.LEFT, ("bad",)),
        ("operator", PartyRole.RIGHT, ("late",)),
    ]
    assert KINDS[plan.kind].key_holder(plan, OVER, departments()) == "bank"
    assert KINDS[plan.kind].shares(plan, OVER, departments()) == {"bank": ("operator",)}
    assert rows_needed(OVER, [], known(earlier=aligned())) == 480


def test_over_an_alignment_two_are_enough_without_anybodys_word() -> None:
    """Each side learns the total of a column that it does not have, by groups that the other does not see."""
    assert plan_of(OVER, known(2, earlier=aligned())).engine == "paillier"


def test_an_alignment_of_three_carries_no_totals() -> None:
    three = plan_of(intersect(PsiOutput.ALIGNED, third=THIRD), known())
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(OVER, known(earlier=aligned(plan=three)))
    assert refusal.value.tell == REFUSALS["earlier"]


@pytest.mark.parametrize(
    "earlier",
    [
        None,
        {"lasts": False},
        {"state": State.RUNNING},
        {"state": State.REFUSED},
        {"kind": JobKind.TRAIN},
        {"kind": JobKind.AGGREGATE},
    ],
)
def test_only_a_released_alignment_that_was_kept_carries_totals(earlier: Any) -> None:
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(OVER, known(earlier=None if earlier is None else aligned(**earlier)))
    assert refusal.value.tell == REFUSALS["earlier"]


def test_an_alignment_of_another_scenario_carries_none() -> None:
    other = aligned()
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(OVER, known(earlier=replace(other, plan=replace(other.plan, scenario_digest=b"X" * 32))))
    assert refusal.value.tell == REFUSALS["earlier"]


def test_groups_that_nobody_holds_alone_are_refused() -> None:
    kind: Any = OVER.kind
    spec = replace(OVER, kind=replace(kind, groups=("city", "late_band"), measures=(LATE,)))
    with pytest.raises(InvalidSpec, match="one side holds all groups"):
        plan_of(spec, known(earlier=aligned()))


# --- intersections --------------------------------------------------------------------------------------------------

USED: dict[PsiOutput, tuple[str, ...]] = {PsiOutput.SUMS: ("late",), PsiOutput.JOINED: ("city", "late")}
NAMED = {
    PsiOutput.ALIGNED: "aligned",
    PsiOutput.MEMBERS: "members",
    PsiOutput.MEMBERS_BOTH: "members",
    PsiOutput.SIZE: "size",
    PsiOutput.SUMS: "sums",
    PsiOutput.JOINED: "joined",
}
SHARES: dict[PsiOutput, dict[str, tuple[str, ...]]] = {
    PsiOutput.ALIGNED: {},
    PsiOutput.SIZE: {},
    PsiOutput.MEMBERS: {"bank": ()},
    PsiOutput.MEMBERS_BOTH: {"bank": ()},
    PsiOutput.SUMS: {"bank": ("operator",)},
    PsiOutput.JOINED: {"bank": ("operator",)},
}


@pytest.mark.parametrize("output", PsiOutput)
def test_an_output_uses_its_columns_and_only_its_rule(output: PsiOutput) -> None:
    spec = intersect(output)
    plan = plan_of(spec, known())
    assert [p.fields for p in plan.parties] == [(), USED.get(output, ())]
    assert [rule.name for rule in plan.outputs] == [NAMED[output]]
    kind = KINDS[plan.kind]
    assert kind.shares(plan, spec, departments()) == SHARES[output]
    assert kind.key_holder(plan, spec, departments()) == ("operator" if output is PsiOutput.SUMS else "")
    without = tuple(rule for rule in OUTPUTS if rule.name != NAMED[output])
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(spec, known(scenario={"outputs": without}))
    assert refusal.value.tell == REFUSALS["kind"]


@pytest.mark.parametrize("output", PsiOutput)
def test_what_leaves_at_the_left_needs_a_recipient_there(output: PsiOutput) -> None:
    at = known(scenario={"recipient": replace(departments().recipient, node_id="operator")})
    if output is PsiOutput.ALIGNED:
        assert plan_of(intersect(output), at).recipient_node == "operator"
        return
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(intersect(output), at)
    assert refusal.value.tell == REFUSALS["recipient"]


@pytest.mark.parametrize(
    "spec",
    [
        intersect(PsiOutput.JOINED, columns=("rent",)),
        intersect(PsiOutput.SUMS, measures=(replace(LATE, column="bad"),)),  # the left's label
    ],
)
def test_columns_the_scenario_does_not_name_are_refused(spec: JobSpec) -> None:
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(spec, known())
    assert refusal.value.tell == REFUSALS["columns"]


def test_three_are_aligned_and_nothing_else() -> None:
    plan = plan_of(intersect(PsiOutput.ALIGNED, third=THIRD), known())
    assert [(p.node_id, p.role) for p in plan.parties] == [
        ("bank", PartyRole.LEFT),
        ("operator", PartyRole.RIGHT),
        ("witness", PartyRole.THIRD),
    ]
    for output in set(PsiOutput) - {PsiOutput.ALIGNED}:
        with pytest.raises(InvalidSpec, match="three parties can be aligned only"):
            plan_of(intersect(output, third=THIRD), known())
    with pytest.raises(PolicyRefused) as refusal:
        plan_of(intersect(PsiOutput.ALIGNED, third=RIGHT), known())
    assert refusal.value.tell == REFUSALS["proposer"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"measures": (LATE,)}, "psi.measures"),
        ({"columns": ("city",)}, "psi.columns"),
        ({"output": PsiOutput.SUMS}, "psi.measures"),
        ({"output": PsiOutput.SUMS, "measures": (LATE, LATE_SUM)}, "two of sum, mean and variance"),
        ({"output": PsiOutput.SUMS, "measures": (replace(LATE, column="city"),)}, "no range for 'city'"),
        ({"output": PsiOutput.JOINED}, "psi.columns"),
        ({"output": PsiOutput.JOINED, "columns": ("id",)}, "the key's"),
    ],
)
def test_members_that_go_with_another_output_are_refused(changes: Any, told: str) -> None:
    kind: Any = replace(PsiSpec(LEFT, RIGHT, PsiEngine.AUTO), **changes)
    with pytest.raises(InvalidSpec) as refusal:
        plan_of(JobSpec("r", b"S" * 32, kind), known())
    assert told in refusal.value.tell


# --- engines --------------------------------------------------------------------------------------------------------

GENERAL = {"rr22", "ecdh-sm2", "ecdh-x25519"}
ABLE: dict[PsiOutput, set[str]] = {
    **dict.fromkeys((PsiOutput.ALIGNED, PsiOutput.MEMBERS_BOTH, PsiOutput.JOINED), GENERAL),
    PsiOutput.MEMBERS: {*GENERAL, "prepared-sm2"},
    PsiOutput.SIZE: {"count-sm2"},
    PsiOutput.SUMS: {"loads-sm2"},
}
ENGINE_NAMES = {
    PsiEngine.RR22: "rr22",
    PsiEngine.ECDH_X25519: "ecdh-x25519",
    PsiEngine.ECDH_SM2: "ecdh-sm2",
    PsiEngine.PREPARED_SM2: "prepared-sm2",
}


@pytest.mark.parametrize("output", PsiOutput)
@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_an_engine_asked_for_is_used_or_refused(output: PsiOutput, engine: PsiEngine) -> None:
    spec, name = intersect(output, engine), ENGINE_NAMES[engine]
    if output in (PsiOutput.SIZE, PsiOutput.SUMS) and engine is PsiEngine.ECDH_SM2:
        (name,) = ABLE[output]  # the same curve under its own name
    if name in ABLE[output]:
        assert plan_of(spec, known()).engine == name
        return
    with pytest.raises(InvalidSpec, match=r"psi\.engine"):
        plan_of(spec, known())


@pytest.mark.parametrize("output", PsiOutput)
def test_any_engine_the_proposer_chose_is_accepted_if_it_can_give_the_output(output: PsiOutput) -> None:
    for name in ENGINES:
        choices = Choices("bank", name, 900, NOW)
        if name in ABLE[output]:
            assert plan_of(intersect(output), known(), choices).engine == name
            continue
        with pytest.raises(PartyFailed, match="does not allow the proposed engine"):
            plan_of(intersect(output), known(), choices)


@pytest.mark.parametrize("output", PsiOutput)
def test_where_national_algorithms_are_demanded_nothing_else_runs(output: PsiOutput) -> None:
    at = known(conditions=Conditions(national=True))
    national = {name for name in ABLE[output] if name.endswith("sm2")}
    assert plan_of(intersect(output), at).engine in national
    for name in ABLE[output] - national:
        with pytest.raises(PolicyRefused, match="demands national algorithms"):
            plan_of(intersect(output), at, Choices("bank", name))
    for engine in (PsiEngine.RR22, PsiEngine.ECDH_X25519):
        if ENGINE_NAMES[engine] in ABLE[output]:
            with pytest.raises(PolicyRefused, match="demands national algorithms"):
                plan_of(intersect(output, engine), at)


@pytest.mark.parametrize(
    ("left", "right", "link_mbit", "best"),
    [
        (600, 900, 1000, "ecdh-x25519"),
        (5_000_000, 5_000_000, 1000, "rr22"),
        (5_000_000, 0, 1000, "rr22"),  # as many, where the other side's are not told
        (0, 5_000_000, 1000, "rr22"),
    ],
)
def test_the_sizes_decide_which_is_best(left: int, right: int, link_mbit: int, best: str) -> None:
    """The own rows as they are, the others' as the scenario tells."""
    bank, operator, *_ = departments().datasets
    at = known(
        scenario={"datasets": (bank, replace(operator, rows=right))},
        own={LEFT: OwnDataset(b"L" * 32, left, True)},
        conditions=Conditions(link_mbit=link_mbit),
    )
    big = replace(departments().quota, rows_total=10**9)
    held: Any = at.standing
    at = replace(at, standing=replace(held, scenario=replace(held.scenario, quota=big)))
    assert plan_of(intersect(PsiOutput.ALIGNED), at).engine == best


def test_a_set_that_is_prepared_is_asked() -> None:
    spec = intersect(PsiOutput.MEMBERS)
    assert plan_of(spec, known()).engine != "prepared-sm2"
    assert plan_of(spec, known(conditions=Conditions(is_prepared=True))).engine == "prepared-sm2"
    both = intersect(PsiOutput.MEMBERS_BOTH)
    assert plan_of(both, known(conditions=Conditions(is_prepared=True))).engine != "prepared-sm2"


def test_buckets_are_at_least_a_thousand_rows() -> None:
    for rows in (1, 999):
        with pytest.raises(InvalidSpec, match="bucket_rows"):
            plan_of(intersect(PsiOutput.ALIGNED, bucket_rows=rows), known())
    for rows in (0, 1000, 1 << 31):
        assert plan_of(intersect(PsiOutput.ALIGNED, bucket_rows=rows), known())
    with pytest.raises(InvalidSpec, match=r"psi\.engine"):
        plan_of(intersect(PsiOutput.MEMBERS, PsiEngine.PREPARED_SM2, bucket_rows=1000), known())


@pytest.mark.parametrize(
    ("output", "bucket_rows", "rows", "third", "parts"),
    [
        (PsiOutput.ALIGNED, 0, (600, 900), None, 1),
        (PsiOutput.ALIGNED, 1000, (600, 900), None, 1),
        (PsiOutput.ALIGNED, 1000, (600, 1001), None, 2),
        (PsiOutput.ALIGNED, 1000, (10_000, 10), None, 10),
        (PsiOutput.MEMBERS, 1000, (10_001, 10), None, 11),
        (PsiOutput.JOINED, 1000, (2000, 2000), None, 2),
        (PsiOutput.ALIGNED, 0, (3_000_000, 10), None, 12),  # on a curve
        (PsiOutput.ALIGNED, 1000, (2_000_000_000, 10), None, 65_536),
        (PsiOutput.SIZE, 1000, (10_000, 10_000), None, 1),
        (PsiOutput.SUMS, 1000, (10_000, 10_000), None, 1),
        (PsiOutput.ALIGNED, 1000, (10_000, 10_000), THIRD, 1),
    ],
)
def test_tables_are_cut_the_same_everywhere(
    output: PsiOutput, bucket_rows: int, rows: Any, third: Any, parts: int
) -> None:
    spec = intersect(output, bucket_rows=bucket_rows, third=third)
    plan = plan_of(spec, known())
    sizes = dict(zip(EVERYBODY, (*rows, 5), strict=True))
    assert KINDS[JobKind.PSI].parts(plan, spec, sizes) == parts


def test_a_prepared_set_is_never_cut() -> None:
    spec = intersect(PsiOutput.MEMBERS, PsiEngine.PREPARED_SM2)
    plan = plan_of(spec, known())
    assert KINDS[JobKind.PSI].parts(plan, spec, {"bank": 10, "operator": 50_000_000}) == 1


def test_totals_have_one_engine_and_one_part() -> None:
    plan = plan_of(totals(), known())
    assert KINDS[plan.kind].parts(plan, totals(), {"bank": 10**8, "operator": 1, "witness": 1}) == 1
    with pytest.raises(Unavailable, match="paillier cannot run at bank"):
        plan_of(totals(), known(engines={"paillier": "gmpy2 is not installed"}))
    with pytest.raises(PartyFailed, match="does not allow the proposed engine"):
        plan_of(totals(), known(), Choices("bank", "rr22"))


def test_the_alignment_of_these_tests_is_one() -> None:
    assert plan_of(psi(), known()).parties == plan_of(intersect(PsiOutput.ALIGNED), known()).parties
