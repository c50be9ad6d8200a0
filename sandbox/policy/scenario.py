"""The scenario: is it whole, who must approve it, where does it stand.

Everything here is pure. ``check`` judges the application alone; ``state`` the application with the approvals and
revocations a node holds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec
from sandbox.kinds import KINDS, confined
from sandbox.kinds.cells import check_dimension, check_range
from sandbox.kinds.noise import MOST_EPSILON_MILLI
from sandbox.model import ConsentRule, JobKind, OutputClass, Scenario
from sandbox.tee_sim.levels import Level

_COEFFICIENT = re.compile(r"0(\.[0-9]{1,6})?|1(\.0{1,6})?")
_LONGEST_MS = 3 * 366 * 86_400_000


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

    def awaiting(self) -> frozenset[str]:
        """Whose approval is missing."""
        return required(self.scenario) - frozenset(self.approved_by)

    def state(self, now_ms: int) -> str:
        """Return awaiting, active, expired or revoked."""
        if self.revoked:
            return "revoked"
        if now_ms >= self.scenario.not_after_ms:
            return "expired"
        if self.awaiting() or now_ms < self.scenario.not_before_ms:
            return "awaiting"
        return "active"


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


def check(scenario: Scenario, floors: Floors) -> None:
    """Refuse an application that could never run, or that asks for less than the floors.

    Raises:
        InvalidSpec: naming the field and the bound.
    """
    for field in ("merchant", "controller"):
        _need(
            _is_plain(getattr(scenario, field)), field, "must be printable, without spaces at its ends or two in a row"
        )
    _datasets(scenario)
    _outputs(scenario, floors)
    _totals(scenario)
    _confined(scenario)
    _need(
        0 < scenario.not_after_ms - scenario.not_before_ms <= _LONGEST_MS,
        "not_after_ms",
        "must follow not_before_ms within three years",
    )
    quota = scenario.quota
    for name in ("calls_per_day", "calls_total", "rows_total"):
        _need(getattr(quota, name) > 0, f"quota.{name}", "must be positive")
    row_level = any(rule.class_ is OutputClass.ROW_CONSENTED for rule in scenario.outputs)
    if row_level:
        _need(scenario.consent.batch is ConsentRule.HELD_LETTER, "consent.batch", "must be HELD_LETTER")
    if JobKind.SCORE in scenario.kinds:
        _need(scenario.score_step >= floors.score_step, "score_step", f"is finer than {floors.score_step} points")
        _need(scenario.models_per_person >= 1, "models_per_person", "must be at least 1")
        _need(scenario.consent.single is ConsentRule.TOKEN, "consent.single", "must be TOKEN")
        _need(len(scenario.consent.issuers) > 0, "consent.issuers", "must name a key")
        own = scenario.applicant_key in scenario.consent.issuers
        _need(not own, "consent.issuers", "must not name the applicant's own key")
    _need(
        _COEFFICIENT.fullmatch(scenario.price.coefficient) is not None,
        "price.coefficient",
        "must be a decimal from 0 to 1",
    )
    for key in (
        scenario.applicant_key,
        scenario.recipient.identity_key,
        scenario.recipient.sealing_key,
        *scenario.consent.issuers,
    ):
        PublicKey.from_bytes(key)  # raises InvalidSpec itself


def coefficient(scenario: Scenario) -> Decimal:
    """Return the price coefficient as an exact decimal."""
    try:
        return Decimal(scenario.price.coefficient)
    except InvalidOperation:
        raise InvalidSpec(tell="price.coefficient is not a decimal") from None


def _datasets(scenario: Scenario) -> None:
    uses = scenario.datasets
    _need(1 <= len(uses) <= 8, "datasets", "must name one to eight")
    _need(len({(use.code, use.version) for use in uses}) == len(uses), "datasets", "names one twice")
    _need(scenario.recipient.node_id in owners(scenario), "recipient.node_id", "must be a data owner's node")
    _need(
        not owners(scenario) & set(scenario.computing_parties),
        "computing_parties",
        "must not own a dataset of the scenario",
    )
    for use in uses:
        _need(use.version >= 1, f"datasets.{use.code}.version", "must be pinned, from 1")
        _need(
            len(use.key) > 0 and len(set(use.key)) == len(use.key),
            f"datasets.{use.code}.key",
            "must name distinct columns",
        )
        _need(len(set(use.fields)) == len(use.fields), f"datasets.{use.code}.fields", "names one twice")
        clash = set(use.fields) & (set(use.key) | {use.label})
        _need(not clash, f"datasets.{use.code}.fields", "must not repeat the key or the label")
    _need(len(set(scenario.kinds)) == len(scenario.kinds) > 0, "kinds", "must name distinct kinds")
    if JobKind.TRAIN in scenario.kinds:
        _need(sum(bool(use.label) for use in uses) == 1, "datasets", "must name one label for train")
        _need(len(scenario.computing_parties) >= 1, "computing_parties", "must name a third party for train")


def _totals(scenario: Scenario) -> None:
    """Check what tables of totals are made from."""
    columns = {name for use in scenario.datasets for name in (*use.fields, use.label) if name}
    names = [dimension.name for dimension in scenario.dimensions]
    _need(len(set(names)) == len(names), "dimensions", "names one twice")
    for dimension in scenario.dimensions:
        wrong = check_dimension(dimension)
        _need(not wrong, f"dimensions.{dimension.name}", wrong)
        _need(dimension.column in columns, f"dimensions.{dimension.name}.column", "is no field of a dataset")
    banded = [dimension.column for dimension in scenario.dimensions]
    # Two sets of bands over one column: rows between an edge of one and an edge of the other could be singled out.
    _need(len(set(banded)) == len(banded), "dimensions", "has two over one column")
    if {JobKind.AGGREGATE, JobKind.QUERY} & set(scenario.kinds):
        one_each = len(owners(scenario)) == len(scenario.datasets)
        _need(one_each, "datasets", "must be one of each owner for totals: two versions differ by a few people")
    measured = [declared.column for declared in scenario.measures]
    _need(len(set(measured)) == len(measured), "measures", "names a column twice")
    for declared in scenario.measures:
        wrong = check_range(declared)
        _need(not wrong, f"measures.{declared.column}", wrong)
        _need(declared.column in columns, f"measures.{declared.column}", "is no field of a dataset")


def _confined(scenario: Scenario) -> None:
    """Check what is said of a merchant's own code and statements."""
    known = scenario.isolation in ("", *Level)
    _need(known, "isolation", f"must be one of {', '.join(Level)}, or empty for the first")
    runs_code = bool(confined.KINDS & set(scenario.kinds))
    _need(runs_code or not scenario.isolation, "isolation", "is for queries and models")
    _need(len(set(scenario.bundles)) == len(scenario.bundles), "bundles", "names one twice")
    runs_models = JobKind.MODEL in scenario.kinds
    _need(bool(scenario.bundles) == runs_models, "bundles", "must name one for models, and none without")


