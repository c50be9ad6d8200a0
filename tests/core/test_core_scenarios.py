"""The life of a scenario: what it lacks, who said what of it, where it stands, and what takes its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_builders import ALL, DAY, FLOORS, ISSUER, LEFT, NOW, OFFICER, OTHER, OUTLINE, scenario, standing
from sqlalchemy import Connection, insert

from sandbox import signed, wire
from sandbox.completeness import incomplete, missing
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import (
    IntegrityFailed,
    InvalidSpec,
    NotFound,
    PolicyRefused,
    SandboxError,
    Unauthenticated,
    WrongState,
)
from sandbox.model import (
    Approval,
    ApprovalRecord,
    Consent,
    ConsentRule,
    ConsentSource,
    DepartmentApproval,
    JobKind,
    Notice,
    NoticeKind,
    PriceTerms,
    Quota,
    Recipient,
    Scenario,
    Signed,
    VersionNotice,
    VersionRule,
)
from sandbox.policy import book, departments, versions
from sandbox.policy.moves import check_move, suspensions
from sandbox.policy.scenario import Given, check, succeeds
from sandbox.store import Store, datasets

ONE = scenario()
BANK_USE, OPERATOR_USE = ONE.datasets
NODES = {name: PrivateKey.generate() for name in ALL}
KINDS = {kind.name: kind for kind in NoticeKind}
RULED = replace(BANK_USE, rule=VersionRule.SAME_SCHEMA, version=0, content_hash=b"", schema_digest=b"s" * 32)


# --- what is missing ------------------------------------------------------------------------------------------------


def lacking(**changes: Any) -> list[str]:
    return [gap.field for gap in missing(scenario(**changes))]


def test_a_whole_application_lacks_nothing() -> None:
    assert lacking() == []


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"outline": None}, ["data_use", "supply", "problem", "category", "field_of_use"]),
        ({"outline": replace(OUTLINE, data_use=" too short ")}, ["data_use"]),
        ({"outline": replace(OUTLINE, supply="  ", field_of_use=" ")}, ["supply", "field_of_use"]),
        ({"outline": replace(OUTLINE, problem="解决小微企业融资难问题")}, []),
        ({"outline": replace(OUTLINE, problem="解决小微融资难问题")}, ["problem"]),
    ],
)
def test_every_text_of_the_outline_is_asked_for(changes: Any, fields: list[str]) -> None:
    assert lacking(**changes) == [f"outline.{field}" for field in fields]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": " "}, "name"),
        ({"merchant": ""}, "merchant"),
        ({"purpose": ""}, "purpose"),
        ({"operator": ""}, "operator"),
        ({"applicant_key": b""}, "applicant"),
        ({"recipient": Recipient("", b"k", b"k")}, "recipient.node"),
        ({"recipient": Recipient("bank", b"", b"")}, "recipient.card"),
        ({"price": PriceTerms("", "1", False)}, "price.tariff"),
        ({"price": PriceTerms("fujian-2024", "", False)}, "price.coefficient"),
        ({"not_after_ms": 0}, "not_after"),
        ({"quota": Quota(0, 1, 1)}, "quota.calls_per_day"),
        ({"quota": Quota(1, 0, 1)}, "quota.calls_total"),
        ({"quota": Quota(1, 1, 0)}, "quota.rows_total"),
        ({"datasets": (replace(BANK_USE, key=()), OPERATOR_USE)}, f"datasets.{LEFT.code}.key"),
        ({"datasets": (replace(BANK_USE, version=0), OPERATOR_USE)}, f"datasets.{LEFT.code}.version"),
        ({"datasets": (replace(BANK_USE, content_hash=b""), OPERATOR_USE)}, f"datasets.{LEFT.code}.content_hash"),
        ({"datasets": (replace(RULED, schema_digest=b""), OPERATOR_USE)}, f"datasets.{LEFT.code}.schema_digest"),
        ({"consent": replace(ONE.consent, sources=())}, "consent.sources"),
        ({"consent": replace(ONE.consent, single=ConsentRule.NONE)}, "consent.single"),
        ({"consent": replace(ONE.consent, letter_days=0)}, "consent.letter_days"),
        ({"kinds": (*ONE.kinds, JobKind.AGGREGATE)}, "outputs of aggregate"),
    ],
)
def test_what_is_empty_is_missing(changes: Any, field: str) -> None:
    assert lacking(**changes) == [field]


def test_letters_from_persons_need_a_term_too() -> None:
    by_letter = Consent(ConsentRule.NONE, ConsentRule.TOKEN, ONE.consent.issuers, (ConsentSource.LETTER,))
    only_metrics = tuple(rule for rule in ONE.outputs if rule.name != "scores")
    assert lacking(consent=by_letter, outputs=only_metrics) == ["consent.letter_days"]


def test_one_refusal_names_all_gaps_in_both_languages() -> None:
    with pytest.raises(InvalidSpec) as refusal:
        check(scenario(outline=None, purpose="", quota=Quota(1, 1, 0), score_step=1), FLOORS)
    told = refusal.value.tell
    fields = [gap.field for gap in missing(scenario(outline=None, purpose="", quota=Quota(1, 1, 0)))]
    assert len(fields) == 7
    assert all(f" {field} (" in told for field in fields)
    assert all(words in told for words in ("用什么数", "怎样供数", "解决什么问题", "类别", "应用领域"))
    assert "finer" not in told  # bounds come once everything is there


def test_a_refusal_of_an_empty_form_fits_what_a_node_may_tell() -> None:
    empty = replace(
        ONE,
        outline=None,
        name="",
        merchant="",
        purpose="",
        operator="",
        datasets=(),
        kinds=(),
        outputs=(),
        not_after_ms=0,
        quota=Quota(0, 0, 0),
        price=PriceTerms("", "", False),
        consent=Consent(ConsentRule.NONE, ConsentRule.NONE, ()),
    )
    gaps = missing(empty)
    told = incomplete(gaps).tell
    shown = told.count(" (")
    assert len(told) < 400 and told.endswith(f"and {len(gaps) - shown} more")
    assert 0 < shown < len(gaps)


# --- the terms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"datasets": (replace(RULED, version=1), OPERATOR_USE)}, f"datasets.{LEFT.code}.version must be 0"),
        ({"datasets": (replace(RULED, content_hash=b"L" * 32), OPERATOR_USE)}, "content_hash must be empty"),
        ({"datasets": (replace(RULED, schema_digest=b"s" * 31), OPERATOR_USE)}, "schema_digest must be 32 bytes"),
        ({"datasets": (replace(RULED, max_age_days=3651), OPERATOR_USE)}, "max_age_days must be 0 to 3650"),
        ({"datasets": (replace(BANK_USE, schema_digest=b"s" * 32), OPERATOR_USE)}, "schema_digest is for same_schema"),
        ({"datasets": (replace(BANK_USE, max_age_days=1), OPERATOR_USE)}, "max_age_days is for same_schema"),
        ({"datasets": (replace(BANK_USE, content_hash=b"L" * 31), OPERATOR_USE)}, "content_hash must be 32 bytes"),
        ({"datasets": (BANK_USE, replace(RULED, label=""), OPERATOR_USE)}, "by its version and by its schema"),
        ({"datasets": (RULED, replace(RULED, label=""), OPERATOR_USE)}, "datasets names one twice"),
        ({"quota": Quota(1, 1, 10, 11)}, "quota.rows_per_day must not be above"),
        ({"quota": Quota(1, 1, 10, 0, 11, 10)}, "quota.people_per_day must not be above"),
        ({"consent": replace(ONE.consent, sources=(ConsentSource.SUBJECT,) * 2)}, "consent.sources names one twice"),
        ({"consent": replace(ONE.consent, issuers=(ISSUER.public.to_bytes(),) * 2)}, "consent.issuers names one twice"),
        ({"consent": replace(ONE.consent, sample_permille=1001)}, "consent.sample_permille must be"),
        ({"consent": replace(ONE.consent, letter_days=91)}, "consent.letter_days must be 1 to 90"),
        ({"consent": replace(ONE.consent, most_uses=1001)}, "consent.most_uses must be"),
        ({"amends": b"a" * 31}, "amends must be"),
    ],
)
def test_terms_out_of_bounds_are_refused_by_field(changes: Any, told: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        check(scenario(**changes), FLOORS)
    assert told in refusal.value.tell


def test_letters_are_sampled_only_where_there_are_any() -> None:
    kept: dict[str, Any] = {"kinds": (JobKind.PSI,), "outputs": ONE.outputs[:1]}
    plain = Consent(ConsentRule.NONE, ConsentRule.NONE, ())
    check(scenario(**kept, consent=plain), FLOORS)
    for consent in (replace(plain, sample_permille=1), replace(plain, letter_days=1)):
        with pytest.raises(InvalidSpec, match="is for letters"):
            check(scenario(**kept, consent=consent), FLOORS)


def test_terms_within_bounds_pass() -> None:
    for changes in (
        {"datasets": (RULED, OPERATOR_USE)},
        {"datasets": (replace(RULED, max_age_days=3650), OPERATOR_USE)},
        {"quota": Quota(1, 1, 10, 10, 7, 7)},
        {"quota": Quota(1, 1, 10, 0, 7, 0)},
        {"consent": replace(ONE.consent, sources=tuple(ConsentSource), most_uses=1000, letter_days=90)},
        {"amends": b"a" * 32},
    ):
        check(scenario(**changes), FLOORS)


# --- where it stands ------------------------------------------------------------------------------------------------

SUSPENDED = {"bank": NoticeKind.SUSPENDED}
EARLY: dict[str, Any] = {"approved_by": {"bank": Given()}}


@pytest.mark.parametrize(
    ("changes", "now", "state"),
    [
        ({}, NOW, "active"),
        ({"told": {"bank": NoticeKind.RESUMED}}, NOW, "active"),
        ({"told": SUSPENDED}, NOW, "suspended"),
        ({"told": {**SUSPENDED, "operator": NoticeKind.RESUMED}}, NOW, "suspended"),
        ({"told": SUSPENDED}, ONE.not_after_ms, "expired"),
        ({"told": SUSPENDED}, ONE.not_before_ms - 1, "awaiting"),
        ({"told": SUSPENDED, **EARLY}, NOW, "awaiting"),
        ({"told": {"operator": NoticeKind.REFUSED}, **EARLY}, NOW, "refused"),
        ({"told": {"operator": NoticeKind.CHANGES}, **EARLY}, NOW, "changes"),
        ({"told": {"operator": NoticeKind.CHANGES, "witness": NoticeKind.REFUSED}, **EARLY}, NOW, "refused"),
        ({"told": {"bank": NoticeKind.REFUSED}, **EARLY}, NOW, "awaiting"),  # approved since
        ({"told": {"operator": NoticeKind.REFUSED}, **EARLY}, ONE.not_after_ms, "expired"),
        ({"amended_ms": NOW}, NOW, "amended"),
        ({"amended_ms": NOW + 1}, NOW, "active"),
        ({"amended_ms": NOW, "told": SUSPENDED}, ONE.not_after_ms, "amended"),
        ({"amended_ms": NOW, "revoked": True}, NOW, "revoked"),
        ({"revoked": True, "told": SUSPENDED}, ONE.not_after_ms, "revoked"),
    ],
)
def test_the_states_and_which_of_them_counts(changes: Any, now: int, state: str) -> None:
    assert standing(**changes).state(now) == state


# --- what may be said -----------------------------------------------------------------------------------------------


def notice(kind: NoticeKind, actor: str = "a", serial: int = 1, party: str = "bank", **changes: Any) -> Notice:
    return replace(Notice(b"S" * 32, party, kind, "because", NOW, serial, actor), **changes)


MINE = {"": notice(NoticeKind.SUSPENDED)}
HEALTH = {"Health": notice(NoticeKind.SUSPENDED)}


@pytest.mark.parametrize(
    ("changes", "kind", "voice", "held", "told"),
    [
        (EARLY, "REFUSED", "", {}, "bank has approved the scenario already"),
        (EARLY, "CHANGES", "", {}, "bank has approved the scenario already"),
        (EARLY, "SUSPENDED", "", {}, "not approved by every party yet"),
        ({}, "SUSPENDED", "", MINE, "suspended already"),
        ({}, "RESUMED", "", {}, "bank did not suspend it"),
        ({}, "RESUMED", "", HEALTH, "suspended by Health"),
        ({}, "RESUMED", "Health", MINE, "suspended by bank"),
        ({"revoked": True}, "REVOKED", "", {}, "the scenario is revoked"),
        ({"revoked": True}, "RESUMED", "", MINE, "the scenario is revoked"),
        ({"amended_ms": NOW}, "SUSPENDED", "", {}, "the scenario is amended"),
        ({"amended_ms": NOW}, "RESUMED", "", MINE, "the scenario is amended"),
        ({"approved_by": {}, "amended_ms": NOW}, "REFUSED", "", {}, "the scenario is amended"),
    ],
)
def test_what_means_nothing_is_refused_in_plain_words(
    changes: Any, kind: str, voice: str, held: Any, told: str
) -> None:
    with pytest.raises(WrongState) as refusal:
        check_move(standing(**changes), "bank", KINDS[kind], "because", voice, held, NOW)
    assert told in refusal.value.tell


@pytest.mark.parametrize(
    ("changes", "kind", "voice", "held"),
    [
        ({"approved_by": {"operator": Given()}}, "REFUSED", "", {}),
        ({"approved_by": {"operator": Given()}}, "CHANGES", "Health", {}),
        ({}, "SUSPENDED", "", {}),
        ({}, "SUSPENDED", "", HEALTH),
        ({"told": {"operator": NoticeKind.SUSPENDED}}, "SUSPENDED", "", {}),
        ({}, "RESUMED", "Health", {**MINE, **HEALTH}),
        ({}, "REVOKED", "", {}),
        ({"approved_by": {}}, "REVOKED", "", {}),
        ({"amended_ms": NOW}, "REVOKED", "", {}),
    ],
)
def test_what_means_something_may_be_said(changes: Any, kind: str, voice: str, held: Any) -> None:
    check_move(standing(**changes), "bank", KINDS[kind], "because", voice, held, NOW)


def test_a_reason_is_given_for_all_but_resuming() -> None:
    for kind in NoticeKind:
        if kind is NoticeKind.RESUMED:
            check_move(standing(), "bank", kind, "", "", MINE, NOW)
            continue
        with pytest.raises(InvalidSpec, match="give a reason"):
            check_move(standing(approved_by={}), "bank", kind, " ab ", "", {}, NOW)


def test_each_voice_lifts_its_own_suspension_only() -> None:
    said = [notice(KINDS[kind], actor) for kind, actor in (("SUSPENDED", "x"), ("SUSPENDED", "h"), ("RESUMED", "x"))]
    voices = {"x": "", "h": "Health"}
    assert suspensions(said, voices.__getitem__) == {"Health": said[1]}
    assert suspensions([*said, notice(NoticeKind.RESUMED, "h")], voices.__getitem__) == {}


# --- what a node keeps ----------------------------------------------------------------------------------------------


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    store = Store.at(tmp_path / "store.db")
    store.create()
    with store.write() as connection:
        yield connection
    store.close()


def filed(conn: Connection, key: PrivateKey = OFFICER, **changes: Any) -> bytes:
    whole = scenario(**{"applicant_key": key.public.to_bytes()} | changes)
    return book.file(conn, signed.sign(key, "scenario", whole), FLOORS)


def yes(digest: bytes, party: str, by: PrivateKey = OTHER, /, **changes: Any) -> Signed:
    return signed.sign(by, "approval", replace(Approval(digest, party, False, NOW), **changes))


def vouch(party: str, approval: Signed, *agreed: DepartmentApproval, by: PrivateKey = OTHER) -> Signed:
    return signed.sign(NODES[party], "approval-record", ApprovalRecord(approval, by.public.to_bytes(), agreed))


def approved(conn: Connection, digest: bytes, *parties: str) -> None:
    for party in parties or ALL:
        book.approve(conn, vouch(party, yes(digest, party)), NODES[party].public, party)


def say(conn: Connection, digest: bytes, party: str, kind: NoticeKind, serial: int, **changes: Any) -> Notice | None:
    record = signed.sign(NODES[party], "notice", notice(kind, "a", serial, party, scenario_digest=digest, **changes))
    return book.notify(conn, record, NODES[party].public, party)


def state(conn: Connection, digest: bytes) -> str:
    held = book.standing(conn, digest)
    assert held is not None
    return held.state(NOW)


def test_notices_come_in_any_order_and_the_last_number_counts(conn: Connection) -> None:
    digest = filed(conn)
    approved(conn, digest)
    assert say(conn, digest, "bank", NoticeKind.RESUMED, 4) is not None
    assert say(conn, digest, "bank", NoticeKind.SUSPENDED, 3) is not None
    assert state(conn, digest) == "active"
    assert book.next_serial(conn, digest, "bank") == 5 and book.next_serial(conn, digest, "operator") == 1
    assert say(conn, digest, "bank", NoticeKind.SUSPENDED, 7) is not None
    assert say(conn, digest, "operator", NoticeKind.RESUMED, 9) is not None  # does not lift the bank's
    assert state(conn, digest) == "suspended"
    assert [one.serial for one in book.said(conn, digest, "bank")] == [3, 4, 7]


def test_a_revocation_counts_whatever_is_said_later(conn: Connection) -> None:
    digest = filed(conn)
    approved(conn, digest)
    say(conn, digest, "bank", NoticeKind.REVOKED, 1)
    say(conn, digest, "bank", NoticeKind.RESUMED, 2)
    assert state(conn, digest) == "revoked"
    told = [wire.decode(Notice, record.payload).kind for record in book.bundle(conn, digest).notices]
    assert sorted(told) == [NoticeKind.RESUMED, NoticeKind.REVOKED]  # others must learn of it all the same


def test_a_bundle_carries_of_each_party_what_counts(conn: Connection) -> None:
    digest = filed(conn)
    approved(conn, digest)
    for serial in range(1, 300, 2):
        say(conn, digest, "bank", NoticeKind.SUSPENDED, serial)
        say(conn, digest, "bank", NoticeKind.RESUMED, serial + 1)
    say(conn, digest, "operator", NoticeKind.SUSPENDED, 1)
    carried = [wire.decode(Notice, record.payload) for record in book.bundle(conn, digest).notices]
    assert [(one.party, one.serial) for one in carried] == [("bank", 300), ("operator", 1)]
    assert wire.decode(type(book.bundle(conn, digest)), wire.encode(book.bundle(conn, digest)))
    assert wire.decode(type(shown := book.view(conn, digest, NOW)), wire.encode(shown)).notices == shown.notices


def test_the_same_notice_twice_is_one_and_another_under_its_number_is_found_out(conn: Connection) -> None:
    digest = filed(conn)
    approved(conn, digest)
    assert say(conn, digest, "bank", NoticeKind.SUSPENDED, 1) is not None
    assert say(conn, digest, "bank", NoticeKind.SUSPENDED, 1) is None
    with pytest.raises(IntegrityFailed) as failure:
        say(conn, digest, "bank", NoticeKind.RESUMED, 1)
    assert failure.value.party == "bank" and state(conn, digest) == "suspended"


def test_nobody_speaks_for_another_party(conn: Connection) -> None:
    digest = filed(conn)
    forged = signed.sign(
        NODES["bank"], "notice", notice(NoticeKind.REVOKED, "a", 1, "operator", scenario_digest=digest)
    )
    stranger = signed.sign(OTHER, "notice", notice(NoticeKind.REVOKED, "a", 1, "tax", scenario_digest=digest))
    for record, key, party, error in (
        (forged, NODES["bank"], "bank", PolicyRefused),
        (forged, NODES["operator"], "operator", Unauthenticated),
        (stranger, OTHER, "tax", PolicyRefused),
    ):
        with pytest.raises(error):
            book.notify(conn, record, key.public, party)
    with pytest.raises(InvalidSpec):
        say(conn, digest, "bank", NoticeKind.REVOKED, 0)
    with pytest.raises(NotFound):
        say(conn, b"x" * 32, "bank", NoticeKind.REVOKED, 1)
    assert book.said(conn, digest) == []


def test_an_approval_takes_the_own_objection_back(conn: Connection) -> None:
    digest = filed(conn)
    approved(conn, digest, "operator")
    say(conn, digest, "bank", NoticeKind.CHANGES, 1)
    assert state(conn, digest) == "changes"
    approved(conn, digest, "bank", "witness")
    assert state(conn, digest) == "active"


def test_notices_are_shown_oldest_first(conn: Connection) -> None:
    digest = filed(conn)
    say(conn, digest, "operator", NoticeKind.CHANGES, 1, time_ms=NOW + 2, reason="fewer columns")
    say(conn, digest, "bank", NoticeKind.REFUSED, 1, time_ms=NOW + 1, reason="no basis")
    view = book.view(conn, digest, NOW)
    assert [(one.party, one.kind, one.reason) for one in view.notices] == [
        ("bank", NoticeKind.REFUSED, "no basis"),
        ("operator", NoticeKind.CHANGES, "fewer columns"),
    ]
    assert view.state == "refused"


def test_pages_hold_what_concerns_somebody_and_miss_nothing(conn: Connection) -> None:
    mine = {filed(conn, nonce=bytes([n] * 16), name="mine" if n % 5 == 0 else "other") for n in range(20)}
    found: list[bytes] = []
    while page := book.listed(conn, found[-1].hex() if found else "", 3, NOW, concerns=lambda one: one.name == "mine"):
        assert len(page) <= 3
        found += [view.digest for view in page]
    assert len(found) == 4 == len(set(found)) and set(found) < mine and found == sorted(found)


def test_versions_that_a_rule_covers_travel_with_the_scenario(conn: Connection) -> None:
    digest = filed(conn, datasets=(RULED, OPERATOR_USE))
    offer = VersionNotice(LEFT.code, 3, "bank", b"L" * 32, b"s" * 32, 600, 1)
    record = signed.sign(NODES["bank"], "version", offer)
    versions.file(conn, record, NODES["bank"].public, "bank")
    assert book.bundle(conn, digest).versions == (record,)


# --- amended --------------------------------------------------------------------------------------------------------


def test_a_successor_takes_the_place_once_everybody_approved_it(conn: Connection) -> None:
    first = filed(conn)
    approved(conn, first)
    second = filed(conn, amends=first, purpose="the same, for one year more")
    approved(conn, second, "bank", "operator")
    assert (state(conn, first), state(conn, second)) == ("active", "awaiting")
    say(conn, second, "witness", NoticeKind.REFUSED, 1)
    assert (state(conn, first), state(conn, second)) == ("active", "refused")
    approved(conn, second, "witness")
    assert (state(conn, first), state(conn, second)) == ("amended", "active")
    say(conn, second, "bank", NoticeKind.REVOKED, 1, time_ms=0)  # said to have been long ago: nothing comes back
    assert (state(conn, first), state(conn, second)) == ("amended", "revoked")


def test_a_successor_begins_when_it_says(conn: Connection) -> None:
    first = filed(conn)
    approved(conn, first)
    second = filed(conn, amends=first, not_before_ms=NOW + 1)
    approved(conn, second)
    assert (state(conn, first), state(conn, second)) == ("active", "awaiting")
    held = book.standing(conn, first)
    assert held is not None and held.state(NOW + 1) == "amended"


def test_only_the_applicant_amends_and_for_the_same_merchant(conn: Connection) -> None:
    first = filed(conn)
    approved(conn, first)
    other = PrivateKey.generate()
    for changes in ({"key": other}, {"merchant": "Another Bank"}):
        with pytest.raises(InvalidSpec, match="another applicant or merchant"):
            filed(conn, amends=first, **changes)
    assert succeeds(replace(ONE, merchant="EXAMPLE bank"), ONE)


def test_what_came_before_its_predecessor_takes_no_strangers_place(conn: Connection) -> None:
    """A node that does not hold the earlier scenario cannot judge at filing; it does once it holds both."""
    record = signed.sign(OFFICER, "scenario", ONE)
    first = signed.digest("scenario", record)
    thief = filed(conn, PrivateKey.generate(), amends=first)
    own = filed(conn, amends=first)
    approved(conn, thief)
    book.file(conn, record, FLOORS)
    approved(conn, first)
    assert state(conn, first) == "active"
    approved(conn, own)
    assert state(conn, first) == "amended"


# --- departments ----------------------------------------------------------------------------------------------------

HEALTH_KEY, SOCIAL_KEY = PrivateKey.generate(), PrivateKey.generate()


def owned(conn: Connection, department: str, code: str = LEFT.code, version: int = 1) -> None:
    """A dataset version of this node, the bank's."""
    text = dict.fromkeys(("domain", "keywords", "as_of", "visible_to", "words", "licence"), "")
    row = {"code": code, "version": version, "name": "loans", "schema_json": b"{}", "rows": 600, "state": "active"}
    row |= {"content_hash": b"L" * 32, "schema_digest": b"s" * 32, "created_ms": 0, "retention_days": 0}
    conn.execute(insert(datasets).values(**row, **text, department=department, update_days=0, profile=b"{}"))


