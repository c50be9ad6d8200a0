"""What every job kind declares, and what its code is given to work with.

A kind is one module with a ``KIND``. ``compute`` runs in a worker at every party and leaves shares, ciphertext or
sealed artefacts; ``finish`` runs only after every data owner's grant, on the shares that then arrived. Neither sees
gRPC, Ray, a file path of the vault, or a key: rows come in through the :class:`Task`, results go out through it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from sandbox.errors import PartyFailed, ProtocolFailed
from sandbox.model import DatasetUse, JobSpec, OutputClass, Party, PartyRole, Plan, RawResult, Reveal, Scenario
from sandbox.workspace import Channel, Workspace


class Task(Protocol):
    """One party's part of one job, inside a worker."""

    plan: Plan
    spec: JobSpec
    me: str
    role: PartyRole
    salt: bytes
    rows: Mapping[str, int]  # party -> rows of its dataset
    subject: str  # the person an applicant score is about; empty otherwise
    deadline_s: float
    cores: int  # of this party, for one job
    part: int  # which part this worker computes, from 0
    parts: int  # of how many
    scratch: Path  # what the parts of a job share at this node; a private directory, gone with the computation
    scenario: Scenario
    paillier_key: bytes  # this node's private key, where the kind has it decrypt; empty otherwise
    population_key: bytes  # this node's secret for sketches of the people behind a number: see ``kinds.population``

    @property
    def workspace(self) -> Workspace:
        """The engine's private directory; while computing, with links to the other parties."""

    def party(self, role: PartyRole) -> str:
        """Return the node id of the party with that role."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of this party's dataset that the plan lets this job use."""

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of this party's dataset, in stored order."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the same piece by piece, so that memory does not grow with the dataset."""

    def keys(self) -> pa.Array:
        """Return this party's normalised alignment keys, in stored order."""

    def key_batches(self) -> Iterator[pa.Array]:
        """Yield the same piece by piece."""

    def label(self) -> str:
        """Return the target column where this side holds it, else an empty name."""

    def bundle(self) -> bytes:
        """Return the merchant's archive, where the job names one."""

    def artefact(self, job_id: str, name: str) -> bytes:
        """Return what an earlier job of this scenario, or an earlier stage of this one, kept here."""

    def keep(self, name: str, content: bytes) -> None:
        """Keep bytes at this node, sealed, under this job."""

    def cached(self, name: str) -> bytes:
        """Return what an earlier job kept at this node for later ones; empty if nothing is there."""

    def cache(self, name: str, content: bytes, source: bytes) -> None:
        """Keep bytes for later jobs, until the dataset with the content hash ``source`` is destroyed."""

    def send(self, party: str, label: str, body: bytes) -> None:
        """Send a message to the same job's worker at another party."""

    def receive(self, party: str, label: str) -> bytes:
        """Wait for such a message."""

    def channel(self, party: str) -> Channel:
        """Return a two-way channel to the same job's worker at another party."""

    def quote(self, nonce: bytes, key: bytes) -> bytes:
        """Have this node quote an enclave made here, whose public key is ``key``, in answer to a nonce."""

    def grant_rows(self, quote: bytes, nonce: bytes, key: bytes) -> bytes:
        """Have this node decide on the other owner's enclave; return the data key sealed for it."""

    def progress(self, done: int, total: int) -> None:
        """Say how far it is."""

    def stopped(self) -> Any:
        """Return the event that asks the work to stop."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a node knows of itself where engines are chosen."""

    rows: tuple[int, ...] = ()  # of every dataset of the job, in the plan's order; 0 where not told
    national: bool = False  # national algorithms only
    link_mbit: int = 1000
    cores: int = 1
    backend: str = "portable"  # of the SM2 curve
    seal: str = "sm4"
    is_prepared: bool = False  # whether the right's set is encoded already, for this scenario and these parties


@dataclass(frozen=True, slots=True)
class Form:
    """What a table that leaves must look like: exactly these columns, and nothing in them but what is said here."""

    names: tuple[str, ...]
    labels: pa.Table | None = None  # the first columns, row by row; None where rows are people
    counts: frozenset[str] = frozenset()  # numbers of rows: each at least the minimum group, then rounded
    places: Mapping[str, int] = field(default_factory=dict)  # real numbers, and their decimal places
    steps: Mapping[str, int] = field(default_factory=dict)  # whole numbers that are multiples of this
    plain: Mapping[str, pa.DataType | None] = field(default_factory=dict)  # values of rows, as they are, and their type


@dataclass(frozen=True, slots=True)
class Kind:
    """One job kind."""

    outputs: Mapping[str, OutputClass]  # all it can have
    chosen: Callable[[JobSpec], frozenset[str]]  # those a job has
    lasting: frozenset[str]  # artefacts that later jobs build on; everything else goes when the job is released
    reveals_in_protocol: bool  # then the gate runs before the first round as well
    engines: Callable[[JobSpec, Conditions], tuple[str, ...]]  # acceptable ones, best first
    columns: Callable[[JobSpec, Scenario, Sequence[DatasetUse]], tuple[tuple[str, ...], ...]]  # used of each dataset
    reveals: Callable[[JobSpec, Sequence[Party], Scenario, str], tuple[Reveal, ...]]
    # Receiving party -> parties that each send it a share; whoever is a key here runs ``finish``.
    shares: Callable[[Plan, JobSpec, Scenario], Mapping[str, tuple[str, ...]]]
    form: Callable[[JobSpec, Scenario, str], Form | None]  # of the output of that name; None where it is no table
    compute: Callable[[Task], RawResult]
    finish: Callable[[Task], RawResult]
    # In how many parts a job is computed; of more than one, ``split`` comes before and ``gather`` after.
    parts: Callable[[Plan, JobSpec, Mapping[str, int]], int] = lambda plan, spec, rows: 1
    split: Callable[[Task], RawResult] | None = None
    gather: Callable[[Task], RawResult] | None = None
    # Whose Paillier key is used; empty: none is.
    key_holder: Callable[[Plan, JobSpec, Scenario], str] = lambda plan, spec, scenario: ""


@contextlib.contextmanager
def blaming(party: str) -> Iterator[None]:
    """Name the party of a computation with one other in what goes wrong there: an engine does not know its name."""
    try:
        yield
    except (PartyFailed, ProtocolFailed) as error:
        error.party = error.party or party
        raise


def at(parties: Sequence[Party], role: PartyRole) -> str:
    """Return the node id of the party with that role."""
    return next(party.node_id for party in parties if party.role is role)