def _outputs(scenario: Scenario, floors: Floors) -> None:
    idle = set(scenario.kinds) - {rule.kind for rule in scenario.outputs}
    seen = set()
    for rule in scenario.outputs:
        where = f"outputs.{rule.name}"
        _need(rule.kind in scenario.kinds, where, "is of a kind the scenario does not list")
        _need(KINDS[rule.kind].outputs.get(rule.name) is rule.class_, where, "is not an output of that kind and class")
        _need((rule.kind, rule.name) not in seen, where, "is named twice")
        seen.add((rule.kind, rule.name))
        if rule.class_ is not OutputClass.ROW_CONSENTED:
            _need(rule.min_group >= floors.min_group, f"{where}.min_group", f"is below {floors.min_group}")
            _need(rule.round_to >= floors.round_to, f"{where}.round_to", f"is below {floors.round_to}")
        if rule.class_ is OutputClass.MODEL:
            _need(rule.reviewed, f"{where}.reviewed", "must be true: what was learnt from rows is looked at by people")
        _need(0 <= rule.top_two <= 1000, f"{where}.top_two", "must be 0 to 1000 permille")
        _need(rule.max_rows >= 1, f"{where}.max_rows", "must be at least 1")
        _need(rule.max_bytes >= 1, f"{where}.max_bytes", "must be at least 1")
        if rule.class_ is OutputClass.NOISY:
            plain = not (rule.suppress or rule.top_two or rule.remainder)
            _need(plain, where, "is noisy: suppress, top_two and remainder mean nothing there")
    _need(not idle, "outputs", "must name one of every kind")
    is_noisy = any(rule.class_ is OutputClass.NOISY for rule in scenario.outputs)
    _need(
        (1 <= scenario.epsilon_milli <= MOST_EPSILON_MILLI) if is_noisy else scenario.epsilon_milli == 0,
        "epsilon_milli",
        f"must be 1 to {MOST_EPSILON_MILLI} with noisy outputs, and 0 without",
    )
    gives_points = any(rule.kind is JobKind.TRAIN and rule.class_ is OutputClass.MODEL for rule in scenario.outputs)
    is_coarse = scenario.score_step >= floors.score_step
    _need(is_coarse or not gives_points, "score_step", f"is finer than {floors.score_step} points")
    both = gives_points and JobKind.SCORE in scenario.kinds  # of any score the nodes exchange each side's part
    _need(not both, "outputs", "must not give out both people's scores and the other side's coefficients")


def _is_plain(name: str) -> bool:
    """Whether a name is written as it is compared, but for capitals: nobody reads one name and signs another."""
    return name.isprintable() and name == " ".join(unicodedata.normalize("NFKC", name).split())


def _need(holds: bool, field: str, rule: str) -> None:
    if not holds:
        raise InvalidSpec(tell=f"scenario: {field} {rule}")
