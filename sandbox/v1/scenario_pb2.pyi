from sandbox.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_KIND_UNSPECIFIED: _ClassVar[JobKind]
    JOB_KIND_PSI: _ClassVar[JobKind]
    JOB_KIND_TRAIN: _ClassVar[JobKind]
    JOB_KIND_SCORE: _ClassVar[JobKind]
    JOB_KIND_AGGREGATE: _ClassVar[JobKind]
    JOB_KIND_QUERY: _ClassVar[JobKind]
    JOB_KIND_MODEL: _ClassVar[JobKind]

class OutputClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_CLASS_UNSPECIFIED: _ClassVar[OutputClass]
    OUTPUT_CLASS_AGGREGATE: _ClassVar[OutputClass]
    OUTPUT_CLASS_ROW_CONSENTED: _ClassVar[OutputClass]
    OUTPUT_CLASS_REPORT: _ClassVar[OutputClass]
    OUTPUT_CLASS_MODEL: _ClassVar[OutputClass]
    OUTPUT_CLASS_NOISY: _ClassVar[OutputClass]

class VersionRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERSION_RULE_UNSPECIFIED: _ClassVar[VersionRule]
    VERSION_RULE_EXACT: _ClassVar[VersionRule]
    VERSION_RULE_SAME_SCHEMA: _ClassVar[VersionRule]

class ConsentSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSENT_SOURCE_UNSPECIFIED: _ClassVar[ConsentSource]
    CONSENT_SOURCE_SUBJECT: _ClassVar[ConsentSource]
    CONSENT_SOURCE_ATTESTED: _ClassVar[ConsentSource]
    CONSENT_SOURCE_LETTER: _ClassVar[ConsentSource]

