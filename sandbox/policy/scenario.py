"""The scenario: who must approve it, where it stands, and whether it could run.

    applied for -> awaiting -> active -> suspended -> active ... -> amended | expired | revoked
                        or: refused | changes, until that party approves

Everything here is pure. ``check`` judges the application alone; ``state`` the application with the approvals and
notices a node holds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from sandbox import signed
from sandbox.completeness import complete
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec
from sandbox.kinds import KINDS
from sandbox.kinds.noise import MOST_EPSILON_MILLI
from sandbox.model import JobKind, NoticeKind, OutputClass, Scenario
from sandbox.policy.terms import check_confined, check_consent, check_datasets, check_quota, check_totals, need

_COEFFICIENT = re.compile(r"0(\.[0-9]{1,6})?|1(\.0{1,6})?")
_LONGEST_MS = 3 * 366 * signed.DAY_MS
STOPPED = frozenset({"suspended", "amended", "revoked"})  # what ran under it is cancelled
ENDED = frozenset({"amended", "expired", "revoked"})  # nothing will run under it again


@dataclass(frozen=True, slots=True)
class Floors:
    """The operator's least strict settings; a scenario may only be stricter."""

    min_group: int
    round_to: int
    score_step: int


@dataclass(frozen=True, slots=True)
class Given:
    """What one party's approval accepts beside the scenario itself."""

    simulated: bool = False  # rows may enter a simulated enclave
    two_contributors: bool = False  # a total over two, of which each can subtract its own part


@dataclass(frozen=True, slots=True)
class Standing:
    """A scenario with what this node knows of it."""

    scenario: Scenario
    digest: bytes
    approved_by: Mapping[str, Given]
    revoked: bool
    told: Mapping[str, NoticeKind] = field(default_factory=dict)  # the last notice of each party that gave any
    amended_ms: int | None = None  # since when an approved successor stands in its place

    def awaiting(self) -> frozenset[str]:
        """Whose approval is missing."""
        return required(self.scenario) - frozenset(self.approved_by)

    def state(self, now_ms: int) -> str:
        """Return awaiting, refused, changes, active, suspended, amended, expired or revoked."""
        if self.revoked:
            return "revoked"
        if self.amended_ms is not None and now_ms >= self.amended_ms:
            return "amended"
        if now_ms >= self.scenario.not_after_ms:
            return "expired"
        objections = {kind for party, kind in self.told.items() if party not in self.approved_by}
        for kind in (NoticeKind.REFUSED, NoticeKind.CHANGES):
            if kind in objections:
                return kind.name.lower()
        if self.awaiting() or now_ms < self.scenario.not_before_ms:
            return "awaiting"
        return "suspended" if NoticeKind.SUSPENDED in self.told.values() else "active"


def controller(scenario: Scenario) -> str:
    """Return whoever controls the merchant, else the merchant itself, in the form in which two are compared."""
    return same_name(scenario.controller or scenario.merchant)


def same_name(name: str) -> str:
    """Return an organisation's name in the form in which two are compared."""
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


def subjects(scenario: Scenario) -> tuple[str, ...]:
    """Return by whom released history is kept: everybody in whose hands two answers could come together.

    Names are what approvers checked; the keys stand for those who apply under another name each time.
    """
    names = {same_name(scenario.merchant), controller(scenario)}
    keys = {scenario.applicant_key, scenario.recipient.identity_key}
    named = [tagged("subject-name", name.encode()) for name in sorted(names)]
    return tuple(digest[:16].hex() for digest in (*named, *(tagged("subject-key", key) for key in sorted(keys))))


def owners(scenario: Scenario) -> frozenset[str]:
    """Return the node ids that own a dataset of the scenario."""
    return frozenset(use.owner for use in scenario.datasets)


def required(scenario: Scenario) -> frozenset[str]:
    """Return the node ids that must approve: the operator, every data owner, every computing party."""
    return owners(scenario) | {scenario.operator} | frozenset(scenario.computing_parties)


def succeeds(scenario: Scenario, earlier: Scenario) -> bool:
    """Whether a scenario may amend an earlier one: the same person applied for both, for the same merchant."""
    same_applicant = scenario.applicant_key == earlier.applicant_key
    return same_applicant and same_name(scenario.merchant) == same_name(earlier.merchant)


