"""One run of a merchant's bundle next to the data: measure, run, seal.

    load(bundle) -> quote(nonce) -> owners' brokers -> run(inputs) -> Ran -> the gate, or sealed to it

Security:  an enclave lives for one run. Its key is made here, is in every quote, and goes with it; Python cannot wipe
           it from memory. A bundle is measured as it was loaded, and only once; grants open only under the nonce,
           runtime and bundle of the quote they answer. Only declared columns enter the jail, without metadata. The
           level that ran is compared with the level that was quoted. The program's directory is gone before results
           are looked at, or there are none.
Reveals:   to the node, since it is simulated: everything. To the caller: tables that keep to the manifest, which the
           gate has still to judge, and what the code printed, which nobody judges: test environments only.
Errors:    those of the jail; ``OutputWithheld`` for results that break the manifest (with what the code printed, as the
           jail's errors have it: ``levels.told_by``); ``IntegrityFailed`` for grants and rows that do not open;
           ``InvalidSpec`` for missing tables, columns and parameters; ``WrongState`` for a second use.
Not here:  who may run what (policy), who gets keys (``broker``), what may leave (the gate).
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa

from sandbox.crypto.envelope import seal_to
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.errors import InvalidSpec, JobFailed, OutputWithheld, WrongState
from sandbox.model import Fact
from sandbox.tee_sim.attest import Attester
from sandbox.tee_sim.broker import Binding, open_grant, open_rows
from sandbox.tee_sim.bundle import Bundle, parse, unpack
from sandbox.tee_sim.levels import Limits, Outcome
from sandbox.tee_sim.manifest import Form, Manifest, Type
from sandbox.tee_sim.outputs import check_classes, check_outputs
from sandbox.tee_sim.stream import write_stream

PROGRAM: Final = "program.json"
_PREFIX: Final = "program-"
_MOST_TEXT: Final = 256  # characters of a parameter
_INTEGERS: Final = 1 << 63


class Confined(Protocol):
    """A jail that is waiting: ``tee_sim.jail.Jail``."""

    def run(
        self, program: Path, inputs: Mapping[str, Path | pa.Table], params: bytes, stop: threading.Event
    ) -> Outcome:
        """Run a program once."""


class Jails(Protocol):
    """Where jails come from: ``tee_sim.pool.Pool``."""

    def take(self, limits: Limits) -> AbstractContextManager[Confined]:
        """Return a fresh jail."""


@dataclass(frozen=True, slots=True)
class SealedTable:
    """An input table that only one enclave can open: what an owner sends after its broker's decision."""

    name: str
    nonce: bytes  # of the quote that the owner asked for
    grant: bytes = field(repr=False)
    rows: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run left. Its tables keep to the manifest and have passed no gate."""

    tables: Mapping[str, pa.Table] = field(repr=False)
    log: bytes = field(repr=False)
    seconds: float
    peak_mib: int
    facts: tuple[Fact, ...]

    def seal(self, key: PublicKey, aad: bytes) -> dict[str, bytes]:
        """Return the tables as Arrow streams that only the owner of ``key`` can open."""
        return {name: seal_to(key, write_stream(table), aad) for name, table in self.tables.items()}


class Enclave:
    """A one-use place for one bundle and the rows of one or more owners."""

    def __init__(self, attester: Attester, jails: Jails, scratch: Path, limits: Limits | None = None) -> None:
        """Args:
        attester: what signs the quotes of this machine.
        jails: warm jails of the level that the attester names.
        scratch: an existing private directory of the node.
        limits: what a run may use.
        """
        self._attester, self._jails, self._scratch = attester, jails, scratch
        self._limits = limits or Limits()
        self._key = PrivateKey.generate()
        self._bundle: Bundle | None = None
        self._used = False

    def load(self, bundle: bytes) -> bytes:
        """Measure a bundle, keep it, and return the measurement."""
        if self._bundle is not None:
            raise WrongState(tell="an enclave loads one bundle, once")
        self._bundle = parse(bundle)
        return self._bundle.measurement

    def quote(self, nonce: bytes) -> bytes:
        """Return a quote over this enclave's key and over the bundle, if one is loaded."""
        return self._attester.quote(nonce, self._measurement(), self._key.public.to_bytes())

    def run(
        self,
        own: Mapping[str, pa.Table],
        sealed: Sequence[SealedTable],
        params: Mapping[str, Any],
        stop: threading.Event,
        *,
        rows_allowed: bool,
    ) -> Ran:
        """Run the loaded bundle over the node's own tables and those of other owners.

        Raises:
            OutputWithheld: the results are not what the bundle declared, or rows about persons are not allowed.
        """
        if self._bundle is None or self._used:
            raise WrongState(tell="an enclave runs one bundle, once")
        self._used = True
        bundle = self._bundle
        check_classes(bundle.manifest, rows_allowed=rows_allowed)
        given = read_params(bundle.manifest, params)
        inputs = self._open_inputs(bundle.manifest, own, sealed)
        with _program(bundle, self._scratch) as program, self._jails.take(self._limits) as jail:
            outcome = jail.run(program, inputs, given, stop)
        if outcome.level != self._attester.level:
            raise JobFailed(f"the code ran at level {outcome.level}, quoted was {self._attester.level}", stage="tee")
        try:
            tables = check_outputs(bundle.manifest, outcome.tables, inputs, rows_allowed=rows_allowed)
        except OutputWithheld as error:
            vars(error).update(log=outcome.log)
            raise
        return Ran(tables, outcome.log, outcome.seconds, outcome.peak_mib, self._facts(bundle))

    def _measurement(self) -> bytes:
        return b"" if self._bundle is None else self._bundle.measurement

    def _open_inputs(
        self, manifest: Manifest, own: Mapping[str, pa.Table], sealed: Sequence[SealedTable]
    ) -> dict[str, pa.Table]:
        tables = dict(own)
        for one in sealed:
            if one.name in tables:
                raise InvalidSpec(tell="an input table of the bundle is given twice")
            binding = Binding(one.nonce, self._attester.runtime, self._measurement())
            tables[one.name] = open_rows(open_grant(self._key, one.grant, binding), one.name, one.rows)
        if tables.keys() != manifest.inputs.keys():
            raise InvalidSpec(tell=f"the bundle needs exactly the tables {', '.join(sorted(manifest.inputs))}")
        return {name: _project(name, tables[name], columns) for name, columns in manifest.inputs.items()}

    def _facts(self, bundle: Bundle) -> tuple[Fact, ...]:
        return (
            Fact("vendor", self._attester.vendor),
            Fact("level", self._attester.level),
            Fact("runtime", self._attester.runtime.hex()),
            Fact("bundle", bundle.measurement.hex()),
            Fact("scratch", "wiped"),  # true of every run that ends here: see _program
        )


