"""May this job run, and if so how exactly? The only reader of a scenario's permissions.

``admit`` is pure: the spec, and the facts a node knows, in; a :class:`~sandbox.model.Plan` out, or a refusal. The
submitter's node runs it at submission; every other party runs it again on its own facts and compares (``agree``): the
proposer's bytes are the plan.

Errors:    ``PolicyRefused`` with one of the fixed wordings below, ``BudgetSpent``, ``Unavailable``, ``InvalidSpec``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sandbox import pinned
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import BudgetSpent, InvalidSpec, PartyFailed, PolicyRefused, Unavailable
from sandbox.kinds import KINDS, confined
from sandbox.kinds.kind import Conditions, Kind
from sandbox.model import (
    AggregateSpec,
    BatchScore,
    DatasetRef,
    DatasetUse,
    Environment,
    JobKind,
    JobSpec,
    ModelSpec,
    OutputClass,
    Party,
    PartyRole,
    Plan,
    PsiOutput,
    PsiSpec,
    QuerySpec,
    Scenario,
    ScoreSpec,
    State,
    TrainSpec,
    VersionNotice,
)
from sandbox.policy import privacy, versions
from sandbox.policy.scenario import Standing, owners
from sandbox.psi.cost import NATIONAL
from sandbox.tee_sim.levels import Level

_KINDS: Mapping[type, JobKind] = {
    PsiSpec: JobKind.PSI,
    TrainSpec: JobKind.TRAIN,
    ScoreSpec: JobKind.SCORE,
    AggregateSpec: JobKind.AGGREGATE,
    QuerySpec: JobKind.QUERY,
    ModelSpec: JobKind.MODEL,
}
_IN_CHILDREN = frozenset({"rr22", "aby3"})  # foreign native engines; ours run in the worker itself
REFUSALS: Mapping[str, str] = {
    "unknown": "no such scenario at this node",
    "awaiting": "the scenario is not approved by every party yet",
    "expired": "the scenario has expired",
    "revoked": "the scenario was revoked",
    "refused": "a party refused the scenario",
    "changes": "a party asks for changes of the scenario",
    "suspended": "the scenario is suspended",
    "amended": "another scenario has taken the place of this one",
    "submitter": "only the scenario's applicant may submit",
    "kind": "the scenario does not allow this kind of job",
    "output": "the scenario has no rule for an output that the job asks for",
    "dataset": "the scenario does not name this dataset version",
    "proposer": "the left dataset must be the submitting node's own",
    "label": "the label must be at the submitting node",
    "earlier": "the job it builds on is not a released one of this scenario",
    "recipient": "the recipient's node would not hold this result",
    "models": "the scenario's cap on models per person is reached",
    "contributors": "every data owner of the scenario takes part in a total, each with one dataset",
    "two": "of a total over two contributors each can subtract its own part; not every approval accepts that",
    "columns": "the scenario does not let a dataset's column enter this computation",
    "bundle": "the scenario does not name this bundle",
    "untested": "this has not run on the twins under this scenario yet, as this node demands first",
    "enclave": "the scenario names no enclave in which rows of two owners may meet",
    "simulated": "not every other owner accepts that its rows enter a simulated enclave",
    "version": "no version of this dataset that the scenario's rule covers is known here",
}


MOST_TESTS = 500  # a day and scenario
TRY_FIRST = "submit the same job in the test environment first (sandbox job submit --test)"


@dataclass(frozen=True, slots=True)
class Used:
    """What a scenario has used at this node: reserved and spent."""

    calls_today: int
    calls_total: int
    rows: int
    models: frozenset[str]
    epsilon_milli: int = 0  # of the privacy budget, in thousandths
    rows_today: int = 0


@dataclass(frozen=True, slots=True)
class OwnDataset:
    """A dataset version of this node."""

    content_hash: bytes
    rows: int
    active: bool
    twin_rows: int = 0  # 0: it has no twin

    def rows_in(self, environment: Environment) -> int:
        """Return how many rows there are to compute on."""
        return self.rows if environment is Environment.PRODUCTION else self.twin_rows


@dataclass(frozen=True, slots=True)
class Earlier:
    """A job that another builds on, as this node knows it."""

    kind: JobKind
    state: State
    plan: Plan
    rows: int  # aligned people, or people a batch would score
    lasts: bool = True  # whether it left what later jobs build on
    recipe: bytes = b""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything ``admit`` may look at."""

    node_id: str
    now_ms: int
    standing: Standing | None
    submitter: bytes  # public key, 65 bytes
    used: Used
    own: Mapping[DatasetRef, OwnDataset]
    earlier: Earlier | None
    recipe: bytes  # of the job, as this node derives it: SM3
    engines: Mapping[str, str]  # engine -> "" or why it cannot run here
    conditions: Conditions
    default_deadline_s: int
    tests_today: int = 0
    is_tested: bool = True  # the recipe was released on twins under this scenario, or this node does not ask for that
    offered: Mapping[DatasetRef, VersionNotice] = field(default_factory=dict)  # of datasets used by rule
    bundled: Kind | None = None  # the kind of a job that names a bundle, as the bundle makes it