class Category(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CATEGORY_UNSPECIFIED: _ClassVar[Category]
    CATEGORY_SHARED: _ClassVar[Category]
    CATEGORY_OPEN: _ClassVar[Category]
    CATEGORY_AUTHORISED: _ClassVar[Category]

class NoticeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTICE_KIND_UNSPECIFIED: _ClassVar[NoticeKind]
    NOTICE_KIND_REFUSED: _ClassVar[NoticeKind]
    NOTICE_KIND_CHANGES: _ClassVar[NoticeKind]
    NOTICE_KIND_SUSPENDED: _ClassVar[NoticeKind]
    NOTICE_KIND_RESUMED: _ClassVar[NoticeKind]
    NOTICE_KIND_REVOKED: _ClassVar[NoticeKind]

class ConsentRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSENT_RULE_UNSPECIFIED: _ClassVar[ConsentRule]
    CONSENT_RULE_NONE: _ClassVar[ConsentRule]
    CONSENT_RULE_TOKEN: _ClassVar[ConsentRule]
    CONSENT_RULE_HELD_LETTER: _ClassVar[ConsentRule]
JOB_KIND_UNSPECIFIED: JobKind
JOB_KIND_PSI: JobKind
JOB_KIND_TRAIN: JobKind
JOB_KIND_SCORE: JobKind
JOB_KIND_AGGREGATE: JobKind
JOB_KIND_QUERY: JobKind
JOB_KIND_MODEL: JobKind
OUTPUT_CLASS_UNSPECIFIED: OutputClass
OUTPUT_CLASS_AGGREGATE: OutputClass
OUTPUT_CLASS_ROW_CONSENTED: OutputClass
OUTPUT_CLASS_REPORT: OutputClass
OUTPUT_CLASS_MODEL: OutputClass
OUTPUT_CLASS_NOISY: OutputClass
VERSION_RULE_UNSPECIFIED: VersionRule
VERSION_RULE_EXACT: VersionRule
VERSION_RULE_SAME_SCHEMA: VersionRule
CONSENT_SOURCE_UNSPECIFIED: ConsentSource
CONSENT_SOURCE_SUBJECT: ConsentSource
CONSENT_SOURCE_ATTESTED: ConsentSource
CONSENT_SOURCE_LETTER: ConsentSource
CATEGORY_UNSPECIFIED: Category
CATEGORY_SHARED: Category
CATEGORY_OPEN: Category
CATEGORY_AUTHORISED: Category
NOTICE_KIND_UNSPECIFIED: NoticeKind
NOTICE_KIND_REFUSED: NoticeKind
NOTICE_KIND_CHANGES: NoticeKind
NOTICE_KIND_SUSPENDED: NoticeKind
NOTICE_KIND_RESUMED: NoticeKind
NOTICE_KIND_REVOKED: NoticeKind
CONSENT_RULE_UNSPECIFIED: ConsentRule
CONSENT_RULE_NONE: ConsentRule
CONSENT_RULE_TOKEN: ConsentRule
CONSENT_RULE_HELD_LETTER: ConsentRule

class DatasetUse(_message.Message):
    __slots__ = ("code", "owner", "rule", "version", "content_hash", "key", "fields", "label", "rows", "schema_digest", "max_age_days")
    CODE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    code: str
    owner: str
    rule: VersionRule
    version: int
    content_hash: bytes
    key: _containers.RepeatedScalarFieldContainer[str]
    fields: _containers.RepeatedScalarFieldContainer[str]
    label: str
    rows: int
    schema_digest: bytes
    max_age_days: int
    def __init__(self, code: _Optional[str] = ..., owner: _Optional[str] = ..., rule: _Optional[_Union[VersionRule, str]] = ..., version: _Optional[int] = ..., content_hash: _Optional[bytes] = ..., key: _Optional[_Iterable[str]] = ..., fields: _Optional[_Iterable[str]] = ..., label: _Optional[str] = ..., rows: _Optional[int] = ..., schema_digest: _Optional[bytes] = ..., max_age_days: _Optional[int] = ...) -> None: ...

class Outline(_message.Message):
    __slots__ = ("data_use", "supply", "problem", "category", "field_of_use")
    DATA_USE_FIELD_NUMBER: _ClassVar[int]
    SUPPLY_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    FIELD_OF_USE_FIELD_NUMBER: _ClassVar[int]
    data_use: str
    supply: str
    problem: str
    category: Category
    field_of_use: str
    def __init__(self, data_use: _Optional[str] = ..., supply: _Optional[str] = ..., problem: _Optional[str] = ..., category: _Optional[_Union[Category, str]] = ..., field_of_use: _Optional[str] = ...) -> None: ...

class Dimension(_message.Message):
    __slots__ = ("name", "column", "values", "edges", "places")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    name: str
    column: str
    values: _containers.RepeatedScalarFieldContainer[str]
    edges: _containers.RepeatedScalarFieldContainer[int]
    places: int
    def __init__(self, name: _Optional[str] = ..., column: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., edges: _Optional[_Iterable[int]] = ..., places: _Optional[int] = ...) -> None: ...

class MeasureRange(_message.Message):
    __slots__ = ("column", "low", "high", "places")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    column: str
    low: int
    high: int
    places: int
    def __init__(self, column: _Optional[str] = ..., low: _Optional[int] = ..., high: _Optional[int] = ..., places: _Optional[int] = ...) -> None: ...

class OutputRule(_message.Message):
    __slots__ = ("kind", "name", "min_group", "round_to", "max_rows", "max_bytes", "reviewed", "top_two", "remainder", "suppress")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    MIN_GROUP_FIELD_NUMBER: _ClassVar[int]
    ROUND_TO_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    REVIEWED_FIELD_NUMBER: _ClassVar[int]
    TOP_TWO_FIELD_NUMBER: _ClassVar[int]
    REMAINDER_FIELD_NUMBER: _ClassVar[int]
    SUPPRESS_FIELD_NUMBER: _ClassVar[int]
    kind: JobKind
    name: str
    min_group: int
    round_to: int
    max_rows: int
    max_bytes: int
    reviewed: bool
    top_two: int
    remainder: int
    suppress: bool
    def __init__(self, kind: _Optional[_Union[JobKind, str]] = ..., name: _Optional[str] = ..., min_group: _Optional[int] = ..., round_to: _Optional[int] = ..., max_rows: _Optional[int] = ..., max_bytes: _Optional[int] = ..., reviewed: _Optional[bool] = ..., top_two: _Optional[int] = ..., remainder: _Optional[int] = ..., suppress: _Optional[bool] = ..., **kwargs) -> None: ...

class Recipient(_message.Message):
    __slots__ = ("node_id", "identity_key", "sealing_key")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    SEALING_KEY_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    identity_key: bytes
    sealing_key: bytes
    def __init__(self, node_id: _Optional[str] = ..., identity_key: _Optional[bytes] = ..., sealing_key: _Optional[bytes] = ...) -> None: ...

class Quota(_message.Message):
    __slots__ = ("calls_per_day", "calls_total", "rows_total", "rows_per_day", "people_per_day", "people_total")
    CALLS_PER_DAY_FIELD_NUMBER: _ClassVar[int]
    CALLS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ROWS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_DAY_FIELD_NUMBER: _ClassVar[int]
    PEOPLE_PER_DAY_FIELD_NUMBER: _ClassVar[int]
    PEOPLE_TOTAL_FIELD_NUMBER: _ClassVar[int]
    calls_per_day: int
    calls_total: int
    rows_total: int
    rows_per_day: int
    people_per_day: int
    people_total: int
    def __init__(self, calls_per_day: _Optional[int] = ..., calls_total: _Optional[int] = ..., rows_total: _Optional[int] = ..., rows_per_day: _Optional[int] = ..., people_per_day: _Optional[int] = ..., people_total: _Optional[int] = ...) -> None: ...

class Consent(_message.Message):
    __slots__ = ("batch", "single", "issuers", "sources", "most_uses", "sample_permille", "letter_days")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    ISSUERS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    MOST_USES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    LETTER_DAYS_FIELD_NUMBER: _ClassVar[int]
    batch: ConsentRule
    single: ConsentRule
    issuers: _containers.RepeatedScalarFieldContainer[bytes]
    sources: _containers.RepeatedScalarFieldContainer[ConsentSource]
    most_uses: int
    sample_permille: int
    letter_days: int
    def __init__(self, batch: _Optional[_Union[ConsentRule, str]] = ..., single: _Optional[_Union[ConsentRule, str]] = ..., issuers: _Optional[_Iterable[bytes]] = ..., sources: _Optional[_Iterable[_Union[ConsentSource, str]]] = ..., most_uses: _Optional[int] = ..., sample_permille: _Optional[int] = ..., letter_days: _Optional[int] = ...) -> None: ...

class PriceTerms(_message.Message):
    __slots__ = ("tariff", "coefficient", "public_good")
    TARIFF_FIELD_NUMBER: _ClassVar[int]
    COEFFICIENT_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_GOOD_FIELD_NUMBER: _ClassVar[int]
    tariff: str
    coefficient: str
    public_good: bool
    def __init__(self, tariff: _Optional[str] = ..., coefficient: _Optional[str] = ..., public_good: _Optional[bool] = ...) -> None: ...

class Scenario(_message.Message):
    __slots__ = ("name", "merchant", "purpose", "applicant_key", "datasets", "kinds", "outputs", "recipient", "operator", "computing_parties", "not_before_ms", "not_after_ms", "quota", "consent", "score_step", "models_per_person", "price", "accepts_simulated", "nonce", "dimensions", "measures", "accepts_two_contributors", "controller", "bundles", "isolation", "epsilon_milli", "outline", "enclave", "runtimes", "amends")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MERCHANT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    APPLICANT_KEY_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    COMPUTING_PARTIES_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    SCORE_STEP_FIELD_NUMBER: _ClassVar[int]
    MODELS_PER_PERSON_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_SIMULATED_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_TWO_CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    EPSILON_MILLI_FIELD_NUMBER: _ClassVar[int]
    OUTLINE_FIELD_NUMBER: _ClassVar[int]
    ENCLAVE_FIELD_NUMBER: _ClassVar[int]
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    AMENDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    merchant: str
    purpose: str
    applicant_key: bytes
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetUse]
    kinds: _containers.RepeatedScalarFieldContainer[JobKind]
    outputs: _containers.RepeatedCompositeFieldContainer[OutputRule]
    recipient: Recipient
    operator: str
    computing_parties: _containers.RepeatedScalarFieldContainer[str]
    not_before_ms: int
    not_after_ms: int
    quota: Quota
    consent: Consent
    score_step: int
    models_per_person: int
    price: PriceTerms
    accepts_simulated: bool
    nonce: bytes
    dimensions: _containers.RepeatedCompositeFieldContainer[Dimension]
    measures: _containers.RepeatedCompositeFieldContainer[MeasureRange]
    accepts_two_contributors: bool
    controller: str
    bundles: _containers.RepeatedScalarFieldContainer[bytes]
    isolation: str
    epsilon_milli: int
    outline: Outline
    enclave: str
    runtimes: _containers.RepeatedScalarFieldContainer[bytes]
    amends: bytes
    def __init__(self, name: _Optional[str] = ..., merchant: _Optional[str] = ..., purpose: _Optional[str] = ..., applicant_key: _Optional[bytes] = ..., datasets: _Optional[_Iterable[_Union[DatasetUse, _Mapping]]] = ..., kinds: _Optional[_Iterable[_Union[JobKind, str]]] = ..., outputs: _Optional[_Iterable[_Union[OutputRule, _Mapping]]] = ..., recipient: _Optional[_Union[Recipient, _Mapping]] = ..., operator: _Optional[str] = ..., computing_parties: _Optional[_Iterable[str]] = ..., not_before_ms: _Optional[int] = ..., not_after_ms: _Optional[int] = ..., quota: _Optional[_Union[Quota, _Mapping]] = ..., consent: _Optional[_Union[Consent, _Mapping]] = ..., score_step: _Optional[int] = ..., models_per_person: _Optional[int] = ..., price: _Optional[_Union[PriceTerms, _Mapping]] = ..., accepts_simulated: _Optional[bool] = ..., nonce: _Optional[bytes] = ..., dimensions: _Optional[_Iterable[_Union[Dimension, _Mapping]]] = ..., measures: _Optional[_Iterable[_Union[MeasureRange, _Mapping]]] = ..., accepts_two_contributors: _Optional[bool] = ..., controller: _Optional[str] = ..., bundles: _Optional[_Iterable[bytes]] = ..., isolation: _Optional[str] = ..., epsilon_milli: _Optional[int] = ..., outline: _Optional[_Union[Outline, _Mapping]] = ..., enclave: _Optional[str] = ..., runtimes: _Optional[_Iterable[bytes]] = ..., amends: _Optional[bytes] = ...) -> None: ...