def check(scenario: Scenario, floors: Floors) -> None:
    """Refuse an application that is not complete, could never run, or asks for less than the floors.

    Raises:
        InvalidSpec: naming all that is missing, or else the first field that is wrong, and the bound.
    """
    complete(scenario)
    for name in ("merchant", "controller"):
        need(_is_plain(getattr(scenario, name)), name, "must be printable, without spaces at its ends or two in a row")
    check_datasets(scenario)
    _check_outputs(scenario, floors)
    check_totals(scenario)
    check_confined(scenario)
    lasts_ms = scenario.not_after_ms - scenario.not_before_ms
    need(0 < lasts_ms <= _LONGEST_MS, "not_after_ms", "must follow not_before_ms within three years")
    need(len(scenario.amends) in (0, 32), "amends", "must be a scenario's digest, or empty")
    check_quota(scenario)
    check_consent(scenario)
    if JobKind.SCORE in scenario.kinds:
        need(scenario.score_step >= floors.score_step, "score_step", f"is finer than {floors.score_step} points")
        need(scenario.models_per_person >= 1, "models_per_person", "must be at least 1")
    is_share = _COEFFICIENT.fullmatch(scenario.price.coefficient) is not None
    need(is_share, "price.coefficient", "must be a decimal from 0 to 1")
    recipient = scenario.recipient
    for key in (scenario.applicant_key, recipient.identity_key, recipient.sealing_key, *scenario.consent.issuers):
        PublicKey.from_bytes(key)  # raises InvalidSpec itself


def coefficient(scenario: Scenario) -> Decimal:
    """Return the price coefficient as an exact decimal."""
    try:
        return Decimal(scenario.price.coefficient)
    except InvalidOperation:
        raise InvalidSpec(tell="price.coefficient is not a decimal") from None


def _check_outputs(scenario: Scenario, floors: Floors) -> None:
    seen = set()
    for rule in scenario.outputs:
        where = f"outputs.{rule.name}"
        need(rule.kind in scenario.kinds, where, "is of a kind the scenario does not list")
        need(KINDS[rule.kind].outputs.get(rule.name) is rule.class_, where, "is not an output of that kind and class")
        need((rule.kind, rule.name) not in seen, where, "is named twice")
        seen.add((rule.kind, rule.name))
        if rule.class_ is not OutputClass.ROW_CONSENTED:
            need(rule.min_group >= floors.min_group, f"{where}.min_group", f"is below {floors.min_group}")
            need(rule.round_to >= floors.round_to, f"{where}.round_to", f"is below {floors.round_to}")
        if rule.class_ is OutputClass.MODEL:
            need(rule.reviewed, f"{where}.reviewed", "must be true: what was learnt from rows is looked at by people")
        need(0 <= rule.top_two <= 1000, f"{where}.top_two", "must be 0 to 1000 permille")
        need(rule.max_rows >= 1, f"{where}.max_rows", "must be at least 1")
        need(rule.max_bytes >= 1, f"{where}.max_bytes", "must be at least 1")
        if rule.class_ is OutputClass.NOISY:
            plain = not (rule.suppress or rule.top_two or rule.remainder)
            need(plain, where, "is noisy: suppress, top_two and remainder mean nothing there")
    is_noisy = any(rule.class_ is OutputClass.NOISY for rule in scenario.outputs)
    need(
        (1 <= scenario.epsilon_milli <= MOST_EPSILON_MILLI) if is_noisy else scenario.epsilon_milli == 0,
        "epsilon_milli",
        f"must be 1 to {MOST_EPSILON_MILLI} with noisy outputs, and 0 without",
    )
    gives_points = any(rule.kind is JobKind.TRAIN and rule.class_ is OutputClass.MODEL for rule in scenario.outputs)
    is_coarse = scenario.score_step >= floors.score_step
    need(is_coarse or not gives_points, "score_step", f"is finer than {floors.score_step} points")
    both = gives_points and JobKind.SCORE in scenario.kinds  # of any score the nodes exchange each side's part
    need(not both, "outputs", "must not give out both people's scores and the other side's coefficients")


def _is_plain(name: str) -> bool:
    """Whether a name is written as it is compared, but for capitals: nobody reads one name and signs another."""
    return name.isprintable() and name == " ".join(unicodedata.normalize("NFKC", name).split())