@dataclass(frozen=True, slots=True)
class Choices:
    """What the proposer chose where the scenario leaves it open; empty at the proposer."""

    proposer: str
    engine: str = ""
    deadline_s: int = 0
    time_ms: int = 0
    datasets: tuple[DatasetRef, ...] = ()  # believed only by a party that brings none


def admit(spec: JobSpec, job_id: str, submission_digest: bytes, facts: Facts, choices: Choices) -> Plan:
    """Return what will run, or refuse."""
    standing = facts.standing
    if standing is None:
        raise _refused("unknown")
    if (state := standing.state(facts.now_ms)) != "active":
        raise _refused(state)
    scenario = standing.scenario
    if facts.submitter != scenario.applicant_key:
        raise _refused("submitter")
    kind = _kind_of(spec)
    if kind not in scenario.kinds:
        raise _refused("kind")
    if kind in confined.KINDS:
        _check_confined(spec, standing)
    if not facts.is_tested and spec.environment is Environment.PRODUCTION:
        raise PolicyRefused(tell=REFUSALS["untested"], stage="admit", hint=TRY_FIRST)
    uses = _uses(spec, facts, choices)
    owners = {use.owner for use in uses}
    # What leaves comes together at the proposer's node; a count, a model, a table of totals may be another owner's.
    at_left = kind is JobKind.SCORE or (isinstance(spec.kind, PsiSpec) and spec.kind.output is not PsiOutput.ALIGNED)
    if scenario.recipient.node_id not in ({choices.proposer} if at_left else owners):
        raise _refused("recipient")
    _check_own(facts, spec.environment, *uses)
    spec = pinned.spec_of(spec, (DatasetRef(use.code, use.version) for use in uses))
    scenario = pinned.scenario_of(scenario, uses)
    made = facts.bundled or KINDS[kind]
    columns = made.columns(spec, scenario, uses)
    for use, used in zip(uses, columns, strict=True):
        if not set(used) <= {*use.fields, use.label}:
            raise _refused("columns")
    roles = _roles(spec, len(uses))
    parties = [_party(*brought) for brought in zip(uses, roles, columns, strict=True)]
    if kind is JobKind.TRAIN:
        parties.append(Party(scenario.computing_parties[0], PartyRole.COMPUTE, None, b"", ()))
    if spec.environment is Environment.PRODUCTION:
        _check_quota(spec, [DatasetRef(use.code, use.version) for use in uses], facts, standing)
    elif facts.tests_today >= MOST_TESTS:
        raise BudgetSpent(tell="the scenario's test jobs for today are used up", hint="submit again tomorrow (UTC)")
    _check_noise(spec, facts, scenario)
    is_elsewhere = kind in confined.KINDS and bool(built_on(spec)) and facts.node_id != scenario.enclave
    engine = _engine(spec, facts, choices, is_elsewhere, tuple(_rows_of(use, facts, spec.environment) for use in uses))
    outputs = tuple(rule for rule in scenario.outputs if rule.kind is kind and rule.name in made.chosen(spec))
    if not outputs:
        raise _refused("kind")
    wants_model = isinstance(spec.kind, TrainSpec) and spec.kind.release_scorecard
    if wants_model and all(rule.class_ is not OutputClass.MODEL for rule in outputs):
        raise _refused("output")
    return Plan(
        job_id=job_id,
        proposer=choices.proposer,
        kind=kind,
        scenario_digest=standing.digest,
        submission_digest=submission_digest,
        parties=tuple(parties),
        engine=engine,
        outputs=outputs,
        recipient=_key_id(scenario.recipient.identity_key),
        recipient_node=scenario.recipient.node_id,
        deadline_s=choices.deadline_s or spec.deadline_s or facts.default_deadline_s,
        reveals=KINDS[kind].reveals(spec, parties, scenario, engine),
        isolation=_isolation(spec, scenario, facts, engine),
        time_ms=choices.time_ms or facts.now_ms,
        environment=spec.environment,
    )