def agreed(digest: bytes, name: str, key: PrivateKey, **changes: Any) -> DepartmentApproval:
    return DepartmentApproval(name, yes(digest, "bank", key, **changes), key.public.to_bytes())


def test_the_departments_of_this_nodes_datasets_are_asked_first(conn: Connection) -> None:
    owned(conn, "Health")
    owned(conn, "Social", version=2)
    owned(conn, "Tax", code="unused")
    digest = filed(conn, datasets=(BANK_USE, OPERATOR_USE))
    held = book.application(conn, digest)
    assert departments.needed(conn, held, "bank") == {"Health"}
    assert departments.needed(conn, held, "operator") == frozenset()
    assert book.view(conn, digest, NOW, "bank").awaiting_departments == ("Health",)
    assert book.view(conn, digest, NOW, "witness").awaiting_departments == ()
    with pytest.raises(WrongState, match="awaiting the approval of: Health"):
        departments.vouched(conn, digest, held, "bank")
    with pytest.raises(NotFound):
        departments.approve(conn, digest, held, "bank", "Tax", yes(digest, "bank", SOCIAL_KEY), SOCIAL_KEY.public)
    for _ in range(2):
        departments.approve(conn, digest, held, "bank", "Health", yes(digest, "bank", HEALTH_KEY), HEALTH_KEY.public)
    (given,) = departments.vouched(conn, digest, held, "bank")
    assert (given.department, given.approver_key) == ("Health", HEALTH_KEY.public.to_bytes())
    book.approve(conn, vouch("bank", yes(digest, "bank"), given), NODES["bank"].public, "bank")
    assert book.view(conn, digest, NOW, "bank").awaiting_departments == ()


