"""The node's tables, and the one way to write them.

SQLite by default (write-ahead log, ``synchronous=FULL``: what was acknowledged survives power loss), any SQLAlchemy
URL otherwise. One writer at a time: :meth:`Store.write` holds a lock and one transaction, so a state change, its
quota and its audit entry are one commit. Rows hold names, digests, sealed bytes and counts; never a value from a
dataset.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
)

metadata = MetaData()

keys = Table(
    "registered_key",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("organisation", String(64), nullable=False),
    Column("roles", String(256), nullable=False),  # comma-separated, sorted
    Column("card", LargeBinary, nullable=False),  # Signed KeyCard
    Column("tls_fingerprint", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
)

peers = Table(
    "peer",
    metadata,
    Column("node_id", String(64), primary_key=True),
    Column("key_id", String(32), nullable=False, unique=True),
    Column("card", LargeBinary, nullable=False),  # Signed PeerCard
    Column("added_ms", BigInteger, nullable=False),
)

nonces = Table(
    "nonce",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("nonce", LargeBinary, primary_key=True),
    Column("expires_ms", BigInteger, nullable=False, index=True),
)

datasets = Table(
    "dataset",
    metadata,
    Column("code", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("name", String(64), nullable=False, index=True),
    Column("schema_json", LargeBinary, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Column("wrapped_key", LargeBinary),  # gone when destroyed
    Column("state", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("licence", String(128), nullable=False),
    Column("retention_days", Integer, nullable=False),
    Column("destroyed_entry", BigInteger),  # where the log says so
    Column("schema_digest", LargeBinary, nullable=False),
    Column("department", String(64), nullable=False),
    Column("domain", String(64), nullable=False),
    Column("keywords", String(2304), nullable=False),  # a line each
    Column("update_days", Integer, nullable=False),
    Column("as_of", String(64), nullable=False),
    Column("visible_to", String(4608), nullable=False),  # organisations, a line each; empty: all
    Column("profile", LargeBinary, nullable=False),  # JSON: counts and shares, rounded
    Column("words", String, nullable=False),  # what the entry is found by
)

twins = Table(
    "twin",
    metadata,
    Column("code", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("epsilon_milli", BigInteger, nullable=False),  # spent for good, whatever becomes of the twin
    Column("measurements", LargeBinary, nullable=False),  # JSON, under a privacy budget: a twin is made anew from it
    Column("content_hash", LargeBinary, nullable=False),
    Column("wrapped_key", LargeBinary),  # under the test key; gone when destroyed
    Column("created_ms", BigInteger, nullable=False),
)

versions = Table(
    "offered_version",  # of other owners' datasets, and of this one's
    metadata,
    Column("code", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("owner", String(64), primary_key=True),
    Column("schema_digest", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),  # Signed VersionNotice
)

scenarios = Table(
    "scenario",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("signed", LargeBinary, nullable=False),  # Signed Scenario
    Column("received_ms", BigInteger, nullable=False),
    Column("amends", LargeBinary, nullable=False, index=True),  # digest of the scenario it takes the place of, or empty
)

approvals = Table(
    "approval",
    metadata,
    Column("digest", LargeBinary, ForeignKey("scenario.digest"), primary_key=True),
    Column("party", String(64), primary_key=True),
    Column("record", LargeBinary, nullable=False),  # Signed ApprovalRecord, by the party's node
)

notices = Table(
    "notice",
    metadata,
    Column("digest", LargeBinary, ForeignKey("scenario.digest"), primary_key=True),
    Column("party", String(64), primary_key=True),
    Column("serial", Integer, primary_key=True),
    Column("kind", Integer, nullable=False),
    Column("record", LargeBinary, nullable=False),  # Signed Notice
)

department_approvals = Table(
    "department_approval",  # of this node's source departments, before the node vouches for all of them
    metadata,
    Column("digest", LargeBinary, ForeignKey("scenario.digest"), primary_key=True),
    Column("department", String(64), primary_key=True),
    Column("approver_key", LargeBinary, nullable=False),
    Column("record", LargeBinary, nullable=False),  # Signed Approval
)

jobs = Table(
    "job",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("submitter", String(32), nullable=False, index=True),
    Column("request_id", String(64), nullable=False),
    Column("kind", Integer, nullable=False),
    Column("state", Integer, nullable=False, index=True),
    Column("scenario_digest", LargeBinary, nullable=False, index=True),
    Column("submission", LargeBinary, nullable=False),  # Signed Call, as received
    Column("submission_digest", LargeBinary, nullable=False),
    Column("body_digest", LargeBinary, nullable=False),  # of the body alone: tells a retry from a reuse
    Column("plan", LargeBinary, nullable=False),
    Column("plan_digest", LargeBinary, nullable=False),
    Column("failure", LargeBinary),  # Failure
    Column("created_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("people", BigInteger, nullable=False, default=0),  # rows it was about; for this node only
    Column("environment", Integer, nullable=False),
    Column("recipe", LargeBinary, nullable=False, index=True),  # SM3 of what was asked: policy.recipe
    Column("fee_units", BigInteger),
    Column("fee_yuan", String(32)),
    Column("fee_entry", BigInteger),
    UniqueConstraint("submitter", "request_id"),
)

stages = Table(
    "stage",
    metadata,
    Column("job_id", String(32), ForeignKey("job.job_id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("milliseconds", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

artefacts = Table(
    "artefact",
    metadata,
    Column("job_id", String(32), ForeignKey("job.job_id"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("wrapped_key", LargeBinary, nullable=False),
)

results = Table(
    "result",
    metadata,
    Column("job_id", String(32), ForeignKey("job.job_id"), primary_key=True),
    Column("recipient", String(32), nullable=False),
    Column("receipt", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
)

grants = Table(
    "granted",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("party", String(64), primary_key=True),
    Column("round", String(16), primary_key=True),
    Column("record", LargeBinary, nullable=False),  # Signed GrantStatement
)

trails = Table(
    "trail",
    metadata,
    Column("job_id", String(32), ForeignKey("job.job_id"), primary_key=True),
    Column("party", String(64), primary_key=True),
    Column("report", LargeBinary, nullable=False),  # Signed TrailReport
)

usage = Table(
    "quota_use",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("scenario_digest", LargeBinary, nullable=False, index=True),
    Column("day", Integer, nullable=False),  # days since 1970-01-01, UTC
    Column("calls", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # reserved, spent, returned
    Column("model", String(32), nullable=False, default=""),  # of a score: the job id of what it scores with
)

usage_sums = Table(
    "quota_sum",  # of what is reserved and spent: admission does not read a scenario's whole past
    metadata,
    Column("scenario_digest", LargeBinary, primary_key=True),
    Column("day", Integer, primary_key=True),  # as above; -1: all days
    Column("calls", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
)

model_uses = Table(
    "model_use",  # score jobs that are reserved and spent, for each model
    metadata,
    Column("scenario_digest", LargeBinary, primary_key=True),
    Column("model", String(32), primary_key=True),
    Column("jobs", BigInteger, nullable=False),
)

people_counts = Table(
    "people_count",  # different people of this owner, as far as it knows who they are
    metadata,
    Column("scenario_digest", LargeBinary, primary_key=True),
    Column("day", Integer, primary_key=True),  # as above; -1: all days
    Column("sketch", LargeBinary, nullable=False),  # of keyed digests: kinds.distinct
)

unknown_people = Table(
    "unknown_people",  # how many more there can be, of whom it does not know who they are
    metadata,
    Column("scenario_digest", LargeBinary, primary_key=True),
    Column("day", Integer, primary_key=True),  # as above
    Column("job_id", String(32), primary_key=True),
    Column("content", LargeBinary, nullable=False),  # content hash of this owner's dataset
    Column("rows", BigInteger, nullable=False),  # of that dataset: there are no more people in it
    Column("people", BigInteger, nullable=False),
)

consents = Table(
    "consent_use",  # a line a call: how often a token was spent, in each environment
    metadata,
    Column("token", LargeBinary, primary_key=True),  # digest of the signed token: policy.consent
    Column("environment", Integer, primary_key=True),
    Column("job_id", String(32), primary_key=True, index=True),
    Column("state", String(16), nullable=False),  # reserved, spent
    Column("sealed", LargeBinary, nullable=False),  # what opens the commitment in the entry, under the node key
)

withdrawn_consents = Table(
    "withdrawn_consent",
    metadata,
    Column("token", LargeBinary, primary_key=True),
    Column("signer", String(32), primary_key=True),  # key id
    Column("person", LargeBinary, nullable=False),  # keyed hash of whose own key it was; empty: an issuer's
    Column("scenario_digest", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # the notice, under the node key
    Column("untold", String(640), nullable=False),  # owners that do not have it yet, comma-separated
)

challenges = Table(
    "challenge",  # to produce letters: what this node asks of a recipient's, and what it is asked
    metadata,
    Column("challenge_id", String(32), primary_key=True),
    Column("is_own", Integer, nullable=False),  # whether this node asks
    Column("party", String(64), nullable=False),  # the other node
    Column("job_id", String(32), nullable=False, index=True),
    Column("scenario_digest", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # the persons, under the node key
    Column("revision", Integer, nullable=False),
    Column("told", Integer, nullable=False),  # the revision that the other node has
    Column("punished", Integer, nullable=False),  # failures for which the scenario was suspended
)

letters = Table(
    "letter",
    metadata,
    Column("challenge_id", String(32), ForeignKey("challenge.challenge_id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", Integer, nullable=False, index=True),
    Column("digest", LargeBinary, nullable=False),  # SM3 of the document; empty until it was produced
    Column("wrapped_key", LargeBinary),  # of its file, under the node key; gone once it was judged
    Column("judged_by", String(64), nullable=False),
    Column("judgement", LargeBinary),  # Signed LetterJudgement
)

cached = Table(
    "cached",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("file", String(96), nullable=False),
    Column("source", LargeBinary, nullable=False, index=True),  # content hash of a dataset
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("used_ms", BigInteger, nullable=False),
)

paillier_keys = Table(
    "paillier_key",
    metadata,
    Column("bits", Integer, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # under the node key
    Column("created_ms", BigInteger, nullable=False),
)

released_populations = Table(
    "released_population",  # at the gate, before the release: what differencing is found by
    metadata,
    Column("id", Integer, primary_key=True),
    Column("controller", String(64), nullable=False),
    Column("job_id", String(32), nullable=False, index=True),
    Column("name", String(256), nullable=False),
    Column("is_whole", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sketch", LargeBinary, nullable=False),
    Column("partners", String(640), nullable=False),  # codes of the other parties' datasets, sorted, comma-separated
    Column("content", LargeBinary, nullable=False),  # digest over the other parties' content hashes
    Column("time_ms", BigInteger, nullable=False),
    Index("released_by_rows", "controller", "is_whole", "rows"),
)

released_jobs = Table(
    "released_job",  # by whom its outputs are known in the end; a line each
    metadata,
    Column("subject", String(32), primary_key=True),
    Column("job_id", String(32), ForeignKey("job.job_id"), primary_key=True),
    Column("time_ms", BigInteger, nullable=False),
)

evidences = Table(
    "evidence",
    metadata,
    Column("job_id", String(32), ForeignKey("job.job_id"), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # what the gate found, for the owner only, under the node key
)

reviews = Table(
    "review",
    metadata,
    Column("job_id", String(32), ForeignKey("job.job_id"), primary_key=True),
    Column("is_here", Integer, nullable=False),  # whether this node's reviewers decide
    Column("held_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("reminded_ms", BigInteger),
)

decisions = Table(
    "review_decision",
    metadata,
    Column("job_id", String(32), ForeignKey("job.job_id"), primary_key=True),
    Column("key_id", String(32), primary_key=True),
    Column("reviewer", String(64), nullable=False),
    Column("record", LargeBinary, nullable=False),  # Signed ReviewDecision
)

privacy_uses = Table(
    "privacy_use",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("scenario_digest", LargeBinary, nullable=False, index=True),
    Column("controller", String(64), nullable=False, index=True),  # by whom history is kept: policy.scenario
    Column("epsilon_milli", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # reserved, spent, returned
)

bundles = Table(
    "bundle",
    metadata,
    Column("measurement", LargeBinary, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("form", String(16), nullable=False),
    Column("merchant", String(64), nullable=False),
    Column("submitter", String(32), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("statement", LargeBinary, nullable=False),  # Signed BundleStatement
    Column("wrapped_key", LargeBinary),  # none once it was withdrawn
    Column("created_ms", BigInteger, nullable=False),
    Column("withdrawn_ms", BigInteger, nullable=False),
)

refusals = Table(
    "refusal_reason",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # for the owner only, under the node key
)


class Store:
    """The tables of one node."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = create_engine(url)
        self._quick = self.engine
        self._writing = threading.RLock()
        if self.engine.dialect.name == "sqlite":
            self._quick = create_engine(url)
            for engine in (self.engine, self._quick):
                event.listen(engine, "connect", _durable)
                event.listen(engine, "begin", _immediate)
            event.listen(self._quick, "connect", _unflushed)

    @classmethod
    def at(cls, path: Path) -> Store:
        """Open the SQLite file, making it 0600 if it is new."""
        path.touch(mode=0o600)
        return cls(f"sqlite:///{path}")

    def create(self, *more: MetaData) -> None:
        """Make the tables that are missing; ``more`` brings those of higher layers."""
        for tables in (metadata, *more):
            tables.create_all(self.engine)

    @contextmanager
    def write(self, flush: bool = True) -> Iterator[Connection]:
        """One transaction: everything in it is durable when the block ends, or none of it happened.

        Args:
            flush: False saves the wait for the disk: it then survives the end of the process, but a loss of power only
                if something else was flushed after it. For what has no effect beyond itself.
        """
        with self._writing, (self.engine if flush else self._quick).begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading."""
        with self.engine.connect().execution_options(reading=True) as connection:
            yield connection

    def scrub(self) -> None:
        """Make what was deleted unreadable: ``secure_delete`` overwrites pages, this empties the log they stood in."""
        if self.engine.dialect.name != "sqlite":
            return
        with self._writing:
            connection = self.engine.raw_connection()  # a checkpoint cannot run inside a transaction
            try:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                connection.close()

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()
        self._quick.dispose()


def _durable(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin event opens transactions, see _immediate
    # The timeout first: switching to WAL itself can meet another process's lock.
    for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _unflushed(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _immediate(connection: Connection) -> None:
    # A deferred transaction that reads before it writes can fail with "database is locked" when another process writes.
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE")