def agree(own: Plan, proposed: Plan, party: str) -> None:
    """Raise unless what this node admitted is what the proposer planned."""
    if own != proposed:
        parts = [name for name in Plan.__dataclass_fields__ if getattr(own, name) != getattr(proposed, name)]
        raise PartyFailed(
            f"the plan differs in {', '.join(parts)}", tell="disagrees on the plan", party=party, stage="propose"
        )


def rows_needed(spec: JobSpec, refs: Iterable[DatasetRef], facts: Facts) -> int:
    """Return how many rows of this node's data the job would use; ``refs``: the versions that it brings together."""
    if isinstance(spec.kind, ScoreSpec) and not isinstance(spec.kind.subject, BatchScore):
        return 1
    if built_on(spec):
        return facts.earlier.rows if facts.earlier else 0
    return max((facts.own[ref].rows for ref in refs if ref in facts.own), default=0)


def named_datasets(spec: JobSpec) -> tuple[DatasetRef, ...]:
    """Return the datasets a spec names itself; none if it builds on an earlier job."""
    if isinstance(spec.kind, PsiSpec):
        third = () if spec.kind.third is None else (spec.kind.third,)
        return (spec.kind.left, spec.kind.right, *third)
    if isinstance(spec.kind, QuerySpec | ModelSpec):
        return () if spec.kind.dataset is None else (spec.kind.dataset,)
    return spec.kind.datasets if isinstance(spec.kind, AggregateSpec) else ()


def built_on(spec: JobSpec) -> str:
    """Return the id of the job that a spec builds on; empty if it names its datasets."""
    if isinstance(spec.kind, ScoreSpec):
        return spec.kind.model
    return "" if isinstance(spec.kind, PsiSpec) else spec.kind.alignment


def _kind_of(spec: JobSpec) -> JobKind:
    return _KINDS[type(spec.kind)]


def _roles(spec: JobSpec, owners: int) -> tuple[PartyRole, ...]:
    if isinstance(spec.kind, AggregateSpec) and not spec.kind.alignment:
        return (PartyRole.CONTRIBUTOR,) * owners
    return (PartyRole.LEFT, PartyRole.RIGHT, PartyRole.THIRD)[:owners]


def _uses(spec: JobSpec, facts: Facts, choices: Choices) -> tuple[DatasetUse, ...]:
    """Return the datasets of all owners, the proposer's first, from the spec or from the job it builds on."""
    standing = facts.standing
    if standing is None:
        raise _refused("unknown")
    _check_parameters(spec, choices)
    refs = named_datasets(spec)
    if built_on(spec):
        if facts.node_id in standing.scenario.computing_parties:
            refs = choices.datasets  # the owners know the earlier job; this party was not part of it
        else:
            wanted = JobKind.TRAIN if isinstance(spec.kind, ScoreSpec) else JobKind.PSI
            earlier = facts.earlier
            if (
                earlier is None
                or earlier.kind is not wanted
                or earlier.state is not State.RELEASED
                or earlier.plan.scenario_digest != standing.digest
                or earlier.plan.environment is not spec.environment
                or not earlier.lasts
            ):
                raise _refused("earlier")
            refs = tuple(p.dataset for p in earlier.plan.parties if p.dataset is not None)
    uses = tuple(_pinned(ref, facts, standing.scenario, choices) for ref in refs)
    if not uses or uses[0].owner != choices.proposer or len({use.owner for use in uses}) != len(uses):
        raise _refused("proposer")
    if built_on(spec) and len(uses) != 2:
        raise _refused("earlier")
    if isinstance(spec.kind, TrainSpec | ScoreSpec) and not uses[0].label:
        raise _refused("label")
    if isinstance(spec.kind, AggregateSpec) and not built_on(spec):
        _check_contributors({use.owner for use in uses}, standing)
    return uses


def _check_contributors(contributing: set[str], standing: Standing) -> None:
    """A total over some, beside one over all, would be somebody's own; one over two is, to each of them."""
    if contributing != owners(standing.scenario):
        raise _refused("contributors")
    if len(contributing) == 2:
        accepted = {party for party, approval in standing.approved_by.items() if approval.two_contributors}
        if not standing.scenario.accepts_two_contributors or not contributing <= accepted:
            raise _refused("two")