def test_a_department_that_objects_is_asked_again(conn: Connection) -> None:
    owned(conn, "Health")
    digest, other = filed(conn), filed(conn, purpose="another")
    held = book.application(conn, digest)
    for one in (digest, other):
        made = yes(one, "bank", HEALTH_KEY)
        departments.approve(conn, one, held, "bank", "Health", made, HEALTH_KEY.public)
    departments.take_back(conn, digest, "Social")
    assert departments.vouched(conn, digest, held, "bank")
    departments.take_back(conn, digest, "Health")
    with pytest.raises(WrongState, match="awaiting the approval of: Health"):
        departments.vouched(conn, digest, held, "bank")
    assert departments.vouched(conn, other, held, "bank")


def test_departments_are_shown_in_a_list_to_whom_they_concern(conn: Connection) -> None:
    owned(conn, "Health")
    mine, other = filed(conn), filed(conn, name="other")
    views = book.listed(conn, "", 9, NOW, lambda one: "bank" if one.name == "other" else "")
    assert {view.digest: view.awaiting_departments for view in views} == {mine: (), other: ("Health",)}


def test_by_rule_every_versions_department_is_asked(conn: Connection) -> None:
    owned(conn, "Health")
    owned(conn, "Social", version=2)
    owned(conn, "", version=3)
    digest = filed(conn, datasets=(RULED, OPERATOR_USE))
    assert departments.awaiting(conn, digest, book.application(conn, digest), "bank") == ("Health", "Social")


