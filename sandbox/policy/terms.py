"""The parts of a scenario, each judged alone: datasets, totals, merchants' code, quotas, consent.

Errors:    ``InvalidSpec`` naming the field and the bound.
Not here:  what is absent (``completeness``), outputs and the operator's floors (``scenario``).
"""

from __future__ import annotations

from sandbox.completeness import holds_letters
from sandbox.errors import InvalidSpec
from sandbox.kinds import confined
from sandbox.kinds.cells import check_dimension, check_range
from sandbox.model import ConsentRule, DatasetUse, JobKind, OutputClass, Scenario, VersionRule
from sandbox.tee_sim.levels import Level

MOST_AGE_DAYS = 3650
MOST_LETTER_DAYS = 90
MOST_USES = 1000  # of one consent


def need(holds: bool, field: str, rule: str) -> None:
    """Refuse a scenario for one field unless the rule holds."""
    if not holds:
        raise InvalidSpec(tell=f"scenario: {field} {rule}")


def check_datasets(scenario: Scenario) -> None:
    """Check which data are used, and that every kind of job finds what it needs."""
    uses, owners = scenario.datasets, {use.owner for use in scenario.datasets}
    need(1 <= len(uses) <= 8, "datasets", "must name one to eight")
    need(len({(use.code, use.version) for use in uses}) == len(uses), "datasets", "names one twice")
    ruled = {use.code for use in uses if use.rule is VersionRule.SAME_SCHEMA}
    both = ruled & {use.code for use in uses if use.rule is VersionRule.EXACT}
    need(not both, "datasets", "names one by its version and by its schema")
    need(scenario.recipient.node_id in owners, "recipient.node_id", "must be a data owner's node")
    apart = not owners & set(scenario.computing_parties)
    need(apart, "computing_parties", "must not own a dataset of the scenario")
    for use in uses:
        _check_versions(use)
        where = f"datasets.{use.code}"
        need(len(set(use.key)) == len(use.key), f"{where}.key", "must name distinct columns")
        need(len(set(use.fields)) == len(use.fields), f"{where}.fields", "names one twice")
        clash = set(use.fields) & (set(use.key) | {use.label})
        need(not clash, f"{where}.fields", "must not repeat the key or the label")
    need(len(set(scenario.kinds)) == len(scenario.kinds) > 0, "kinds", "must name distinct kinds")
    if JobKind.TRAIN in scenario.kinds:
        need(sum(bool(use.label) for use in uses) == 1, "datasets", "must name one label for train")


def _check_versions(use: DatasetUse) -> None:
    where = f"datasets.{use.code}"
    if use.rule is VersionRule.EXACT:
        need(use.version >= 1, f"{where}.version", "must be pinned, from 1")
        need(len(use.content_hash) == 32, f"{where}.content_hash", "must be 32 bytes")
        need(not use.schema_digest, f"{where}.schema_digest", "is for same_schema")
        need(use.max_age_days == 0, f"{where}.max_age_days", "is for same_schema")
        return
    need(use.version == 0, f"{where}.version", "must be 0: any of the schema")
    need(not use.content_hash, f"{where}.content_hash", "must be empty: a plan pins a version")
    need(len(use.schema_digest) == 32, f"{where}.schema_digest", "must be 32 bytes")
    need(0 <= use.max_age_days <= MOST_AGE_DAYS, f"{where}.max_age_days", f"must be 0 to {MOST_AGE_DAYS}")