def _pinned(ref: DatasetRef, facts: Facts, scenario: Scenario, choices: Choices) -> DatasetUse:
    """Return how the scenario lets a dataset be used, in the version that the spec or the proposer's plan names."""
    named = [chosen for chosen in choices.datasets if chosen.code == ref.code]
    if named and ref.version not in (0, named[0].version):
        raise _refused("dataset")
    use = versions.pin(scenario, named[0] if named else ref, facts.offered, choices.time_ms or facts.now_ms)
    if use is None:
        is_ruled = any(use.code == ref.code for use in versions.ruled(scenario))
        raise _refused("version" if is_ruled else "dataset")
    return use


def _check_confined(spec: JobSpec, standing: Standing) -> None:
    """A merchant's code: named beforehand. Rows of two owners: in an enclave that the other one accepts."""
    scenario = standing.scenario
    if isinstance(spec.kind, ModelSpec) and spec.kind.bundle not in scenario.bundles:
        raise _refused("bundle")
    if built_on(spec):
        if not scenario.enclave:
            raise _refused("enclave")
        accepted = {party for party, given in standing.approved_by.items() if given.simulated}
        if not scenario.accepts_simulated or not owners(scenario) - {scenario.enclave} <= accepted:
            raise _refused("simulated")


def _isolation(spec: JobSpec, scenario: Scenario, facts: Facts, engine: str) -> str:
    """Return what stands around the computation: the strongest that this node can, if the scenario accepts it.

    With an enclave for both owners' rows it is the scenario's own level: the other owner cannot know of a stronger.
    """
    if _kind_of(spec) not in confined.KINDS:
        return "engine-child" if engine in _IN_CHILDREN else "process"
    least, reason = confined.least(scenario), ""
    if built_on(spec) and facts.node_id != scenario.enclave:
        return confined.isolation(least)
    for level in (least,) if built_on(spec) else Level:
        reason = facts.engines.get(confined.at_level(level), "unknown to this version")
        if not reason:
            return confined.isolation(level)
        if level is least:
            break
    raise Unavailable(
        tell=f"{facts.node_id} cannot confine code at level {least}: {reason}",
        party=facts.node_id,
        stage="admit",
        hint="run `sandbox tee doctor` on that node, or apply for a scenario that accepts a weaker level",
    )


def _check_parameters(spec: JobSpec, choices: Choices) -> None:
    if not 0 <= choices.deadline_s <= 86_400 or (choices.deadline_s and spec.deadline_s not in (0, choices.deadline_s)):
        raise PartyFailed(
            tell="plans with another deadline than was asked for", party=choices.proposer, stage="propose"
        )
    if not 0 <= spec.deadline_s <= 86_400:
        raise InvalidSpec(tell="deadline_s must be 0 to 86400 seconds")
    if isinstance(spec.kind, PsiSpec) and spec.kind.bucket_rows and spec.kind.bucket_rows < 1000:
        raise InvalidSpec(tell="psi.bucket_rows must be 0, or at least 1000")
    if isinstance(spec.kind, QuerySpec | ModelSpec) and (spec.kind.dataset is None) != bool(spec.kind.alignment):
        raise InvalidSpec(tell="a query or model needs either a dataset or an alignment")
    if isinstance(spec.kind, AggregateSpec):
        if bool(spec.kind.datasets) == bool(spec.kind.alignment):
            raise InvalidSpec(tell="aggregate needs either datasets or an alignment")
        if len(spec.kind.datasets) == 1:
            raise InvalidSpec(tell="aggregate needs two contributors or more; a query over one dataset is another kind")
        if spec.kind.key_bits not in (2048, 3072):
            raise InvalidSpec(tell="aggregate.key_bits must be 2048 or 3072")
    if isinstance(spec.kind, TrainSpec):
        if not 1 <= spec.kind.steps <= 500:
            raise InvalidSpec(tell="train.steps must be 1 to 500")
        if not 5 <= spec.kind.holdout_percent <= 50:
            raise InvalidSpec(tell="train.holdout_percent must be 5 to 50")
        if not 0 <= spec.kind.l2_micro <= 1_000_000:
            raise InvalidSpec(tell="train.l2_micro must be 0 to 1000000")