class Approval(_message.Message):
    __slots__ = ("scenario_digest", "party", "accepts_simulated", "time_ms", "accepts_two_contributors")
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_SIMULATED_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_TWO_CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    scenario_digest: bytes
    party: str
    accepts_simulated: bool
    time_ms: int
    accepts_two_contributors: bool
    def __init__(self, scenario_digest: _Optional[bytes] = ..., party: _Optional[str] = ..., accepts_simulated: _Optional[bool] = ..., time_ms: _Optional[int] = ..., accepts_two_contributors: _Optional[bool] = ...) -> None: ...

class ApprovalRecord(_message.Message):
    __slots__ = ("approval", "approver_key", "departments")
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    APPROVER_KEY_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENTS_FIELD_NUMBER: _ClassVar[int]
    approval: _common_pb2.Signed
    approver_key: bytes
    departments: _containers.RepeatedCompositeFieldContainer[DepartmentApproval]
    def __init__(self, approval: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., approver_key: _Optional[bytes] = ..., departments: _Optional[_Iterable[_Union[DepartmentApproval, _Mapping]]] = ...) -> None: ...

class DepartmentApproval(_message.Message):
    __slots__ = ("department", "approval", "approver_key")
    DEPARTMENT_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    APPROVER_KEY_FIELD_NUMBER: _ClassVar[int]
    department: str
    approval: _common_pb2.Signed
    approver_key: bytes
    def __init__(self, department: _Optional[str] = ..., approval: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., approver_key: _Optional[bytes] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("scenario_digest", "party", "kind", "reason", "time_ms", "serial", "actor")
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    scenario_digest: bytes
    party: str
    kind: NoticeKind
    reason: str
    time_ms: int
    serial: int
    actor: str
    def __init__(self, scenario_digest: _Optional[bytes] = ..., party: _Optional[str] = ..., kind: _Optional[_Union[NoticeKind, str]] = ..., reason: _Optional[str] = ..., time_ms: _Optional[int] = ..., serial: _Optional[int] = ..., actor: _Optional[str] = ...) -> None: ...

class VersionNotice(_message.Message):
    __slots__ = ("code", "version", "owner", "content_hash", "schema_digest", "rows", "created_ms", "gone")
    CODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    code: str
    version: int
    owner: str
    content_hash: bytes
    schema_digest: bytes
    rows: int
    created_ms: int
    gone: bool
    def __init__(self, code: _Optional[str] = ..., version: _Optional[int] = ..., owner: _Optional[str] = ..., content_hash: _Optional[bytes] = ..., schema_digest: _Optional[bytes] = ..., rows: _Optional[int] = ..., created_ms: _Optional[int] = ..., gone: _Optional[bool] = ...) -> None: ...

class ScenarioApplication(_message.Message):
    __slots__ = ("scenario",)
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    scenario: _common_pb2.Signed
    def __init__(self, scenario: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ApprovalDecision(_message.Message):
    __slots__ = ("approval",)
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    approval: _common_pb2.Signed
    def __init__(self, approval: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class Announcement(_message.Message):
    __slots__ = ("scenario_digest", "kind", "reason")
    SCENARIO_DIGEST_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    scenario_digest: bytes
    kind: NoticeKind
    reason: str
    def __init__(self, scenario_digest: _Optional[bytes] = ..., kind: _Optional[_Union[NoticeKind, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class NoticeView(_message.Message):
    __slots__ = ("party", "kind", "reason", "time_ms")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    party: str
    kind: NoticeKind
    reason: str
    time_ms: int
    def __init__(self, party: _Optional[str] = ..., kind: _Optional[_Union[NoticeKind, str]] = ..., reason: _Optional[str] = ..., time_ms: _Optional[int] = ...) -> None: ...

class ListQuery(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    def __init__(self, after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ScenarioView(_message.Message):
    __slots__ = ("digest", "scenario", "approved_by", "awaiting", "state", "awaiting_departments", "notices")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    AWAITING_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AWAITING_DEPARTMENTS_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    scenario: _common_pb2.Signed
    approved_by: _containers.RepeatedScalarFieldContainer[str]
    awaiting: _containers.RepeatedScalarFieldContainer[str]
    state: str
    awaiting_departments: _containers.RepeatedScalarFieldContainer[str]
    notices: _containers.RepeatedCompositeFieldContainer[NoticeView]
    def __init__(self, digest: _Optional[bytes] = ..., scenario: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ..., approved_by: _Optional[_Iterable[str]] = ..., awaiting: _Optional[_Iterable[str]] = ..., state: _Optional[str] = ..., awaiting_departments: _Optional[_Iterable[str]] = ..., notices: _Optional[_Iterable[_Union[NoticeView, _Mapping]]] = ...) -> None: ...

class ApplyScenarioRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ApplyScenarioResponse(_message.Message):
    __slots__ = ("scenario",)
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    scenario: ScenarioView
    def __init__(self, scenario: _Optional[_Union[ScenarioView, _Mapping]] = ...) -> None: ...

class ApproveScenarioRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ApproveScenarioResponse(_message.Message):
    __slots__ = ("scenario",)
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    scenario: ScenarioView
    def __init__(self, scenario: _Optional[_Union[ScenarioView, _Mapping]] = ...) -> None: ...

class ListScenariosRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class ListScenariosResponse(_message.Message):
    __slots__ = ("scenarios",)
    SCENARIOS_FIELD_NUMBER: _ClassVar[int]
    scenarios: _containers.RepeatedCompositeFieldContainer[ScenarioView]
    def __init__(self, scenarios: _Optional[_Iterable[_Union[ScenarioView, _Mapping]]] = ...) -> None: ...

class NotifyScenarioRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _common_pb2.Signed
    def __init__(self, signed: _Optional[_Union[_common_pb2.Signed, _Mapping]] = ...) -> None: ...

class NotifyScenarioResponse(_message.Message):
    __slots__ = ("scenario",)
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    scenario: ScenarioView
    def __init__(self, scenario: _Optional[_Union[ScenarioView, _Mapping]] = ...) -> None: ...