def sweep_programs(scratch: Path) -> int:
    """Remove programs of runs that were killed, at node start, when none runs; return how many there were."""
    left = sorted(scratch.glob(f"{_PREFIX}*"))
    for place in left:
        shutil.rmtree(place)
    return len(left)


def read_params(manifest: Manifest, params: Mapping[str, Any]) -> bytes:
    """Return a run's parameters as JSON, having held them against what the bundle declared.

    Raises:
        InvalidSpec: one is missing, unknown, or of another type.
    """
    if params.keys() != manifest.params_schema.keys():
        wanted = ", ".join(sorted(manifest.params_schema)) or "none"
        raise InvalidSpec(tell=f"the bundle takes exactly these parameters: {wanted}")
    values = {name: _param(name, kind, params[name]) for name, kind in manifest.params_schema.items()}
    return json.dumps(values, sort_keys=True).encode("ascii")


def _param(name: str, kind: Type, value: Any) -> Any:
    integer = type(value) is int and abs(value) < _INTEGERS
    fits = {
        Type.INTEGER: integer,
        Type.NUMBER: integer or (type(value) is float and math.isfinite(value)),
        Type.STRING: type(value) is str and len(value) <= _MOST_TEXT and value.isprintable(),
        Type.BOOLEAN: type(value) is bool,
    }
    if not fits[kind]:
        raise InvalidSpec(tell=f"the parameter {name} is not of type {kind}, or out of range")
    return float(value) if kind is Type.NUMBER else value


def _project(name: str, table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the declared columns of an input, and nothing that comes with them."""
    for column in columns:
        if table.column_names.count(column) != 1:
            raise InvalidSpec(tell=f"the table {name} has no column {column!r}, or has it twice")
    chosen = table.select(columns)
    return chosen.cast(pa.schema([one.remove_metadata() for one in chosen.schema]))


@contextmanager
def _program(bundle: Bundle, scratch: Path) -> Iterator[Path]:
    """Give a directory with the program; when this ends, it is gone, or the run has failed."""
    place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=scratch))
    try:
        unpack(bundle, place)
        manifest = bundle.manifest
        document: dict[str, Any] = {"form": manifest.form, "entry": manifest.entry}
        if manifest.form is Form.SQL:
            document["sql"] = bundle.files[manifest.entry].decode("utf-8")
        if manifest.mapping is not None:
            document["mapping"] = asdict(manifest.mapping)
        (place / PROGRAM).write_text(json.dumps(document), encoding="ascii")
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if place.exists():
            raise JobFailed("a program's directory could not be removed", stage="tee")
