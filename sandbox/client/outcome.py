"""A released result, opened and checked.

    sealed bytes --sealing key--> Signed --node's key--> Result + Receipt --> tables and reports

Security:  an outcome exists only if all of this holds: it was sealed to this person, for this job and this receipt; the
           node signed it; the receipt's entry is the delivery of this job to this person; and for every output the
           entry holds a commitment that opens to the digest of exactly these bytes, so that the log, which others
           co-sign, binds the content. ``verify`` adds what needs trust in keys of others.
Errors:    ``IntegrityFailed`` naming what does not hold. Nothing is returned in part.
Not here:  fetching (``client``), whom to trust (``trust``).
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sandbox import signed, wire
from sandbox.audit.checkpoint import Checkpoint
from sandbox.audit.receipt import Receipt
from sandbox.client.trust import Trust, read_entry
from sandbox.crypto.envelope import open_with
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.errors import IntegrityFailed, SandboxError
from sandbox.keyring import Person
from sandbox.model import Entry, Fact, Output, Result, ResultHead, Signed

if TYPE_CHECKING:
    import pandas as pd

DELIVERED = "delivered"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # these names become files: no dots, no slashes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one job released to one person: data frames (rows) and dictionaries (reports), with the receipt."""

    job_id: str
    outputs: dict[str, pd.DataFrame | dict[str, Any]] = field(repr=False)
    receipt: bytes = field(repr=False)
    entry: Entry = field(repr=False)
    files: dict[str, bytes] = field(repr=False)  # as released, under the names to store them by

    def verify(self, trust: Trust, required: int = 1) -> Checkpoint:
        """Return the checkpoint that proves the release, co-signed by ``required`` witnesses; needs no network."""
        return trust.verify(self.receipt, required).checkpoint


def open_result(person: Person, node: PublicKey, head: ResultHead, sealed: bytes) -> Outcome:
    """Open what a node sent as the result of a job and check it, as the module's docstring says."""
    receipt = Receipt.from_text(head.receipt)
    entry = read_entry(receipt.leaf)
    if (entry.what, entry.job_id) != (DELIVERED, head.job_id):
        raise IntegrityFailed("the receipt is not of the delivery of this job")
    if head.recipient != person.key_id or Fact("recipient", person.key_id) not in entry.facts:
        raise IntegrityFailed("the result is for another recipient")
    bound = head.job_id.encode() + head.recipient.encode() + tagged("leaf", receipt.leaf)
    result = _read(node, open_with(person.sealing, sealed, tagged("result-aad", bound)))
    if result.job_id != head.job_id:
        raise IntegrityFailed("the result is of another job")
    _check_committed(entry, result)
    names = [output.name for output in result.outputs]
    if len(set(names)) != len(names) or not all(map(_NAME.fullmatch, names)):
        raise IntegrityFailed("two outputs have the same name, or one has a name that is no file name")
    return Outcome(
        job_id=head.job_id,
        outputs={output.name: _parse(output) for output in result.outputs},
        receipt=head.receipt,
        entry=entry,
        files={f"{output.name}.{output.format}": output.content for output in result.outputs},
    )


def _read(node: PublicKey, data: bytes) -> Result:
    try:
        return signed.verify(node, "result", wire.decode(Signed, data), Result)
    except SandboxError as error:
        raise IntegrityFailed(f"the result is not the node's: {error}") from None


def _check_committed(entry: Entry, result: Result) -> None:
    commitments = {commitment.name: commitment.digest for commitment in entry.commitments}
    openings = {opening.name: opening for opening in result.openings}
    for output in result.outputs:
        opening = openings.get(output.name)
        if opening is None or opening.value != sm3(output.content):
            raise IntegrityFailed(f"output {output.name} is not what the opening says")
        if commitments.get(output.name) != sm3(opening.salt + opening.value):
            raise IntegrityFailed(f"output {output.name} is not what the log committed to")


def _parse(output: Output) -> pd.DataFrame | dict[str, Any]:
    import pandas as pd  # a quarter of a second, which commands without a result need not spend

    try:
        if output.format == "parquet":
            return pd.read_parquet(io.BytesIO(output.content))
        if output.format == "json" and isinstance(report := json.loads(output.content), dict):
            return report
    except (ValueError, OSError, pa.ArrowException, RecursionError):
        raise IntegrityFailed(f"output {output.name} does not parse as {output.format}") from None
    raise IntegrityFailed(f"output {output.name} is neither a table nor a report")
