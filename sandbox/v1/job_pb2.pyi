from sandbox.v1 import common_pb2 as _common_pb2
from sandbox.v1 import scenario_pb2 as _scenario_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PsiEngine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PSI_ENGINE_UNSPECIFIED: _ClassVar[PsiEngine]
    PSI_ENGINE_AUTO: _ClassVar[PsiEngine]
    PSI_ENGINE_RR22: _ClassVar[PsiEngine]
    PSI_ENGINE_ECDH_X25519: _ClassVar[PsiEngine]
    PSI_ENGINE_ECDH_SM2: _ClassVar[PsiEngine]
    PSI_ENGINE_PREPARED_SM2: _ClassVar[PsiEngine]

class PsiOutput(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PSI_OUTPUT_UNSPECIFIED: _ClassVar[PsiOutput]
    PSI_OUTPUT_ALIGNED: _ClassVar[PsiOutput]
    PSI_OUTPUT_MEMBERS: _ClassVar[PsiOutput]
    PSI_OUTPUT_MEMBERS_BOTH: _ClassVar[PsiOutput]
    PSI_OUTPUT_SIZE: _ClassVar[PsiOutput]
    PSI_OUTPUT_SUMS: _ClassVar[PsiOutput]
    PSI_OUTPUT_JOINED: _ClassVar[PsiOutput]

class Statistic(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATISTIC_UNSPECIFIED: _ClassVar[Statistic]
    STATISTIC_SUM: _ClassVar[Statistic]
    STATISTIC_COUNT: _ClassVar[Statistic]
    STATISTIC_MEAN: _ClassVar[Statistic]
    STATISTIC_VARIANCE: _ClassVar[Statistic]
    STATISTIC_HISTOGRAM: _ClassVar[Statistic]
    STATISTIC_WEIGHTED_SUM: _ClassVar[Statistic]

class ScoreScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_SCOPE_UNSPECIFIED: _ClassVar[ScoreScope]
    SCORE_SCOPE_HOLDOUT: _ClassVar[ScoreScope]
    SCORE_SCOPE_ALIGNED: _ClassVar[ScoreScope]

class Environment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENVIRONMENT_UNSPECIFIED: _ClassVar[Environment]
    ENVIRONMENT_PRODUCTION: _ClassVar[Environment]
    ENVIRONMENT_TEST: _ClassVar[Environment]

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_RECEIVED: _ClassVar[JobState]
    JOB_STATE_ADMITTED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_HELD: _ClassVar[JobState]
    JOB_STATE_RELEASED: _ClassVar[JobState]
    JOB_STATE_REFUSED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
    JOB_STATE_EXPIRED: _ClassVar[JobState]
PSI_ENGINE_UNSPECIFIED: PsiEngine
PSI_ENGINE_AUTO: PsiEngine
PSI_ENGINE_RR22: PsiEngine
PSI_ENGINE_ECDH_X25519: PsiEngine
PSI_ENGINE_ECDH_SM2: PsiEngine
PSI_ENGINE_PREPARED_SM2: PsiEngine
PSI_OUTPUT_UNSPECIFIED: PsiOutput
PSI_OUTPUT_ALIGNED: PsiOutput
PSI_OUTPUT_MEMBERS: PsiOutput
PSI_OUTPUT_MEMBERS_BOTH: PsiOutput
PSI_OUTPUT_SIZE: PsiOutput
PSI_OUTPUT_SUMS: PsiOutput
PSI_OUTPUT_JOINED: PsiOutput
STATISTIC_UNSPECIFIED: Statistic
STATISTIC_SUM: Statistic
STATISTIC_COUNT: Statistic
STATISTIC_MEAN: Statistic
STATISTIC_VARIANCE: Statistic
STATISTIC_HISTOGRAM: Statistic
STATISTIC_WEIGHTED_SUM: Statistic
SCORE_SCOPE_UNSPECIFIED: ScoreScope
SCORE_SCOPE_HOLDOUT: ScoreScope
SCORE_SCOPE_ALIGNED: ScoreScope
ENVIRONMENT_UNSPECIFIED: Environment
ENVIRONMENT_PRODUCTION: Environment
ENVIRONMENT_TEST: Environment
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_RECEIVED: JobState
JOB_STATE_ADMITTED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_HELD: JobState
JOB_STATE_RELEASED: JobState
JOB_STATE_REFUSED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
JOB_STATE_EXPIRED: JobState

class DatasetRef(_message.Message):
    __slots__ = ("code", "version")
    CODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    code: str
    version: int
    def __init__(self, code: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class PsiSpec(_message.Message):
    __slots__ = ("left", "right", "engine", "output", "measures", "columns", "bucket_rows", "third")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_ROWS_FIELD_NUMBER: _ClassVar[int]
    THIRD_FIELD_NUMBER: _ClassVar[int]
    left: DatasetRef
    right: DatasetRef
    engine: PsiEngine
    output: PsiOutput
    measures: _containers.RepeatedCompositeFieldContainer[Measure]
    columns: _containers.RepeatedScalarFieldContainer[str]
    bucket_rows: int
    third: DatasetRef
    def __init__(self, left: _Optional[_Union[DatasetRef, _Mapping]] = ..., right: _Optional[_Union[DatasetRef, _Mapping]] = ..., engine: _Optional[_Union[PsiEngine, str]] = ..., output: _Optional[_Union[PsiOutput, str]] = ..., measures: _Optional[_Iterable[_Union[Measure, _Mapping]]] = ..., columns: _Optional[_Iterable[str]] = ..., bucket_rows: _Optional[int] = ..., third: _Optional[_Union[DatasetRef, _Mapping]] = ...) -> None: ...

class Measure(_message.Message):
    __slots__ = ("name", "statistic", "column", "weight")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    name: str
    statistic: Statistic
    column: str
    weight: str
    def __init__(self, name: _Optional[str] = ..., statistic: _Optional[_Union[Statistic, str]] = ..., column: _Optional[str] = ..., weight: _Optional[str] = ...) -> None: ...

class AggregateSpec(_message.Message):
    __slots__ = ("datasets", "alignment", "groups", "measures", "key_bits", "margins", "epsilon_milli")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    KEY_BITS_FIELD_NUMBER: _ClassVar[int]
    MARGINS_FIELD_NUMBER: _ClassVar[int]
    EPSILON_MILLI_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetRef]
    alignment: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    measures: _containers.RepeatedCompositeFieldContainer[Measure]
    key_bits: int
    margins: bool
    epsilon_milli: int
    def __init__(self, datasets: _Optional[_Iterable[_Union[DatasetRef, _Mapping]]] = ..., alignment: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., measures: _Optional[_Iterable[_Union[Measure, _Mapping]]] = ..., key_bits: _Optional[int] = ..., margins: _Optional[bool] = ..., epsilon_milli: _Optional[int] = ...) -> None: ...

class TrainSpec(_message.Message):
    __slots__ = ("alignment", "steps", "holdout_percent", "seed", "l2_micro", "release_scorecard")
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_PERCENT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    L2_MICRO_FIELD_NUMBER: _ClassVar[int]
    RELEASE_SCORECARD_FIELD_NUMBER: _ClassVar[int]
    alignment: str
    steps: int
    holdout_percent: int
    seed: bytes
    l2_micro: int
    release_scorecard: bool
    def __init__(self, alignment: _Optional[str] = ..., steps: _Optional[int] = ..., holdout_percent: _Optional[int] = ..., seed: _Optional[bytes] = ..., l2_micro: _Optional[int] = ..., release_scorecard: _Optional[bool] = ...) -> None: ...

class QuerySpec(_message.Message):
    __slots__ = ("dataset", "sql", "alignment")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SQL_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetRef
    sql: str
    alignment: str
    def __init__(self, dataset: _Optional[_Union[DatasetRef, _Mapping]] = ..., sql: _Optional[str] = ..., alignment: _Optional[str] = ...) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("dataset", "bundle", "params", "alignment")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetRef
    bundle: bytes
    params: str
    alignment: str
    def __init__(self, dataset: _Optional[_Union[DatasetRef, _Mapping]] = ..., bundle: _Optional[bytes] = ..., params: _Optional[str] = ..., alignment: _Optional[str] = ...) -> None: ...

class BatchScore(_message.Message):
    __slots__ = ("scope",)
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: ScoreScope
    def __init__(self, scope: _Optional[_Union[ScoreScope, str]] = ...) -> None: ...

class ApplicantScore(_message.Message):
    __slots__ = ("commitment",)
    COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    commitment: bytes
    def __init__(self, commitment: _Optional[bytes] = ...) -> None: ...

class ScoreSpec(_message.Message):
    __slots__ = ("model", "batch", "applicant")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    APPLICANT_FIELD_NUMBER: _ClassVar[int]
    model: str
    batch: BatchScore
    applicant: ApplicantScore
    def __init__(self, model: _Optional[str] = ..., batch: _Optional[_Union[BatchScore, _Mapping]] = ..., applicant: _Optional[_Union[ApplicantScore, _Mapping]] = ...) -> None: ...

class JobSpec(_message.Message):
    __slots__ = ("request_id", "scenario_digest", "psi", "train", "score", "aggregate", "query", "model", "deadline_s", "environment")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PSI_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    scenario_digest: bytes
    psi: PsiSpec
    train: TrainSpec
    score: ScoreSpec
    aggregate: AggregateSpec
    query: QuerySpec
    model: ModelSpec
    deadline_s: int
    environment: Environment
    def __init__(self, request_id: _Optional[str] = ..., scenario_digest: _Optional[bytes] = ..., psi: _Optional[_Union[PsiSpec, _Mapping]] = ..., train: _Optional[_Union[TrainSpec, _Mapping]] = ..., score: _Optional[_Union[ScoreSpec, _Mapping]] = ..., aggregate: _Optional[_Union[AggregateSpec, _Mapping]] = ..., query: _Optional[_Union[QuerySpec, _Mapping]] = ..., model: _Optional[_Union[ModelSpec, _Mapping]] = ..., deadline_s: _Optional[int] = ..., environment: _Optional[_Union[Environment, str]] = ...) -> None: ...

class ApplicantInput(_message.Message):
    __slots__ = ("subject_id", "opening", "consent", "subject_key")
    SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_KEY_FIELD_NUMBER: _ClassVar[int]
    subject_id: str
    opening: bytes
    consent: _common_pb2.Signed
    subject_key: _common_pb2.Signed
    def __init__(self, subject_id: _Optional[str] = ..., opening: _Optional[bytes] = ..., consent: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., subject_key: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class SubjectKey(_message.Message):
    __slots__ = ("subject_id", "key", "not_after_ms")
    SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    subject_id: str
    key: bytes
    not_after_ms: int
    def __init__(self, subject_id: _Optional[str] = ..., key: _Optional[bytes] = ..., not_after_ms: _Optional[int] = ...) -> None: ...

class ConsentToken(_message.Message):
    __slots__ = ("subject_id", "scenario_digest", "purpose", "not_after_ms", "nonce", "source", "evidence", "uses")
    SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    subject_id: str
    scenario_digest: bytes
    purpose: str
    not_after_ms: int
    nonce: bytes
    source: _scenario_pb2.ConsentSource
    evidence: bytes
    uses: int
    def __init__(self, subject_id: _Optional[str] = ..., scenario_digest: _Optional[bytes] = ..., purpose: _Optional[str] = ..., not_after_ms: _Optional[int] = ..., nonce: _Optional[bytes] = ..., source: _Optional[_Union[_scenario_pb2.ConsentSource, str]] = ..., evidence: _Optional[bytes] = ..., uses: _Optional[int] = ...) -> None: ...

class SealedInput(_message.Message):
    __slots__ = ("party", "sealed")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    party: str
    sealed: bytes
    def __init__(self, party: _Optional[str] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class JobSubmission(_message.Message):
    __slots__ = ("spec", "inputs")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    spec: JobSpec
    inputs: _containers.RepeatedCompositeFieldContainer[SealedInput]
    def __init__(self, spec: _Optional[_Union[JobSpec, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[SealedInput, _Mapping]]] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("name", "milliseconds", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    milliseconds: int
    bytes: int
    def __init__(self, name: _Optional[str] = ..., milliseconds: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class TrailEntry(_message.Message):
    __slots__ = ("party", "index", "what", "leaf_hash", "time_ms")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    party: str
    index: int
    what: str
    leaf_hash: bytes
    time_ms: int
    def __init__(self, party: _Optional[str] = ..., index: _Optional[int] = ..., what: _Optional[str] = ..., leaf_hash: _Optional[bytes] = ..., time_ms: _Optional[int] = ...) -> None: ...

class Fee(_message.Message):
    __slots__ = ("units", "yuan", "entry")
    UNITS_FIELD_NUMBER: _ClassVar[int]
    YUAN_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    units: int
    yuan: str
    entry: int
    def __init__(self, units: _Optional[int] = ..., yuan: _Optional[str] = ..., entry: _Optional[int] = ...) -> None: ...

class JobView(_message.Message):
    __slots__ = ("job_id", "kind", "state", "created_ms", "stages", "failure", "plan_digest", "engine", "isolation", "fee", "trail", "request_id", "submitter", "parties", "deadline_s", "environment")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    FEE_FIELD_NUMBER: _ClassVar[int]
    TRAIL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SUBMITTER_FIELD_NUMBER: _ClassVar[int]
    PARTIES_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    kind: _scenario_pb2.JobKind
    state: JobState
    created_ms: int
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    failure: _common_pb2.Failure
    plan_digest: bytes
    engine: str
    isolation: str
    fee: Fee
    trail: _containers.RepeatedCompositeFieldContainer[TrailEntry]
    request_id: str
    submitter: str
    parties: _containers.RepeatedScalarFieldContainer[str]
    deadline_s: int
    environment: Environment
    def __init__(self, job_id: _Optional[str] = ..., kind: _Optional[_Union[_scenario_pb2.JobKind, str]] = ..., state: _Optional[_Union[JobState, str]] = ..., created_ms: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., failure: _Optional[_Union[_common_pb2.Failure, _Mapping]] = ..., plan_digest: _Optional[bytes] = ..., engine: _Optional[str] = ..., isolation: _Optional[str] = ..., fee: _Optional[_Union[Fee, _Mapping]] = ..., trail: _Optional[_Iterable[_Union[TrailEntry, _Mapping]]] = ..., request_id: _Optional[str] = ..., submitter: _Optional[str] = ..., parties: _Optional[_Iterable[str]] = ..., deadline_s: _Optional[int] = ..., environment: _Optional[_Union[Environment, str]] = ...) -> None: ...

class Reveal(_message.Message):
    __slots__ = ("party", "what", "what_zh")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHAT_ZH_FIELD_NUMBER: _ClassVar[int]
    party: str
    what: str
    what_zh: str
    def __init__(self, party: _Optional[str] = ..., what: _Optional[str] = ..., what_zh: _Optional[str] = ...) -> None: ...

class PlanView(_message.Message):
    __slots__ = ("job_id", "kind", "engine", "parties", "reveals", "expected_s", "expected_bytes", "expected_mib", "deadline_s", "units_at_most", "yuan_at_most", "outputs", "note", "environment", "recipe")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    PARTIES_FIELD_NUMBER: _ClassVar[int]
    REVEALS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_S_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_MIB_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    UNITS_AT_MOST_FIELD_NUMBER: _ClassVar[int]
    YUAN_AT_MOST_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    kind: _scenario_pb2.JobKind
    engine: str
    parties: _containers.RepeatedScalarFieldContainer[str]
    reveals: _containers.RepeatedCompositeFieldContainer[Reveal]
    expected_s: int
    expected_bytes: int
    expected_mib: int
    deadline_s: int
    units_at_most: int
    yuan_at_most: str
    outputs: _containers.RepeatedCompositeFieldContainer[_scenario_pb2.OutputRule]
    note: str
    environment: Environment
    recipe: bytes
    def __init__(self, job_id: _Optional[str] = ..., kind: _Optional[_Union[_scenario_pb2.JobKind, str]] = ..., engine: _Optional[str] = ..., parties: _Optional[_Iterable[str]] = ..., reveals: _Optional[_Iterable[_Union[Reveal, _Mapping]]] = ..., expected_s: _Optional[int] = ..., expected_bytes: _Optional[int] = ..., expected_mib: _Optional[int] = ..., deadline_s: _Optional[int] = ..., units_at_most: _Optional[int] = ..., yuan_at_most: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[_scenario_pb2.OutputRule, _Mapping]]] = ..., note: _Optional[str] = ..., environment: _Optional[_Union[Environment, str]] = ..., recipe: _Optional[bytes] = ...) -> None: ...

class JobQuery(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ResultHead(_message.Message):
    __slots__ = ("job_id", "recipient", "receipt", "size")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    recipient: str
    receipt: bytes
    size: int
    def __init__(self, job_id: _Optional[str] = ..., recipient: _Optional[str] = ..., receipt: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("job_id", "outputs", "openings")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    OPENINGS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    outputs: _containers.RepeatedCompositeFieldContainer[Output]
    openings: _containers.RepeatedCompositeFieldContainer[Opening]
    def __init__(self, job_id: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[Output, _Mapping]]] = ..., openings: _Optional[_Iterable[_Union[Opening, _Mapping]]] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("name", "format", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    format: str
    content: bytes
    def __init__(self, name: _Optional[str] = ..., format: _Optional[str] = ..., content: _Optional[bytes] = ..., **kwargs) -> None: ...

class Opening(_message.Message):
    __slots__ = ("name", "salt", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    salt: bytes
    value: bytes
    def __init__(self, name: _Optional[str] = ..., salt: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class PlanJobRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class PlanJobResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: PlanView
    def __init__(self, plan: _Optional[_Union[PlanView, _Mapping]] = ...) -> None: ...

class SubmitJobRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class SubmitJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: JobView
    def __init__(self, job: _Optional[_Union[JobView, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: JobView
    def __init__(self, job: _Optional[_Union[JobView, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobView]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobView, _Mapping]]] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: JobView
    def __init__(self, job: _Optional[_Union[JobView, _Mapping]] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: JobView
    def __init__(self, job: _Optional[_Union[JobView, _Mapping]] = ...) -> None: ...

class GetConsoleRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GetConsoleResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    def __init__(self, text: _Optional[bytes] = ...) -> None: ...

class GetResultRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class GetResultResponse(_message.Message):
    __slots__ = ("head", "chunk")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    head: ResultHead
    chunk: bytes
    def __init__(self, head: _Optional[_Union[ResultHead, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...
