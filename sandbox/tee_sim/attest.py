"""Quotes: what runs where, under whose key, in answer to which nonce. Simulated, and signed as such.

    sandbox-quote-v1 SIMULATED
    {"bundle":"...","issued_ms":...,"level":"confined","nonce":"...","report_data":"...","runtime":"...","vendor":...}
    key 04...            attestation key of the node
    certificate 30...    over that key, by the node's identity key: the root that a verifier pins
    signature 30...      over the second line, by the attestation key

Source:    the fields are those that SGX, TDX and CSV reports have in common; the encoding is our own.
Security:  a simulated quote proves that the holder of the node's attestation key said so, and nothing about hardware:
           whoever controls the node can sign any measurement. ``verify`` therefore names the vendor in what it returns,
           and ``broker`` releases keys to a simulated enclave only where that was accepted. A quote has one spelling:
           any other byte anywhere is refused.
Shapes:    measurements 32 bytes; nonce 32 bytes; ``report_data`` the enclave's ephemeral SM2 public key, 65 bytes;
           ``bundle`` empty while the enclave has loaded none. The runtime is measured as SM3 over the files of this
           package, the interpreter's version and the libraries' versions: not over the interpreter's and the
           libraries' own files, the kernel, or the rest of the sandbox.
Errors:    ``InvalidSpec`` for bytes that are no quote, ``IntegrityFailed`` for signatures, ``PolicyRefused`` for a
           quote that is genuine and not the one expected.
Not here:  what a scenario approved, and keys of data (``broker``).
"""

from __future__ import annotations

import functools
import json
import platform
import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Protocol

from sandbox.crypto.envelope import sign_payload, verify_payload
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import DIGEST_SIZE, tagged
from sandbox.errors import IntegrityFailed, InvalidSpec, PolicyRefused, Unauthenticated
from sandbox.model import CertifiedKey
from sandbox.signed import now_ms, open_certified
from sandbox.tee_sim.manifest import LIBRARIES

SIMULATED: Final = "SIMULATED"
NONCE_SIZE: Final = 32
QUOTE_BYTES: Final = 4096  # at most
SKEW_MS: Final = 60_000  # how far ahead another node's clock may be

_KIND: Final = "quote"
_HEAD: Final = re.compile(rb"sandbox-quote-v1 ([A-Z0-9-]{1,32})\n")
_TEXT: Final = re.compile(
    rb"sandbox-quote-v1 ([A-Z0-9-]{1,32})\n(\{[ -~]{1,2048}\})\nkey ([0-9a-f]{130})\n"
    rb"certificate ([0-9a-f]{16,160})\nsignature ([0-9a-f]{16,160})\n"
)
_LEVEL: Final = re.compile(r"[a-z-]{1,32}")
_AGAIN: Final = "ask for a new quote with a new nonce"
_COMPARE: Final = "compare `sandbox model show` and `sandbox tee doctor` with what was approved"


@dataclass(frozen=True, slots=True)
class Quote:
    """What a quote says. Believe only what ``verify`` returned."""

    vendor: str
    level: str
    runtime: bytes
    bundle: bytes
    nonce: bytes
    report_data: bytes
    issued_ms: int
    digest: bytes  # of the signed line: what grants are bound to

    @property
    def key(self) -> PublicKey:
        """The enclave's ephemeral key, to which data keys and bundles are sealed."""
        return PublicKey.from_bytes(self.report_data)

    @property
    def simulated(self) -> bool:
        """Whether no hardware stands behind it."""
        return self.vendor == SIMULATED


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a verifier asks of a quote; ``None`` leaves a question open."""

    nonce: bytes | None = None
    bundle: bytes | None = None
    runtimes: Collection[bytes] | None = None
    levels: Collection[str] | None = None
    max_age_ms: int | None = 120_000
    time_ms: int | None = None  # the verifier's clock; by default, now


class Attester(Protocol):
    """What signs quotes on one machine: the seam for trusted hardware (ADR 12)."""

    @property
    def vendor(self) -> str:
        """Who stands behind the quotes."""

    @property
    def level(self) -> str:
        """What isolates the code: a level of the jail, or the hardware's own."""

    @property
    def runtime(self) -> bytes:
        """The measurement of everything but the bundle."""

    def quote(self, nonce: bytes, bundle: bytes, report_data: bytes) -> bytes:
        """Return a quote over these three and over what this attester itself measured."""


class SimulatedAttester:
    """Signs quotes with the node's attestation key. Proves nothing about hardware, and says so in every quote."""

    vendor: Final = SIMULATED

    def __init__(self, key: PrivateKey, certificate: CertifiedKey, level: str) -> None:
        """Args:
        key: the node's attestation key.
        certificate: the same key certified by the node's identity key.
        level: what the node's jail really is.
        """
        if certificate.key != key.public.to_bytes():
            raise InvalidSpec("the certificate is for another attestation key")
        self._key, self._certificate = key, certificate
        self.level, self.runtime = str(level), measure_runtime()

    def quote(self, nonce: bytes, bundle: bytes, report_data: bytes) -> bytes:
        """Return a quote: the text at the head of this module."""
        payload = _payload(
            Quote(self.vendor, self.level, self.runtime, bundle, nonce, report_data, now_ms(), bytes(DIGEST_SIZE))
        )
        signature = sign_payload(self._key, _KIND, payload)
        text = _text(self.vendor, payload, self._certificate, signature)
        _parse(text)  # wrong sizes of nonce, measurement or key are the caller's mistake, told here and not far away
        return text