def check_totals(scenario: Scenario) -> None:
    """Check what tables of totals are made from."""
    columns = {name for use in scenario.datasets for name in (*use.fields, use.label) if name}
    names = [dimension.name for dimension in scenario.dimensions]
    need(len(set(names)) == len(names), "dimensions", "names one twice")
    for dimension in scenario.dimensions:
        wrong = check_dimension(dimension)
        need(not wrong, f"dimensions.{dimension.name}", wrong)
        need(dimension.column in columns, f"dimensions.{dimension.name}.column", "is no field of a dataset")
    banded = [dimension.column for dimension in scenario.dimensions]
    # Two sets of bands over one column: rows between an edge of one and an edge of the other could be singled out.
    need(len(set(banded)) == len(banded), "dimensions", "has two over one column")
    if {JobKind.AGGREGATE, JobKind.QUERY} & set(scenario.kinds):
        one_each = len({use.owner for use in scenario.datasets}) == len(scenario.datasets)
        need(one_each, "datasets", "must be one of each owner for totals: two versions differ by a few people")
    measured = [declared.column for declared in scenario.measures]
    need(len(set(measured)) == len(measured), "measures", "names a column twice")
    for declared in scenario.measures:
        wrong = check_range(declared)
        need(not wrong, f"measures.{declared.column}", wrong)
        need(declared.column in columns, f"measures.{declared.column}", "is no field of a dataset")


def check_confined(scenario: Scenario) -> None:
    """Check what is said of a merchant's own code and statements."""
    known = scenario.isolation in ("", *Level)
    need(known, "isolation", f"must be one of {', '.join(Level)}, or empty for the first")
    runs_code = bool(confined.KINDS & set(scenario.kinds))
    need(runs_code or not scenario.isolation, "isolation", "is for queries and models")
    need(len(set(scenario.bundles)) == len(scenario.bundles), "bundles", "names one twice")
    need(len(set(scenario.runtimes)) == len(scenario.runtimes), "runtimes", "names one twice")
    need(runs_code or not scenario.runtimes, "runtimes", "is for queries and models")
    if scenario.enclave:
        owners = [use.owner for use in scenario.datasets]
        need(runs_code and JobKind.PSI in scenario.kinds, "enclave", "is for queries and models over an alignment")
        need(len(owners) == 2 == len(set(owners)), "enclave", "needs one dataset each of two owners")
        need(scenario.enclave in owners, "enclave", "must be the node of one of the owners")
        need(scenario.accepts_simulated, "accepts_simulated", "must be true: another owner's rows enter the enclave")
    runs_models = JobKind.MODEL in scenario.kinds
    need(bool(scenario.bundles) == runs_models, "bundles", "must name one for models, and none without")


def check_quota(scenario: Scenario) -> None:
    """Check the limits: a bound of 0 is none, a day's must not be above the whole."""
    quota = scenario.quota
    for name in ("calls_per_day", "calls_total", "rows_total"):
        need(getattr(quota, name) > 0, f"quota.{name}", "must be positive")
    for name, most in (("rows", quota.rows_total), ("people", quota.people_total)):
        daily = getattr(quota, f"{name}_per_day")
        need(daily >= 0 and most >= 0, f"quota.{name}_per_day", "must not be negative")
        need(not (daily and most) or daily <= most, f"quota.{name}_per_day", f"must not be above quota.{name}_total")


def check_consent(scenario: Scenario) -> None:
    """Check what stands behind what is computed about persons."""
    consent = scenario.consent
    if any(rule.class_ is OutputClass.ROW_CONSENTED for rule in scenario.outputs):
        need(consent.batch is ConsentRule.HELD_LETTER, "consent.batch", "must be HELD_LETTER")
    if JobKind.SCORE in scenario.kinds:
        need(consent.single is ConsentRule.TOKEN, "consent.single", "must be TOKEN")
        own = scenario.applicant_key in consent.issuers
        need(not own, "consent.issuers", "must not name the applicant's own key")
    need(len(set(consent.issuers)) == len(consent.issuers), "consent.issuers", "names one twice")
    need(len(set(consent.sources)) == len(consent.sources), "consent.sources", "names one twice")
    need(0 <= consent.most_uses <= MOST_USES, "consent.most_uses", f"must be 0 to {MOST_USES}")
    need(0 <= consent.sample_permille <= 1000, "consent.sample_permille", "must be 0 to 1000 permille")
    if holds_letters(scenario):
        in_time = 1 <= consent.letter_days <= MOST_LETTER_DAYS
        need(in_time, "consent.letter_days", f"must be 1 to {MOST_LETTER_DAYS}")
    else:
        need(not consent.letter_days, "consent.letter_days", "is for letters")
        need(not consent.sample_permille, "consent.sample_permille", "is for letters")
