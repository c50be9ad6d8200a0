"""What the sandbox talks about. Frozen shapes, no behaviour beyond the table of states.

Four types say how far the data has been trusted, each made by exactly one function, so that forgetting a stage is a
type error:

    JobSpec (wire.decode) -> Plan (policy.admit) -> RawResult (runner.run) -> Release (gate.release)

The other shapes are the messages of ``proto/sandbox/v1`` under the same names; ``wire`` converts, and enforces the
sizes given here. Units stand in the protocol files beside each field. Times are Unix milliseconds; a job id is 32 hex
digits.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated


@dataclass(frozen=True, slots=True)
class Size:
    """Bounds of a value on the wire: characters, bytes, or items."""

    least: int
    most: int


Name = Annotated[str, Size(1, 64)]
Text = Annotated[str, Size(0, 512)]
NodeId = Annotated[str, Size(1, 64)]
KeyId = Annotated[str, Size(32, 32)]
JobId = Annotated[str, Size(32, 32)]
Point = Annotated[bytes, Size(65, 65)]
Digest = Annotated[bytes, Size(32, 32)]
MaybeDigest = Annotated[bytes, Size(0, 32)]
Nonce = Annotated[bytes, Size(16, 16)]
Nonce32 = Annotated[bytes, Size(32, 32)]
Signature = Annotated[bytes, Size(8, 80)]
Certificate = Annotated[bytes, Size(1, 8192)]
Blob = Annotated[bytes, Size(0, 1 << 30)]  # what arrives is bounded by the transport: 16 MiB a message


class JobKind(enum.IntEnum):
    """What a job computes."""

    PSI = 1
    TRAIN = 2
    SCORE = 3
    AGGREGATE = 4
    QUERY = 5
    MODEL = 6


class OutputClass(enum.IntEnum):
    """How an output is judged."""

    AGGREGATE = 1
    ROW_CONSENTED = 2
    REPORT = 3
    MODEL = 4
    NOISY = 5


class Decision(enum.IntEnum):
    """What a reviewer says."""

    APPROVE = 1
    REFUSE = 2
    SEND_BACK = 3


class VersionRule(enum.IntEnum):
    """Which dataset versions an approval covers."""

    EXACT = 1
    SAME_SCHEMA = 2


class ConsentSource(enum.IntEnum):
    """Where a person's consent comes from."""

    SUBJECT = 1
    ATTESTED = 2
    LETTER = 3


class Category(enum.IntEnum):
    """Under which regime public data is used: 共享, 开放, 授权运营."""

    SHARED = 1
    OPEN = 2
    AUTHORISED = 3


class NoticeKind(enum.IntEnum):
    """What somebody says of a scenario in a party's name."""

    REFUSED = 1
    CHANGES = 2
    SUSPENDED = 3
    RESUMED = 4
    REVOKED = 5


class LetterState(enum.IntEnum):
    """How far a letter is that is to be shown on challenge."""

    AWAITED = 1
    PRODUCED = 2
    ACCEPTED = 3
    REJECTED = 4
    MISSING = 5


class Environment(enum.IntEnum):
    """Over which rows a job runs: the datasets', or their twins'."""

    PRODUCTION = 1
    TEST = 2


class ConsentRule(enum.IntEnum):
    """What stands behind a score about one person."""

    NONE = 1
    TOKEN = 2
    HELD_LETTER = 3


class PsiEngine(enum.IntEnum):
    """How two sets are intersected."""

    AUTO = 1
    RR22 = 2
    ECDH_X25519 = 3
    ECDH_SM2 = 4
    PREPARED_SM2 = 5


class PsiOutput(enum.IntEnum):
    """What an intersection is for."""

    ALIGNED = 1
    MEMBERS = 2
    MEMBERS_BOTH = 3
    SIZE = 4
    SUMS = 5
    JOINED = 6


class Statistic(enum.IntEnum):
    """What is computed of a column in each group."""

    SUM = 1
    COUNT = 2
    MEAN = 3
    VARIANCE = 4
    HISTOGRAM = 5
    WEIGHTED_SUM = 6


class ScoreScope(enum.IntEnum):
    """Whom a batch scores."""

    HOLDOUT = 1
    ALIGNED = 2


