"""Values for the tests of the core: any shape from its hints, and one whole scenario with what a node knows of it."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from hypothesis import strategies as st

from sandbox import model
from sandbox.crypto.sm2 import PrivateKey
from sandbox.kinds.kind import Conditions
from sandbox.model import (
    AggregateSpec,
    Category,
    Consent,
    ConsentRule,
    ConsentSource,
    DatasetRef,
    DatasetUse,
    Dimension,
    JobKind,
    JobSpec,
    Measure,
    MeasureRange,
    Outline,
    OutputClass,
    OutputRule,
    PriceTerms,
    PsiEngine,
    PsiSpec,
    Quota,
    Recipient,
    Scenario,
    Size,
    Statistic,
    VersionRule,
)
from sandbox.policy.admit import Choices, Facts, OwnDataset, Used
from sandbox.policy.scenario import Floors, Given, Standing

DEFAULTS = {str: Size(0, 256), bytes: Size(0, 65536), tuple: Size(0, 256)}
FLOORS = Floors(10, 10, 5)
NOW = 1_800_000_000_000
DAY = 86_400_000
JOB = "ab" * 16
LEFT, RIGHT, THIRD = DatasetRef("bank-loans", 1), DatasetRef("people", 2), DatasetRef("funds", 3)
ENGINES = (
    "rr22",
    "ecdh-x25519",
    "ecdh-sm2",
    "prepared-sm2",
    "count-sm2",
    "loads-sm2",
    "aby3",
    "partial-sums",
    "paillier",
)
OFFICER, RECIPIENT, SEALING, ISSUER, OTHER = (PrivateKey.generate() for _ in range(5))


def shapes() -> list[type]:
    """Every shape of the model that is a message."""
    inside = {model.Size, model.Population, model.RawResult, model.Release}
    return [
        value
        for value in vars(model).values()
        if dataclasses.is_dataclass(value) and isinstance(value, type) and value not in inside
    ]


def hints(shape: type) -> dict[str, Any]:
    """The annotations of a shape, bounds included."""
    found = typing.get_type_hints(shape, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(shape)}


def split(hint: Any) -> tuple[Any, Size | None]:
    """A hint without its bound, and the bound."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[0], next((extra for extra in get_args(hint)[1:] if isinstance(extra, Size)), None)
    return hint, None


def options(hint: Any) -> tuple[Any, ...]:
    """What a union may hold; empty for anything else."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()


def sample(hint: Any) -> Any:
    """The least value of a hint that the wire lets through."""
    kind, size = split(hint)
    if options(kind):
        return sample(options(kind)[0])
    if dataclasses.is_dataclass(kind):
        return typing.cast(type, kind)(**{name: sample(part) for name, part in hints(typing.cast(type, kind)).items()})
    if get_origin(kind) is tuple:
        return tuple(sample(get_args(kind)[0]) for _ in range(max(1, size.least if size else 0)))
    if issubclass(kind, enum.Enum):
        return next(iter(kind))
    least = (size or DEFAULTS.get(kind, Size(0, 0))).least
    return {str: "x" * least, bytes: b"\1" * least, int: 1, bool: True}[kind]


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a hint within its bounds, large ones excepted."""
    kind, size = split(hint)
    if options(kind):
        return st.one_of(*(st.none() if option is type(None) else strategy(option) for option in options(kind)))
    if dataclasses.is_dataclass(kind):
        shape = typing.cast(type, kind)
        return st.builds(shape, **{name: strategy(part) for name, part in hints(shape).items()})
    if get_origin(kind) is tuple:
        least, most = (size.least, size.most) if size else (0, 3)
        return st.lists(strategy(get_args(kind)[0]), min_size=least, max_size=min(most, least + 3)).map(tuple)
    if issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    if kind is str:
        size = size or DEFAULTS[str]
        return st.text(st.characters(codec="utf-8"), min_size=size.least, max_size=min(size.most, size.least + 20))
    if kind is bytes:
        size = size or DEFAULTS[bytes]
        return st.binary(min_size=size.least, max_size=min(size.most, size.least + 20))
    return st.booleans() if kind is bool else st.integers(0, (1 << 31) - 1)


def bounded(shape: type) -> Iterator[tuple[str, Any, Size]]:
    """Every bounded field of a shape: its name, its kind, its bound."""
    for name, hint in hints(shape).items():
        kind, size = split(hint)
        if get_origin(kind) is tuple:
            yield name, tuple, size or DEFAULTS[tuple]
        elif kind in (str, bytes):
            yield name, kind, size or DEFAULTS[kind]


OUTLINE = Outline(
    data_use="loans of the bank, credit records of the operator",
    supply="one table each, renewed every month",
    problem="who may be lent to, without papers",
    category=Category.AUTHORISED,
    field_of_use="finance",
)


