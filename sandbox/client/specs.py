"""What a submitter asks for, built from plain values: job specs, and sealed inputs about one person.

Source:    the commitment to a person is SM3(32 random bytes ‖ id in UTF-8); the input that opens it is sealed to each
           data owner under AAD = SM3("sandbox/v1/applicant\\0" ‖ commitment).
Security:  a person's id stands in no spec and in no log: only in the sealed inputs and in the consent token.
Units:     deadlines in seconds, the ridge penalty in millionths.
Errors:    ``InvalidSpec`` for what no node would accept; nodes check everything again.
Not here:  consent tokens (``consents``), reading files (``documents``), sending (``client``).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox import signed, wire
from sandbox.crypto.envelope import seal_to
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import InvalidSpec
from sandbox.keyring import public_key
from sandbox.model import (
    AggregateSpec,
    ApplicantInput,
    ApplicantScore,
    BatchScore,
    ConsentToken,
    DatasetRef,
    Environment,
    JobSpec,
    Measure,
    ModelSpec,
    PeerCard,
    PsiEngine,
    PsiOutput,
    PsiSpec,
    QuerySpec,
    ScoreScope,
    ScoreSpec,
    SealedInput,
    Signed,
    TrainSpec,
)

STEPS = 30
HOLDOUT_PERCENT = 20
L2_MICRO = 1000
KEY_BITS = 2048


@dataclass(frozen=True, slots=True)
class Applicant:
    """One person to be scored: the id, the person's consent, and the nodes that own the data.

    A consent signed with the person's own key goes with an issuer's word about that key.
    """

    subject_id: str = field(repr=False)
    consent: Signed = field(repr=False)
    parties: tuple[PeerCard, ...]
    subject_key: Signed | None = field(default=None, repr=False)


def align(
    scenario_digest: bytes,
    left: DatasetRef,
    right: DatasetRef,
    engine: PsiEngine = PsiEngine.AUTO,
    *,
    output: PsiOutput = PsiOutput.ALIGNED,
    measures: Sequence[Measure] = (),
    columns: Sequence[str] = (),
    third: DatasetRef | None = None,
    bucket_rows: int = 0,
    request_id: str = "",
    deadline_s: int = 0,
) -> JobSpec:
    """Return the spec of an intersection of two datasets, or three.

    Args:
        output: what leaves, and what stays; see ``proto/sandbox/v1/job.proto``.
        measures: of SUMS, sums and means of the right's columns.
        columns: of JOINED, the right's columns.
        third: of ALIGNED, a third owner's dataset.
        bucket_rows: how many rows are worked on at a time; 0 leaves it to the nodes.
    """
    kind = PsiSpec(left, right, engine, output, tuple(measures), tuple(columns), third, bucket_rows)
    return JobSpec(request_id or new_request_id(), scenario_digest, kind, deadline_s)


def aggregate(
    scenario_digest: bytes,
    datasets: Sequence[DatasetRef] = (),
    *,
    measures: Sequence[Measure],
    groups: Sequence[str] = (),
    alignment: str = "",
    key_bits: int = KEY_BITS,
    margins: bool = False,
    epsilon_milli: int = 0,
    request_id: str = "",
    deadline_s: int = 0,
) -> JobSpec:
    """Return the spec of a table of totals.

    Args:
        datasets: one a contributor, the submitting node's first; each then holds groups and measures.
        alignment: or a released psi job, of which one side holds the groups and the other the measures.
        groups: names of the scenario's dimensions, at most two.
        margins: with a line of totals for every dimension.
        epsilon_milli: above 0: with noise, for so many thousandths of the scenario's privacy budget.
    """
    kind = AggregateSpec(tuple(datasets), alignment, tuple(groups), tuple(measures), key_bits, margins, epsilon_milli)
    return JobSpec(request_id or new_request_id(), scenario_digest, kind, deadline_s)


Source = DatasetRef | str  # a dataset of the submitting node, or a released psi job: the rows both owners share


def query(scenario_digest: bytes, source: Source, sql: str, *, request_id: str = "", deadline_s: int = 0) -> JobSpec:
    """Return the spec of one statement; it reads the table ``data``."""
    dataset, alignment = _read_from(source)
    return JobSpec(request_id or new_request_id(), scenario_digest, QuerySpec(dataset, sql, alignment), deadline_s)


def model(
    scenario_digest: bytes,
    source: Source,
    bundle: bytes,
    params: Mapping[str, Any] | None = None,
    *,
    request_id: str = "",
    deadline_s: int = 0,
) -> JobSpec:
    """Return the spec of a run of a bundle, named by its measurement.

    Raises:
        InvalidSpec: a parameter is no text, number or truth value.
    """
    try:
        written = json.dumps(dict(params or {}), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidSpec(tell="a model's parameters are texts, finite numbers and truth values") from None
    dataset, alignment = _read_from(source)
    kind = ModelSpec(dataset, bundle, written, alignment)
    return JobSpec(request_id or new_request_id(), scenario_digest, kind, deadline_s)


def train(
    scenario_digest: bytes,
    alignment: str,
    *,
    steps: int = STEPS,
    holdout_percent: int = HOLDOUT_PERCENT,
    seed: bytes = b"",
    l2_micro: int = L2_MICRO,
    release_scorecard: bool = False,
    request_id: str = "",
    deadline_s: int = 0,
) -> JobSpec:
    """Return the spec of a training run over an alignment; without a seed the hold-out is a fresh one."""
    seed = seed or secrets.token_bytes(16)
    kind = TrainSpec(alignment, steps, holdout_percent, seed, l2_micro, release_scorecard)
    return JobSpec(request_id or new_request_id(), scenario_digest, kind, deadline_s)


def score(
    scenario_digest: bytes,
    model: str,
    scope: ScoreScope = ScoreScope.HOLDOUT,
    *,
    request_id: str = "",
    deadline_s: int = 0,
) -> JobSpec:
    """Return the spec of a batch of scores."""
    kind = ScoreSpec(model, BatchScore(scope))
    return JobSpec(request_id or new_request_id(), scenario_digest, kind, deadline_s)


def score_applicant(
    scenario_digest: bytes, model: str, applicant: Applicant, *, request_id: str = "", deadline_s: int = 0
) -> tuple[JobSpec, tuple[SealedInput, ...]]:
    """Return the spec of one person's score and the inputs that go with it, sealed for each party.

    Raises:
        InvalidSpec: the consent is for somebody or something else, or there is no party.
    """
    token = wire.decode(ConsentToken, applicant.consent.payload)
    if token.subject_id != applicant.subject_id or token.scenario_digest != scenario_digest:
        raise InvalidSpec(tell="the consent is of another person, or for another scenario")
    if not applicant.parties:
        raise InvalidSpec(tell="an applicant's id goes to the nodes that own the data; none is named")
    opening = secrets.token_bytes(32)
    commitment = sm3(opening + applicant.subject_id.encode())
    content = wire.encode(ApplicantInput(applicant.subject_id, opening, applicant.consent, applicant.subject_key))
    kind = ScoreSpec(model, ApplicantScore(commitment))
    spec = JobSpec(request_id or new_request_id(), scenario_digest, kind, deadline_s)
    return spec, _seal_for(applicant.parties, content, tagged("applicant", commitment))


def _read_from(source: Source) -> tuple[DatasetRef | None, str]:
    return (None, source) if isinstance(source, str) else (source, "")


def on_twins(spec: JobSpec) -> JobSpec:
    """Return the same job in the test environment: over the twins of the datasets, under a request id of its own."""
    return replace(spec, environment=Environment.TEST, request_id=f"{spec.request_id[:59]}-test")


def new_request_id() -> str:
    """Return an id nobody has used; submitting again under the same id returns the same job."""
    return secrets.token_hex(16)


def _seal_for(parties: Sequence[PeerCard], content: bytes, aad: bytes) -> tuple[SealedInput, ...]:
    return tuple(SealedInput(card.node_id, seal_to(sealing_key(card), content, aad)) for card in parties)


def sealing_key(card: PeerCard) -> PublicKey:
    """Return the key that seals to a node, after checking that the node's identity certified it."""
    return signed.open_certified(public_key(card), "sealing", card.sealing)