class PartyRole(enum.IntEnum):
    """What a party brings."""

    LEFT = 1
    RIGHT = 2
    COMPUTE = 3
    THIRD = 4
    CONTRIBUTOR = 5


class ChannelPurpose(enum.IntEnum):
    """What a connection between nodes carries."""

    CONTROL = 1
    RELAY = 2


class SealMode(enum.IntEnum):
    """What protects the records of a connection."""

    SM4 = 1
    TLS = 2


class State(enum.IntEnum):
    """Where a job stands; durable."""

    RECEIVED = 1
    ADMITTED = 2
    RUNNING = 3
    HELD = 4
    RELEASED = 5
    REFUSED = 6
    FAILED = 7
    CANCELLED = 8
    EXPIRED = 9


MOVES: Mapping[State, frozenset[State]] = {
    State.RECEIVED: frozenset({State.ADMITTED, State.REFUSED}),
    State.ADMITTED: frozenset({State.RUNNING, State.EXPIRED, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset({State.HELD, State.RELEASED, State.REFUSED, State.FAILED, State.CANCELLED}),
    State.HELD: frozenset({State.RELEASED, State.REFUSED, State.EXPIRED, State.CANCELLED}),
    State.RELEASED: frozenset(),
    State.REFUSED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
}
ENDED = frozenset(state for state, onward in MOVES.items() if not onward)


# --- signed things and keys
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signed:
    """Bytes and who signed them; the type follows from where it stands."""

    payload: Blob
    key_id: KeyId
    signature: Signature


@dataclass(frozen=True, slots=True)
class Call:
    """The payload of a signed request."""

    protocol: int
    audience: NodeId
    method: Name
    body: Blob
    time_ms: int
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something stopped, in words for the caller."""

    code: Name
    party: Annotated[str, Size(0, 64)]
    stage: Annotated[str, Size(0, 64)]
    cause: Text
    cause_zh: Text
    next_step: Text
    next_step_zh: Text = ""


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A key for one purpose, certified by its owner's identity key."""

    key: Point
    signature: Signature


@dataclass(frozen=True, slots=True)
class KeyCard:
    """One person's or program's public keys."""

    name: Name
    organisation: Name
    identity_key: Point
    sealing: CertifiedKey
    tls_certificate: Certificate
    created_ms: int


@dataclass(frozen=True, slots=True)
class PeerCard:
    """One node's public keys and address."""

    node_id: NodeId
    organisation: Name
    address: Annotated[str, Size(3, 262)]
    identity_key: Point
    checkpoint: CertifiedKey
    sealing: CertifiedKey
    attestation: CertifiedKey
    tls_certificate: Certificate
    created_ms: int


# --- scenario
# -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DatasetUse:
    """One dataset a scenario may use, and how much of it."""

    code: Name
    owner: NodeId
    rule: VersionRule
    version: int
    content_hash: MaybeDigest
    key: tuple[Name, ...]
    fields: tuple[Name, ...]
    label: Annotated[str, Size(0, 64)]
    rows: int = 0
    schema_digest: MaybeDigest = b""
    max_age_days: int = 0


@dataclass(frozen=True, slots=True)
class Outline:
    """The outline of an application to use public data."""

    data_use: Annotated[str, Size(0, 2000)]
    supply: Annotated[str, Size(0, 2000)]
    problem: Annotated[str, Size(0, 2000)]
    category: Category
    field_of_use: Annotated[str, Size(0, 64)]


@dataclass(frozen=True, slots=True)
class Dimension:
    """How rows are sorted into groups."""

    name: Name
    column: Name
    values: tuple[Name, ...] = ()
    edges: tuple[int, ...] = ()
    places: int = 0


@dataclass(frozen=True, slots=True)
class MeasureRange:
    """Between which bounds a column's values lie, in units of 10^-places."""

    column: Name
    low: int
    high: int
    places: int = 0


@dataclass(frozen=True, slots=True)
class OutputRule:
    """One output the gate may let out, and its floor."""

    kind: JobKind
    name: Name
    class_: OutputClass
    min_group: int
    round_to: int
    max_rows: int
    max_bytes: int
    reviewed: bool = False
    top_two: int = 0
    remainder: int = 0
    suppress: bool = False


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom results are sealed to."""

    node_id: NodeId
    identity_key: Point
    sealing_key: Point


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a scenario may use, counted at each owner's node."""

    calls_per_day: int
    calls_total: int
    rows_total: int
    rows_per_day: int = 0
    people_per_day: int = 0
    people_total: int = 0


@dataclass(frozen=True, slots=True)
class Consent:
    """What stands behind scores about persons."""

    batch: ConsentRule
    single: ConsentRule
    issuers: tuple[Point, ...]
    sources: tuple[ConsentSource, ...] = ()
    most_uses: int = 0
    sample_permille: int = 0
    letter_days: int = 0


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """What use costs."""

    tariff: Name
    coefficient: Name
    public_good: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    """The one signed object that says what may run."""

    name: Name
    merchant: Name
    purpose: Annotated[str, Size(1, 512)]
    applicant_key: Point
    datasets: tuple[DatasetUse, ...]
    kinds: tuple[JobKind, ...]
    outputs: tuple[OutputRule, ...]
    recipient: Recipient
    operator: NodeId
    computing_parties: tuple[NodeId, ...]
    not_before_ms: int
    not_after_ms: int
    quota: Quota
    consent: Consent
    score_step: int
    models_per_person: int
    price: PriceTerms
    accepts_simulated: bool
    nonce: Nonce
    dimensions: Annotated[tuple[Dimension, ...], Size(0, 64)] = ()
    measures: tuple[MeasureRange, ...] = ()
    accepts_two_contributors: bool = False
    controller: Annotated[str, Size(0, 64)] = ""
    epsilon_milli: int = 0
    bundles: Annotated[tuple[Digest, ...], Size(0, 64)] = ()
    isolation: Annotated[str, Size(0, 16)] = ""
    outline: Outline | None = None
    amends: MaybeDigest = b""
    enclave: Annotated[str, Size(0, 64)] = ""
    runtimes: Annotated[tuple[Digest, ...], Size(0, 16)] = ()


@dataclass(frozen=True, slots=True)
class Approval:
    """One organisation's yes to one scenario."""

    scenario_digest: Digest
    party: NodeId
    accepts_simulated: bool
    time_ms: int
    accepts_two_contributors: bool = False


@dataclass(frozen=True, slots=True)
class DepartmentApproval:
    """A source department's yes, which its operator's approval needs."""

    department: Name
    approval: Signed
    approver_key: Point


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """An approval with the approver's key, for which the signing node vouches."""

    approval: Signed
    approver_key: Point
    departments: Annotated[tuple[DepartmentApproval, ...], Size(0, 16)] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """What one organisation says of one scenario; of several the last counts."""

    scenario_digest: Digest
    party: NodeId
    kind: NoticeKind
    reason: Text
    time_ms: int
    serial: int
    actor: Name


@dataclass(frozen=True, slots=True)
class VersionNotice:
    """An owner's word that a dataset version is there to be used, or, with ``gone``, that it is no more."""

    code: Name
    version: int
    owner: NodeId
    content_hash: Digest
    schema_digest: Digest
    rows: int
    created_ms: int
    gone: bool = False


@dataclass(frozen=True, slots=True)
class ScenarioApplication:
    """Body of ApplyScenario."""

    scenario: Signed


@dataclass(frozen=True, slots=True)
class ApprovalDecision:
    """Body of ApproveScenario."""

    approval: Signed


@dataclass(frozen=True, slots=True)
class Announcement:
    """Body of NotifyScenario."""

    scenario_digest: Digest
    kind: NoticeKind
    reason: Text


@dataclass(frozen=True, slots=True)
class NoticeView:
    """A notice as people see it."""

    party: NodeId
    kind: NoticeKind
    reason: Text
    time_ms: int


@dataclass(frozen=True, slots=True)
class ListQuery:
    """One page of a list."""

    after: Annotated[str, Size(0, 128)] = ""
    limit: int = 0


@dataclass(frozen=True, slots=True)
class ScenarioView:
    """A scenario as a node holds it."""

    digest: Digest
    scenario: Signed
    approved_by: tuple[NodeId, ...]
    awaiting: tuple[NodeId, ...]
    state: Name
    awaiting_departments: tuple[Name, ...] = ()
    notices: tuple[NoticeView, ...] = ()


# --- job
# ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """One version of one dataset."""

    code: Name
    version: int


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of a table of totals."""

    name: Name
    statistic: Statistic
    column: Name
    weight: Annotated[str, Size(0, 64)] = ""


@dataclass(frozen=True, slots=True)
class PsiSpec:
    """Intersect two datasets, or three, on their keys."""

    left: DatasetRef
    right: DatasetRef
    engine: PsiEngine
    output: PsiOutput = PsiOutput.ALIGNED
    measures: Annotated[tuple[Measure, ...], Size(0, 16)] = ()
    columns: Annotated[tuple[Name, ...], Size(0, 64)] = ()
    third: DatasetRef | None = None
    bucket_rows: int = 0


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """Vertical logistic regression over an alignment."""

    alignment: JobId
    steps: int
    holdout_percent: int
    seed: Annotated[bytes, Size(1, 32)]
    l2_micro: int
    release_scorecard: bool = False


@dataclass(frozen=True, slots=True)
class BatchScore:
    """Score many people of an alignment."""

    scope: ScoreScope


@dataclass(frozen=True, slots=True)
class ApplicantScore:
    """Score one person, named in a sealed input only."""

    commitment: Digest


@dataclass(frozen=True, slots=True)
class ScoreSpec:
    """Score with a trained joint model."""

    model: JobId
    subject: BatchScore | ApplicantScore


@dataclass(frozen=True, slots=True)
class AggregateSpec:
    """Totals by group over what several parties hold."""

    datasets: Annotated[tuple[DatasetRef, ...], Size(0, 8)]
    alignment: Annotated[str, Size(0, 32)]
    groups: Annotated[tuple[Name, ...], Size(0, 2)]
    measures: Annotated[tuple[Measure, ...], Size(1, 16)]
    key_bits: int
    margins: bool = False
    epsilon_milli: int = 0


@dataclass(frozen=True, slots=True)
class QuerySpec:
    """One SELECT over a data owner's authorised columns, or over those of two owners, row by row as aligned."""

    dataset: DatasetRef | None
    sql: Annotated[str, Size(1, 16384)]
    alignment: Annotated[str, Size(0, 32)] = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The merchant's own code over a data owner's authorised columns, or over those of two owners, as aligned."""

    dataset: DatasetRef | None
    bundle: Digest
    params: Annotated[str, Size(2, 65536)] = "{}"
    alignment: Annotated[str, Size(0, 32)] = ""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a submitter asks for. Only ``wire.decode`` makes one from outside."""

    request_id: Name
    scenario_digest: Digest
    kind: PsiSpec | TrainSpec | ScoreSpec | AggregateSpec | QuerySpec | ModelSpec
    deadline_s: int = 0
    environment: Environment = Environment.PRODUCTION


@dataclass(frozen=True, slots=True)
class ConsentToken:
    """One person's leave for one call."""

    subject_id: Annotated[str, Size(1, 128)] = field(repr=False)
    scenario_digest: Digest
    purpose: Annotated[str, Size(1, 512)]
    not_after_ms: int
    nonce: Nonce
    source: ConsentSource = ConsentSource.ATTESTED
    evidence: MaybeDigest = b""
    uses: int = 0


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """An issuer's word that a key is a person's own."""

    subject_id: Annotated[str, Size(1, 128)] = field(repr=False)
    key: Point
    not_after_ms: int


@dataclass(frozen=True, slots=True)
class ApplicantInput:
    """Who an applicant score is about."""

    subject_id: Annotated[str, Size(1, 128)] = field(repr=False)
    opening: Nonce32 = field(repr=False)
    consent: Signed = field(repr=False)
    subject_key: Signed | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SealedInput:
    """An input only one node can open."""

    party: NodeId
    sealed: Annotated[bytes, Size(1, 65536)]


@dataclass(frozen=True, slots=True)
class JobSubmission:
    """Body of SubmitJob and PlanJob."""

    spec: JobSpec
    inputs: tuple[SealedInput, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a job's life."""

    name: Name
    milliseconds: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """One audit entry of one party about a job."""

    party: NodeId
    index: int
    what: Name
    leaf_hash: Digest
    time_ms: int


@dataclass(frozen=True, slots=True)
class TrailReport:
    """One party's entries about a job; signed by its node."""

    job_id: JobId
    entries: tuple[TrailEntry, ...]


@dataclass(frozen=True, slots=True)
class Fee:
    """What a job cost."""

    units: int
    yuan: Name
    entry: int


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its submitter may see it."""

    job_id: JobId
    kind: JobKind
    state: State
    created_ms: int
    stages: tuple[Stage, ...]
    failure: Failure | None
    plan_digest: MaybeDigest
    engine: Annotated[str, Size(0, 64)]
    isolation: Annotated[str, Size(0, 64)]
    fee: Fee | None
    trail: tuple[TrailEntry, ...]
    request_id: Name
    submitter: KeyId
    parties: tuple[NodeId, ...]
    deadline_s: int
    environment: Environment = Environment.PRODUCTION


@dataclass(frozen=True, slots=True)
class Reveal:
    """What one party learns."""

    party: NodeId
    what: Text
    what_zh: Text


@dataclass(frozen=True, slots=True)
class PlanView:
    """What a job would do, cost and reveal."""

    job_id: JobId
    kind: JobKind
    engine: Name
    parties: tuple[NodeId, ...]
    reveals: tuple[Reveal, ...]
    expected_s: int
    expected_bytes: int
    expected_mib: int
    deadline_s: int
    units_at_most: int
    yuan_at_most: Name
    outputs: tuple[OutputRule, ...]
    note: Text
    environment: Environment = Environment.PRODUCTION
    recipe: MaybeDigest = b""


@dataclass(frozen=True, slots=True)
class JobQuery:
    """One job, by id."""

    job_id: JobId


@dataclass(frozen=True, slots=True)
class ResultHead:
    """What precedes the bytes of a sealed result."""

    job_id: JobId
    recipient: KeyId
    receipt: Annotated[bytes, Size(0, 65536)]
    size: int


@dataclass(frozen=True, slots=True)
class Output:
    """One released output."""

    name: Name
    class_: OutputClass
    format: Name
    content: Annotated[bytes, Size(0, 1 << 30)] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opening:
    """Opens a commitment of an audit entry."""

    name: Name
    salt: Nonce32
    value: Annotated[bytes, Size(0, 1024)] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Result:
    """What is inside a sealed result."""

    job_id: JobId
    outputs: tuple[Output, ...]
    openings: tuple[Opening, ...]


# --- the four stages of trust after JobSpec
# -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Party:
    """One party of a plan."""

    node_id: NodeId
    role: PartyRole
    dataset: DatasetRef | None
    content_hash: MaybeDigest
    fields: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will run, exactly. Only ``policy.admit`` makes one."""

    job_id: JobId
    proposer: NodeId
    kind: JobKind
    scenario_digest: Digest
    submission_digest: Digest
    parties: tuple[Party, ...]
    engine: Name
    outputs: tuple[OutputRule, ...]
    recipient: KeyId
    recipient_node: NodeId
    deadline_s: int
    reveals: tuple[Reveal, ...]
    isolation: Name
    time_ms: int
    environment: Environment = Environment.PRODUCTION


@dataclass(frozen=True, slots=True)
class Population:
    """The people behind one number that would leave, as far as one owner knows them; what differencing is found by."""

    name: str
    sketch: bytes = field(repr=False)  # of their keys, 136 bytes: see kinds.population
    rows: int  # of this owner's, in the sketch
    size: int  # of the group, over all parties
    is_whole: bool = False  # all rows this owner brought: nobody knows which of them are in the group
    people: bytes = field(default=b"", repr=False, compare=False)  # these and maybe more, to count: kinds.distinct


@dataclass(frozen=True, slots=True)
class RawResult:
    """What a stage left at this node: numbers, and names of sealed artefacts. For the gate, and for nobody else yet."""

    gate_inputs: Mapping[str, int] = field(repr=False)
    figures: Mapping[str, float] = field(repr=False)
    tables: Mapping[str, str] = field(repr=False)  # output name -> artefact name
    populations: tuple[Population, ...] = field(default=(), repr=False)
    people: bytes = field(default=b"", repr=False)  # of this owner's whom it is about: a sketch, see kinds.distinct
    unknown: int = field(default=0, repr=False)  # how many more of them there can be, of whom it does not know who


@dataclass(frozen=True, slots=True)
class Release:
    """What may leave. Only ``gate.release`` makes one."""

    outputs: tuple[Output, ...] = field(repr=False)


# --- catalogue
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UploadFile:
    """One file of an upload."""

    name: Annotated[str, Size(1, 255)]
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class DatasetRegistration:
    """The signed beginning of an upload."""

    name: Name
    schema_json: Annotated[bytes, Size(2, 262144)]
    files: Annotated[tuple[UploadFile, ...], Size(1, 1000)]
    licence: Annotated[str, Size(0, 128)] = ""
    retention_days: int = 0
    encoding: Annotated[str, Size(0, 16)] = "utf-8"
    department: Annotated[str, Size(0, 64)] = ""
    domain: Annotated[str, Size(0, 64)] = ""
    keywords: Annotated[tuple[Name, ...], Size(0, 32)] = ()
    update_days: int = 0
    as_of: Annotated[str, Size(0, 64)] = ""
    visible_to: Annotated[tuple[Name, ...], Size(0, 64)] = ()
    grades_confirmed: bool = False
    twin_epsilon_milli: int = 0


@dataclass(frozen=True, slots=True)
class DatasetSearch:
    """Words to find entries by."""

    words: Annotated[str, Size(0, 256)] = ""
    department: Annotated[str, Size(0, 64)] = ""
    domain: Annotated[str, Size(0, 64)] = ""
    after: Annotated[str, Size(0, 128)] = ""
    limit: int = 0


@dataclass(frozen=True, slots=True)
class TwinOrder:
    """A twin to make, and under which privacy budget."""

    code: Name
    version: int
    epsilon_milli: int
    rows: int = 0


@dataclass(frozen=True, slots=True)
class TwinView:
    """The synthetic twin of a dataset version."""

    rows: int
    epsilon_milli: int
    content_hash: Digest
    created_ms: int


@dataclass(frozen=True, slots=True)
class DatasetQuery:
    """One dataset version."""

    code: Name
    version: int


@dataclass(frozen=True, slots=True)
class DatasetView:
    """A catalogue entry."""

    code: Name
    version: int
    name: Name
    owner: NodeId
    schema_json: Annotated[bytes, Size(2, 262144)]
    rows: int
    content_hash: Digest
    state: Name
    created_ms: int
    licence: Annotated[str, Size(0, 128)]
    retention_days: int
    department: Annotated[str, Size(0, 64)] = ""
    domain: Annotated[str, Size(0, 64)] = ""
    keywords: tuple[Name, ...] = ()
    update_days: int = 0
    as_of: Annotated[str, Size(0, 64)] = ""
    visible_to: tuple[Name, ...] = ()
    schema_digest: MaybeDigest = b""
    twin: TwinView | None = None


# --- merchants' bundles
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BundleStatement:
    """A merchant's word that a bundle is its own."""

    measurement: Digest
    name: Name
    time_ms: int


@dataclass(frozen=True, slots=True)
class BundleUpload:
    """The signed beginning of a bundle."""

    measurement: Digest
    size: int
    digest: Digest
    statement: Signed
    sealed_nonce: MaybeDigest = b""


@dataclass(frozen=True, slots=True)
class BundleView:
    """A bundle at a node."""

    measurement: Digest
    name: Name
    form: Name
    merchant: Name
    submitter: KeyId
    size: int
    created_ms: int
    outputs: tuple[Text, ...]
    files: tuple[Text, ...]
    withdrawn_ms: int = 0


@dataclass(frozen=True, slots=True)
class BundleQuery:
    """One bundle, by its measurement."""

    measurement: Digest


@dataclass(frozen=True, slots=True)
class QuoteQuery:
    """What proves where code would run, over a fresh nonce."""

    nonce: Annotated[bytes, Size(16, 64)]
    bundle: MaybeDigest = b""


@dataclass(frozen=True, slots=True)
class QuoteView:
    """A quote, and what it says in short."""

    quote: Annotated[bytes, Size(1, 65536)]
    isolation: Name
    vendor: Name


# --- review
# -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    """What one reviewer decided, over which evidence."""

    job_id: JobId
    plan_digest: Digest
    evidence_digest: Digest
    decision: Decision
    reason: Text
    time_ms: int


@dataclass(frozen=True, slots=True)
class ReviewVerdict:
    """Body of DecideReview."""

    decision: Signed


@dataclass(frozen=True, slots=True)
class ReviewQuery:
    """One held job, by id."""

    job_id: JobId


@dataclass(frozen=True, slots=True)
class CheckView:
    """One check of the gate, as a reviewer of the owner may see it."""

    output: Name
    check: Text
    bound: Text
    found: Text


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """One earlier release to the same merchant or to one under the same control."""

    job_id: JobId
    kind: JobKind
    merchant: Name
    time_ms: int
    outputs: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class DecisionView:
    """One reviewer's decision, as the others see it."""

    reviewer: Name
    decision: Decision
    reason: Text
    time_ms: int


@dataclass(frozen=True, slots=True)
class ReviewView:
    """A held job, and everything a reviewer needs to decide on it."""

    job_id: JobId
    kind: JobKind
    state: Name
    plan_digest: Digest
    evidence_digest: Digest
    scenario: Name
    scenario_digest: Digest
    purpose: Text
    merchant: Name
    controller: Annotated[str, Size(0, 64)]
    recipient: KeyId
    recipient_node: NodeId
    outputs: tuple[OutputRule, ...]
    parties: tuple[NodeId, ...]
    checks: Annotated[tuple[CheckView, ...], Size(0, 4096)]
    history: tuple[ReleaseView, ...]
    decisions: tuple[DecisionView, ...]
    approvals_needed: int
    held_ms: int
    due_ms: int
    is_due_soon: bool
    sample: Annotated[str, Size(0, 65536)]
    asked: tuple[Text, ...] = ()
    reveals: tuple[Reveal, ...] = ()


# --- consents
# -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConsentPaper:
    """A token together with what certifies the key that signed it."""

    consent: Signed = field(repr=False)
    subject_key: Signed = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConsentWithdrawal:
    """Somebody takes a consent back."""

    token: Digest
    scenario_digest: Digest
    time_ms: int


@dataclass(frozen=True, slots=True)
class WithdrawalNotice:
    """A withdrawal with whatever proves whose it is."""

    withdrawal: Signed
    signer: Point
    subject_key: Signed | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SealedWithdrawal:
    """A withdrawal notice that only one node can open."""

    scenario_digest: Digest
    sealed: Annotated[bytes, Size(1, 65536)]


@dataclass(frozen=True, slots=True)
class ChallengeNotice:
    """One owner asks the recipient's node for letters, or tells how far that has come."""

    challenge_id: JobId
    job_id: JobId
    scenario_digest: Digest
    due_ms: int
    sealed: Annotated[bytes, Size(1, 65536)]
    letters: Annotated[tuple[LetterState, ...], Size(1, 50)]
    revision: int


@dataclass(frozen=True, slots=True)
class ChallengedPersons:
    """Whose letters are to be produced."""

    persons: Annotated[tuple[Annotated[str, Size(1, 512)], ...], Size(1, 50)] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChallengeQuery:
    """One challenge, by id."""

    challenge_id: JobId


@dataclass(frozen=True, slots=True)
class LetterView:
    """One letter of a challenge."""

    number: int
    state: LetterState
    digest: MaybeDigest
    judged_by: Annotated[str, Size(0, 64)]
    reason: Text


@dataclass(frozen=True, slots=True)
class ChallengeView:
    """A challenge as the people of either side see it."""

    challenge_id: JobId
    job_id: JobId
    scenario_digest: Digest
    party: NodeId
    is_own: bool
    created_ms: int
    due_ms: int
    state: Name
    letters: Annotated[tuple[LetterView, ...], Size(1, 50)]
    sealed: Annotated[bytes, Size(0, 65536)]
    sealing_key: Annotated[bytes, Size(0, 65)]


@dataclass(frozen=True, slots=True)
class LetterUpload:
    """The signed beginning of a letter, sealed to the node that asks for it."""

    challenge_id: JobId
    number: int
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class LetterQuery:
    """One letter, by challenge and number."""

    challenge_id: JobId
    number: int


@dataclass(frozen=True, slots=True)
class LetterHead:
    """What precedes the bytes of a sealed letter."""

    challenge_id: JobId
    number: int
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class LetterJudgement:
    """What one of the owner's people decided on a letter."""

    challenge_id: JobId
    number: int
    digest: Digest
    accepted: bool
    reason: Text
    time_ms: int


# --- audit
# --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Commitment:
    """SM3(32 random bytes ‖ value) of something that could be guessed."""

    name: Name
    digest: Digest


@dataclass(frozen=True, slots=True)
class Fact:
    """A name, a digest or a rounded count."""

    name: Name
    value: Annotated[str, Size(0, 256)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf of the log."""

    what: Name
    job_id: Annotated[str, Size(0, 32)]
    plan_digest: MaybeDigest
    scenario_digest: MaybeDigest
    actor: Annotated[str, Size(0, 64)]
    time_ms: int
    peer_time_ms: int
    facts: tuple[Fact, ...]
    commitments: tuple[Commitment, ...]


@dataclass(frozen=True, slots=True)
class EntryQuery:
    """A range of the log."""

    start: int = 0
    limit: int = 0
    job_id: Annotated[str, Size(0, 32)] = ""


@dataclass(frozen=True, slots=True)
class CheckpointQuery:
    """The newest checkpoint."""


@dataclass(frozen=True, slots=True)
class InclusionQuery:
    """Proof for one entry."""

    index: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class ConsistencyQuery:
    """Proof that one tree continues another."""

    old_size: int
    new_size: int


@dataclass(frozen=True, slots=True)
class CosignQuery:
    """A peer's checkpoint, to be co-signed."""

    old_size: int
    checkpoint: Annotated[bytes, Size(1, 8192)]
    consistency: Annotated[tuple[Digest, ...], Size(0, 128)]


# --- between nodes
# ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """One node asks another to take part."""

    plan: Annotated[bytes, Size(1, 262144)]
    submission: Signed
    commitment: Digest
    versions: Annotated[tuple[Signed, ...], Size(0, 8)] = ()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A party's yes to a plan."""

    party: NodeId
    plan_digest: Digest
    commitment: Digest
    time_ms: int


@dataclass(frozen=True, slots=True)
class Start:
    """Everybody's signed acceptance."""

    acceptances: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a data party committed to."""

    content_hash: MaybeDigest
    rows: int
    nonce: Nonce32


@dataclass(frozen=True, slots=True)
class OpenedTerms:
    """Terms with what opens their commitment."""

    terms: Terms
    opening: Nonce32


@dataclass(frozen=True, slots=True)
class GrantStatement:
    """A data owner's leave to reveal."""

    party: NodeId
    job_id: JobId
    plan_digest: Digest
    recipient: KeyId
    round: Name
    note: Text = ""


@dataclass(frozen=True, slots=True)
class ScenarioBundle:
    """A scenario with what the sender knows about it."""

    scenario: Signed
    approvals: tuple[Signed, ...]
    notices: tuple[Signed, ...]
    versions: tuple[Signed, ...] = ()


@dataclass(frozen=True, slots=True)
class PingQuery:
    """Are you there, and do you reach me?"""

    call_back: bool


@dataclass(frozen=True, slots=True)
class Hello:
    """One side's half of a handshake."""

    from_: NodeId
    to: NodeId
    job_id: JobId
    purpose: ChannelPurpose
    connection: Nonce
    ephemeral_key: Point
    own_certificate: Digest
    peer_certificate: Digest
    seal: SealMode
    answers: MaybeDigest
    time_ms: int


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """One message of a control connection."""

    label: Name
    body: Annotated[bytes, Size(0, 16 << 20)] = field(repr=False)
