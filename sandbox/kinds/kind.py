"""What every job kind declares, and what its code is given to work with.

A kind is one module with a ``KIND``. ``compute`` runs in a worker at every party and leaves shares, ciphertext or
sealed artefacts; ``finish`` runs only after every data owner's grant, on the shares that then arrived. Neither sees
gRPC, Ray, a file path of the vault, or a key: rows come in through the :class:`Task`, results go out through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from sandbox.model import JobSpec, OutputClass, PartyRole, Plan, RawResult, Reveal
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
    score_step: int  # points

    @property
    def workspace(self) -> Workspace:
        """The engine's private directory; while computing, with links to the other parties."""

    def party(self, role: PartyRole) -> str:
        """Return the node id of the party with that role."""

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of this party's dataset, in stored order."""

    def keys(self) -> pa.Array:
        """Return this party's normalised alignment keys, in stored order."""

    def label(self) -> str:
        """Return the target column where this side holds it, else an empty name."""

    def artefact(self, job_id: str, name: str) -> bytes:
        """Return what an earlier job of this scenario, or an earlier stage of this one, kept here."""

    def keep(self, name: str, content: bytes) -> None:
        """Keep bytes at this node, sealed, under this job."""

    def send(self, party: str, label: str, body: bytes) -> None:
        """Send a message to the same job's worker at another party."""

    def receive(self, party: str, label: str) -> bytes:
        """Wait for such a message."""

    def channel(self, party: str) -> Channel:
        """Return a two-way channel to the same job's worker at another party."""

    def progress(self, done: int, total: int) -> None:
        """Say how far it is."""

    def stopped(self) -> Any:
        """Return the event that asks the work to stop."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One job kind."""

    outputs: Mapping[str, OutputClass]
    lasting: frozenset[str]  # artefacts that later jobs build on; everything else goes when the job is released
    reveals_in_protocol: bool  # then the gate runs before the first round as well
    engines: Callable[[JobSpec], tuple[str, ...]]  # acceptable ones, best first
    reveals: Callable[[JobSpec, Mapping[PartyRole, str], str], tuple[Reveal, ...]]
    shares: Callable[[Plan], Mapping[str, tuple[str, ...]]]  # receiving party -> parties that each send it a share
    compute: Callable[[Task], RawResult]
    finish: Callable[[Task], RawResult]