def scenario(**changes: Any) -> Scenario:
    """A whole scenario: bank and operator own data, the witness computes."""
    rules = (
        OutputRule(JobKind.PSI, "aligned", OutputClass.AGGREGATE, 10, 10, 1, 4096),
        OutputRule(JobKind.TRAIN, "training", OutputClass.REPORT, 10, 10, 1, 4096),
        OutputRule(JobKind.SCORE, "metrics", OutputClass.REPORT, 10, 10, 1, 4096),
        OutputRule(JobKind.SCORE, "scores", OutputClass.ROW_CONSENTED, 0, 0, 1000, 100_000),
    )
    whole = Scenario(
        name="credit",
        merchant="Example Bank",
        purpose="a credit decision",
        applicant_key=OFFICER.public.to_bytes(),
        datasets=(
            DatasetUse(LEFT.code, "bank", VersionRule.EXACT, LEFT.version, b"L" * 32, ("id",), ("income",), "bad"),
            DatasetUse(RIGHT.code, "operator", VersionRule.EXACT, RIGHT.version, b"R" * 32, ("id",), ("late",), ""),
        ),
        kinds=(JobKind.PSI, JobKind.TRAIN, JobKind.SCORE),
        outputs=rules,
        recipient=Recipient("bank", RECIPIENT.public.to_bytes(), SEALING.public.to_bytes()),
        operator="operator",
        computing_parties=("witness",),
        not_before_ms=NOW - DAY,
        not_after_ms=NOW + DAY,
        quota=Quota(5, 20, 10_000),
        consent=Consent(
            ConsentRule.HELD_LETTER,
            ConsentRule.TOKEN,
            (ISSUER.public.to_bytes(),),
            (ConsentSource.ATTESTED,),
            sample_permille=5,
            letter_days=14,
        ),
        score_step=5,
        models_per_person=2,
        price=PriceTerms("fujian-2024", "1", False),
        accepts_simulated=False,
        nonce=bytes(16),
        outline=OUTLINE,
    )
    return dataclasses.replace(whole, **changes)


ALL = {"bank": Given(), "operator": Given(), "witness": Given()}


def standing(**changes: Any) -> Standing:
    """The scenario, approved by everybody."""
    held = Standing(scenario(), b"S" * 32, ALL, False)
    return dataclasses.replace(held, **changes)


def facts(**changes: Any) -> Facts:
    """What the bank's node knows, nothing used yet."""
    known = Facts(
        node_id="bank",
        now_ms=NOW,
        standing=standing(),
        submitter=OFFICER.public.to_bytes(),
        used=Used(0, 0, 0, frozenset()),
        own={LEFT: OwnDataset(b"L" * 32, 600, True)},
        earlier=None,
        recipe=b"R" * 32,
        engines=dict.fromkeys(ENGINES, ""),
        conditions=Conditions(),
        default_deadline_s=900,
    )
    return dataclasses.replace(known, **changes)


TOTALS = OutputRule(JobKind.AGGREGATE, "totals", OutputClass.AGGREGATE, 10, 10, 100, 40_960)
OUTPUTS = (
    *(OutputRule(JobKind.PSI, name, OutputClass.AGGREGATE, 10, 10, 1, 4096) for name in ("aligned", "size", "sums")),
    *(OutputRule(JobKind.PSI, name, OutputClass.ROW_CONSENTED, 0, 1, 1000, 100_000) for name in ("members", "joined")),
    TOTALS,
)
CITY, LATE_BAND = Dimension("city", "city", ("a", "b")), Dimension("late_band", "late", (), (1, 5))
INCOME, LATE = Measure("income", Statistic.SUM, "income"), Measure("late", Statistic.MEAN, "late")


def departments(count: int = 3, **changes: Any) -> Scenario:
    """A scenario of totals and intersections over the data of two owners or three."""
    uses = (
        DatasetUse(LEFT.code, "bank", VersionRule.EXACT, 1, b"L" * 32, ("id",), ("city", "income"), "bad", 600),
        DatasetUse(
            RIGHT.code, "operator", VersionRule.EXACT, 2, b"R" * 32, ("id",), ("city", "income", "late"), "", 900
        ),
        DatasetUse(THIRD.code, "witness", VersionRule.EXACT, 3, b"T" * 32, ("id",), ("city", "income"), "", 300),
    )
    whole = scenario(
        datasets=uses[:count],
        kinds=(JobKind.PSI, JobKind.AGGREGATE),
        outputs=OUTPUTS,
        computing_parties=(),
        dimensions=(CITY, LATE_BAND),
        measures=(MeasureRange("income", 0, 1_000_000, 2), MeasureRange("late", 0, 9), MeasureRange("bad", 0, 1)),
    )
    return dataclasses.replace(whole, **changes)


def totals(*datasets: DatasetRef, **changes: Any) -> JobSpec:
    """A table of totals over some contributors."""
    kind = AggregateSpec(datasets or (LEFT, RIGHT, THIRD), "", ("city",), (INCOME,), 2048)
    return JobSpec("request-1", b"S" * 32, dataclasses.replace(kind, **changes))


def psi(engine: PsiEngine = PsiEngine.AUTO, **changes: Any) -> JobSpec:
    """An alignment of the two datasets."""
    return dataclasses.replace(JobSpec("request-1", b"S" * 32, PsiSpec(LEFT, RIGHT, engine)), **changes)


BANK = Choices("bank")