def verify(quote: bytes, root: PublicKey, expect: Expectation) -> Quote:
    """Return what a quote says, if it is genuine under ``root`` and as expected.

    Raises:
        InvalidSpec: these bytes are no quote, or of a vendor this version does not know.
        IntegrityFailed: a signature does not verify: not this root's, or changed.
        PolicyRefused: it answers another nonce, is too old, or is of another bundle, runtime or level.
    """
    head = _HEAD.match(quote)
    if head is None:
        raise InvalidSpec(tell="this is not a quote")
    vendor = head[1].decode("ascii")
    if vendor != SIMULATED:  # here a vendor's module is asked: ADR 12
        raise InvalidSpec(tell=f"this version cannot check quotes of {vendor}")
    found = open_simulated(quote, root)
    check(found, expect)
    return found


def open_simulated(quote: bytes, root: PublicKey) -> Quote:
    """Return what a simulated quote says, if its signatures lead to ``root``; whether it is the one expected is open.

    Raises:
        InvalidSpec: these bytes are no simulated quote.
        IntegrityFailed: a signature does not verify: not this root's, or changed.
    """
    found, payload, certificate, signature = _parse(quote)
    try:
        key = open_certified(root, "attestation", certificate)
    except Unauthenticated:
        raise IntegrityFailed(tell="the quote's attestation key is not certified by the expected node") from None
    try:
        verify_payload(key, _KIND, payload, signature)
    except IntegrityFailed:
        raise IntegrityFailed(tell="the quote's signature does not verify") from None
    return found


def check(quote: Quote, expect: Expectation) -> None:
    """Refuse a genuine quote that is not the one expected; the same for every vendor."""
    age = (now_ms() if expect.time_ms is None else expect.time_ms) - quote.issued_ms
    if expect.nonce is not None and quote.nonce != expect.nonce:
        raise PolicyRefused(tell="the quote answers another nonce", hint=_AGAIN)
    if expect.max_age_ms is not None and not -SKEW_MS <= age <= expect.max_age_ms:
        raise PolicyRefused(tell="the quote is too old, or from a clock that is ahead", hint=_AGAIN)
    if expect.bundle is not None and quote.bundle != expect.bundle:
        raise PolicyRefused(tell="the quote is of another bundle, or of none yet", hint=_COMPARE)
    if expect.runtimes is not None and quote.runtime not in expect.runtimes:
        raise PolicyRefused(tell="the quote is of another runtime", hint=_COMPARE)
    if expect.levels is not None and quote.level not in expect.levels:
        raise PolicyRefused(tell=f"the quote's isolation level is {quote.level}", hint=_COMPARE)


@functools.cache
def measure_runtime() -> bytes:
    """Return the measurement of what runs bundles here."""
    return tagged("runtime", _canonical(describe_runtime()))


def describe_runtime() -> dict[str, str]:
    """Return what the measurement of the runtime covers, by name: digests of files, and versions."""
    here = Path(__file__).parent
    found = {path.name: tagged("runtime-file", path.read_bytes()).hex() for path in sorted(here.glob("*.py"))}
    found["interpreter"] = f"{platform.python_implementation()} {platform.python_version()}"
    return found | {library: _version(library) for library in LIBRARIES}


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def _payload(quote: Quote) -> bytes:
    return _canonical(
        {
            "bundle": quote.bundle.hex(),
            "issued_ms": quote.issued_ms,
            "level": quote.level,
            "nonce": quote.nonce.hex(),
            "report_data": quote.report_data.hex(),
            "runtime": quote.runtime.hex(),
            "vendor": quote.vendor,
        }
    )


def _text(vendor: str, payload: bytes, certificate: CertifiedKey, signature: bytes) -> bytes:
    head = f"sandbox-quote-v1 {vendor}\n".encode("ascii")
    chain = f"key {certificate.key.hex()}\ncertificate {certificate.signature.hex()}\nsignature {signature.hex()}\n"
    return head + payload + b"\n" + chain.encode("ascii")


def _parse(quote: bytes) -> tuple[Quote, bytes, CertifiedKey, bytes]:
    """Return a quote's parts, not yet believed, having refused all but its one spelling."""
    parts = _TEXT.fullmatch(quote) if len(quote) <= QUOTE_BYTES else None
    if parts is None:
        raise InvalidSpec(tell="this is not a quote")
    vendor, payload = parts[1].decode("ascii"), parts[2]
    try:
        certificate = CertifiedKey(bytes.fromhex(parts[3].decode()), bytes.fromhex(parts[4].decode()))
        signature = bytes.fromhex(parts[5].decode())
        said = json.loads(payload)
        found = Quote(
            vendor=said["vendor"],
            level=said["level"],
            runtime=bytes.fromhex(said["runtime"]),
            bundle=bytes.fromhex(said["bundle"]),
            nonce=bytes.fromhex(said["nonce"]),
            report_data=bytes.fromhex(said["report_data"]),
            issued_ms=said["issued_ms"],
            digest=tagged(_KIND, payload),
        )
        same = _payload(found) == payload and found.key.to_bytes() == found.report_data
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidSpec(tell="a quote's members are not those of this version") from None
    sizes = (len(found.runtime), len(found.nonce)) == (DIGEST_SIZE, NONCE_SIZE)
    if not (same and sizes and len(found.bundle) in (0, DIGEST_SIZE) and type(found.issued_ms) is int):
        raise InvalidSpec(tell="a quote's members are not in their one form")
    if vendor != found.vendor or not isinstance(found.level, str) or not _LEVEL.fullmatch(found.level):
        raise InvalidSpec(tell="a quote's first line and its vendor differ, or its level is no name")
    return found, payload, certificate, signature