def _check_own(facts: Facts, environment: Environment, *uses: DatasetUse) -> None:
    for use in uses:
        if use.owner != facts.node_id:
            continue
        own = facts.own.get(DatasetRef(use.code, use.version))
        if own is None or not own.active:
            raise Unavailable(
                f"dataset {use.code} version {use.version} is not here or destroyed",
                tell=f"dataset {use.code} version {use.version} is not available",
                party=facts.node_id,
                hint="ask the data owner for the present version and apply for an amended scenario",
            )
        if own.content_hash != use.content_hash:
            raise PolicyRefused(
                f"dataset {use.code} version {use.version} has another content hash than the scenario",
                tell=REFUSALS["dataset"],
            )
        if environment is Environment.TEST and not own.twin_rows:
            raise Unavailable(
                tell=f"dataset {use.code} version {use.version} has no twin to try a job on",
                party=facts.node_id,
                hint="ask the data owner for one (sandbox dataset twin)",
            )


def _check_quota(spec: JobSpec, refs: Iterable[DatasetRef], facts: Facts, standing: Standing) -> None:
    quota, used = standing.scenario.quota, facts.used
    if used.calls_today >= quota.calls_per_day:
        raise BudgetSpent(tell="the scenario's calls for today are used up", hint="submit again tomorrow (UTC)")
    if used.calls_total >= quota.calls_total:
        raise BudgetSpent(tell="the scenario's calls are used up")
    rows = rows_needed(spec, refs, facts)
    if used.rows + rows > quota.rows_total:
        raise BudgetSpent(tell="the scenario's rows are used up")
    if quota.rows_per_day and used.rows_today + rows > quota.rows_per_day:
        raise BudgetSpent(tell="the scenario's rows for today are used up", hint="submit again tomorrow (UTC)")
    if isinstance(spec.kind, ScoreSpec):
        models = used.models | {spec.kind.model}
        if len(models) > standing.scenario.models_per_person:
            raise _refused("models")


def epsilon_milli(spec: JobSpec) -> int:
    """Return what a job costs of the privacy budget, in thousandths; 0 if it has no noise."""
    return spec.kind.epsilon_milli if isinstance(spec.kind, AggregateSpec) else 0


def _check_noise(spec: JobSpec, facts: Facts, scenario: Scenario) -> None:
    if not (wanted := epsilon_milli(spec)):
        return
    if reason := facts.engines.get("noise", "unknown to this version"):
        raise Unavailable(
            tell=f"noise cannot be drawn at {facts.node_id}: {reason}",
            party=facts.node_id,
            stage="admit",
            hint="pip install 'data-sandbox[noise]' at that node",
        )
    privacy.check(wanted, facts.used.epsilon_milli, scenario.epsilon_milli)


def _rows_of(use: DatasetUse, facts: Facts, environment: Environment) -> int:
    own = facts.own.get(DatasetRef(use.code, use.version)) if use.owner == facts.node_id else None
    return own.rows_in(environment) if own else use.rows


def _engine(spec: JobSpec, facts: Facts, choices: Choices, is_elsewhere: bool, rows: tuple[int, ...]) -> str:
    """Return the proposer's choice if it is acceptable and runs here, else the best that does.

    Args:
        is_elsewhere: it runs at another party alone, which looks after that itself.
    """
    acceptable = KINDS[_kind_of(spec)].engines(spec, replace(facts.conditions, rows=rows))
    spec_is_psi = isinstance(spec.kind, PsiSpec)
    if choices.engine:
        if facts.conditions.national and spec_is_psi and choices.engine not in NATIONAL:
            raise PolicyRefused(
                tell=f"{facts.node_id} demands national algorithms", hint="ask for engine ecdh_sm2 in the job"
            )
        acceptable = tuple(name for name in acceptable if name == choices.engine)
        if not acceptable:
            raise PartyFailed(
                tell="the spec does not allow the proposed engine", party=choices.proposer, stage="propose"
            )
    for name in acceptable:
        if is_elsewhere or facts.engines.get(name, "unknown here") == "":
            return name
    name = acceptable[0]
    reason = facts.engines.get(name, "unknown to this version")
    raise Unavailable(
        tell=f"engine {name} cannot run at {facts.node_id}: {reason}",
        party=facts.node_id,
        stage="admit",
        hint="pip install 'data-sandbox[fast]' at that node",
    )


def _party(use: DatasetUse, role: PartyRole, columns: tuple[str, ...]) -> Party:
    return Party(use.owner, role, DatasetRef(use.code, use.version), use.content_hash, columns)


def _key_id(key: bytes) -> str:
    return PublicKey.from_bytes(key).key_id


def _refused(name: str) -> PolicyRefused:
    return PolicyRefused(tell=REFUSALS[name], stage="admit")