def test_a_department_is_not_the_applicant_and_signs_this_scenario(conn: Connection) -> None:
    owned(conn, "Health")
    digest = filed(conn)
    held = book.application(conn, digest)
    for key, changes, error in (
        (OFFICER, {}, PolicyRefused),
        (HEALTH_KEY, {"scenario_digest": b"x" * 32}, IntegrityFailed),
        (HEALTH_KEY, {"party": "operator"}, IntegrityFailed),
    ):
        made = yes(digest, "bank", key, **changes)
        with pytest.raises(error):
            departments.approve(conn, digest, held, "bank", "Health", made, key.public)
    assert departments.awaiting(conn, digest, held, "bank") == ("Health",)


def test_other_parties_check_what_a_node_vouches_for(conn: Connection) -> None:
    digest = filed(conn)
    good = agreed(digest, "Health", HEALTH_KEY)
    forged: list[tuple[tuple[DepartmentApproval, ...], type[SandboxError]]] = [
        ((replace(good, approver_key=SOCIAL_KEY.public.to_bytes()),), Unauthenticated),
        ((agreed(b"x" * 32, "Health", HEALTH_KEY),), IntegrityFailed),
        ((agreed(digest, "Health", HEALTH_KEY, party="operator"),), IntegrityFailed),
        ((agreed(digest, "Health", OFFICER),), PolicyRefused),
        ((good, good), InvalidSpec),
    ]
    for inside, error in forged:
        with pytest.raises(error):
            book.approve(conn, vouch("bank", yes(digest, "bank"), *inside), NODES["bank"].public, "bank")
    held = book.standing(conn, digest)
    assert held is not None and not held.approved_by
    book.approve(conn, vouch("bank", yes(digest, "bank"), good), NODES["bank"].public, "bank")


@pytest.mark.parametrize(
    ("node", "health", "accepts"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_party_accepts_what_all_its_people_accept(conn: Connection, node: bool, health: bool, accepts: bool) -> None:
    digest = filed(conn)
    inside = agreed(digest, "Health", HEALTH_KEY, accepts_simulated=health, accepts_two_contributors=health)
    own = yes(digest, "bank", accepts_simulated=node, accepts_two_contributors=node)
    book.approve(conn, vouch("bank", own, inside), NODES["bank"].public, "bank")
    held = book.standing(conn, digest)
    assert held is not None and held.approved_by == {"bank": Given(accepts, accepts)}


def test_an_application_is_filed_once_and_by_whom_it_names(conn: Connection) -> None:
    made = signed.sign(OFFICER, "scenario", scenario(not_after_ms=NOW + DAY))
    assert book.file(conn, made, FLOORS) == book.file(conn, made, FLOORS) == signed.digest("scenario", made)
    with pytest.raises(Unauthenticated):
        book.file(conn, signed.sign(OTHER, "scenario", ONE), FLOORS)
    whole: Scenario = book.application(conn, signed.digest("scenario", made))
    assert whole.outline == OUTLINE
