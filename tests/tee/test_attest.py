"""Quotes: genuine ones pass, every other is refused, and every refusal says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import keyring, signed
from sandbox.crypto.envelope import sign_payload
from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm3 import domain, tagged
from sandbox.errors import IntegrityFailed, InvalidSpec, PolicyRefused, SandboxError
from sandbox.tee_sim import attest
from sandbox.tee_sim.attest import Expectation, SimulatedAttester, measure_runtime, verify
from sandbox.tee_sim.levels import Level
from sandbox.tee_sim.manifest import LIBRARIES

IDENTITY, ATTESTATION, EPHEMERAL = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()
CERTIFICATE = signed.certify(IDENTITY, "attestation", ATTESTATION.public)
NONCE, BUNDLE = bytes(range(32)), tagged("bundle", b"some bundle")
REPORT = EPHEMERAL.public.to_bytes()
ANY = Expectation(max_age_ms=None)


@pytest.fixture(scope="module")
def quote() -> bytes:
    return SimulatedAttester(ATTESTATION, CERTIFICATE, Level.CONFINED).quote(NONCE, BUNDLE, REPORT)


def payload(quote: bytes) -> bytes:
    return quote.splitlines()[1]


def signed_again(quote: bytes, change: Callable[[bytes], bytes], vendor: bytes = b"SIMULATED") -> bytes:
    """Return a quote with another second line, signed by the same node: what a faulty node could send."""
    line = change(payload(quote))
    signature = sign_payload(ATTESTATION, "quote", line).hex().encode()
    _, _, key, certificate, _ = quote.splitlines()
    return b"\n".join([b"sandbox-quote-v1 " + vendor, line, key, certificate, b"signature " + signature, b""])


def test_what_was_quoted_is_what_is_read(quote: bytes) -> None:
    found = verify(quote, IDENTITY.public, Expectation(NONCE, BUNDLE, {measure_runtime()}, {Level.CONFINED}))
    assert (found.vendor, found.simulated, found.level) == ("SIMULATED", True, "confined")
    assert (found.nonce, found.bundle, found.runtime) == (NONCE, BUNDLE, measure_runtime())
    assert found.key == EPHEMERAL.public
    assert abs(found.issued_ms - signed.now_ms()) < 60_000
    assert quote.startswith(b"sandbox-quote-v1 SIMULATED\n")


def test_a_node_s_own_keys_and_card_are_enough(tmp_path: Path) -> None:
    keys = keyring.create_node(tmp_path / "keys", "bank")
    card = signed.open_peer_card(keys.card("bank", "Example Bank", "127.0.0.1:1"))
    quote = SimulatedAttester(keys.attestation, card.attestation, Level.CONFINED).quote(NONCE, BUNDLE, REPORT)
    assert verify(quote, keyring.public_key(card), Expectation(nonce=NONCE)).bundle == BUNDLE


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
def test_by_hand_with_openssl(quote: bytes, tmp_path: Path) -> None:
    _, line, key, certificate, signature = quote.splitlines()
    cases = [
        (IDENTITY.public, domain("certified-attestation") + bytes.fromhex(key.split()[1].decode()), certificate),
        (ATTESTATION.public, domain("quote") + line, signature),
    ]
    for signer, message, stated in cases:
        (tmp_path / "key.pem").write_bytes(signer.to_pem())
        (tmp_path / "message").write_bytes(message)
        (tmp_path / "signature").write_bytes(bytes.fromhex(stated.split()[1].decode()))
        done = subprocess.run(
            "openssl pkeyutl -verify -pubin -inkey key.pem -rawin -digest sm3 -in message -sigfile signature "
            "-pkeyopt distid:1234567812345678",
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert "Signature Verified Successfully" in done.stdout, done.stderr


def test_every_changed_byte_is_refused(quote: bytes) -> None:
    for at in range(len(quote)):
        for flip in (0x01, 0x20, 0x80):
            changed = quote[:at] + bytes([quote[at] ^ flip]) + quote[at + 1 :]
            with pytest.raises((InvalidSpec, IntegrityFailed)):
                verify(changed, IDENTITY.public, ANY)


def test_every_lost_byte_and_every_cut_is_refused(quote: bytes) -> None:
    for at in range(0, len(quote), 7):
        for changed in (quote[:at], quote[:at] + quote[at + 1 :]):
            with pytest.raises((InvalidSpec, IntegrityFailed)):
                verify(changed, IDENTITY.public, ANY)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_refused_in_our_words(data: bytes) -> None:
    for given_ in (data, b"sandbox-quote-v1 SIMULATED\n" + data):
        with pytest.raises(SandboxError):
            verify(given_, IDENTITY.public, ANY)


@pytest.mark.parametrize(
    ("expect", "why"),
    [
        (Expectation(nonce=bytes(32)), "another nonce"),
        (Expectation(bundle=tagged("bundle", b"another")), "another bundle"),
        (Expectation(runtimes={bytes(32)}), "another runtime"),
        (Expectation(runtimes=()), "another runtime"),
        (Expectation(levels={Level.NARROWED}), "level is confined"),
        (Expectation(levels=()), "level is confined"),
    ],
)
def test_a_genuine_quote_that_is_not_the_one_expected(quote: bytes, expect: Expectation, why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        verify(quote, IDENTITY.public, expect)


def test_a_nonce_expires(quote: bytes) -> None:
    issued = verify(quote, IDENTITY.public, ANY).issued_ms
    at = Expectation(nonce=NONCE, max_age_ms=1000)
    for age in (-attest.SKEW_MS, 0, 1000):
        verify(quote, IDENTITY.public, dataclasses.replace(at, time_ms=issued + age))
    for age in (-attest.SKEW_MS - 1, 1001, 10**9):
        with pytest.raises(PolicyRefused, match="too old, or from a clock"):
            verify(quote, IDENTITY.public, dataclasses.replace(at, time_ms=issued + age))


def test_keys_that_are_not_the_node_s(quote: bytes) -> None:
    other = PrivateKey.generate()
    with pytest.raises(IntegrityFailed, match="not certified by the expected node"):
        verify(quote, other.public, ANY)
    # The node's certificate for another purpose is none for this one.
    lent = SimulatedAttester(other, signed.certify(IDENTITY, "sealing", other.public), Level.CONFINED)
    with pytest.raises(IntegrityFailed, match="not certified by the expected node"):
        verify(lent.quote(NONCE, BUNDLE, REPORT), IDENTITY.public, ANY)
    # Nor does the attestation key sign quotes with anything else it signs.
    *head, _ = quote.splitlines()
    signature = sign_payload(ATTESTATION, "receipt", payload(quote)).hex().encode()
    with pytest.raises(IntegrityFailed, match="signature does not verify"):
        verify(b"\n".join([*head, b"signature " + signature, b""]), IDENTITY.public, ANY)
    with pytest.raises(InvalidSpec, match="another attestation key"):
        SimulatedAttester(other, CERTIFICATE, Level.CONFINED)


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda line: line.replace(old.encode(), new.encode())


@pytest.mark.parametrize(
    ("change", "vendor", "why"),
    [
        (replaced("SIMULATED", "SGX"), b"SIMULATED", "first line"),
        (replaced("SIMULATED", "SGX"), b"SGX", "cannot check quotes of SGX"),
        (replaced('"SIMULATED"', "7"), b"SIMULATED", "first line"),
        (replaced('"confined"', "7"), b"SIMULATED", "its level is no name"),
        (replaced("confined", "CONFINED"), b"SIMULATED", "its level is no name"),
        (replaced(",", ", "), b"SIMULATED", "one form"),
        (replaced('{"bundle"', '{"b":1,"bundle"'), b"SIMULATED", "one form"),
        (replaced('"level":"confined",', ""), b"SIMULATED", "not those of this version"),
        (replaced(BUNDLE.hex(), BUNDLE.hex().upper()), b"SIMULATED", "one form"),
        (replaced(BUNDLE.hex(), BUNDLE.hex()[2:]), b"SIMULATED", "one form"),
        (replaced(BUNDLE.hex(), BUNDLE.hex()[1:]), b"SIMULATED", "not those of this version"),
        (replaced(NONCE.hex(), NONCE.hex() + "00"), b"SIMULATED", "one form"),
        (replaced(measure_runtime().hex(), ""), b"SIMULATED", "one form"),
        (replaced('"issued_ms":', '"issued_ms":0.'), b"SIMULATED", "one form"),
        (lambda line: json.dumps({**json.loads(line), "issued_ms": True}).encode(), b"SIMULATED", "one form"),
        (lambda line: b"{" + b"[" * 2000 + b"}", b"SIMULATED", "not those of this version"),
        (lambda line: b"{" + b" " * 3000 + b"}", b"SIMULATED", "not a quote"),
        (replaced(REPORT.hex(), bytes(65).hex()), b"SIMULATED", "a point is 65 bytes|not on the SM2 curve"),
        (replaced(REPORT.hex(), ""), b"SIMULATED", "a point is 65 bytes"),
    ],
)
def test_what_a_faulty_node_signs_is_refused(
    quote: bytes, change: Callable[[bytes], bytes], vendor: bytes, why: str
) -> None:
    with pytest.raises(InvalidSpec, match=why):
        verify(signed_again(quote, change, vendor), IDENTITY.public, ANY)


def test_an_attester_refuses_what_it_could_not_quote() -> None:
    attester = SimulatedAttester(ATTESTATION, CERTIFICATE, Level.CONFINED)
    for given_ in ((bytes(31), BUNDLE, REPORT), (NONCE, bytes(31), REPORT), (NONCE, BUNDLE, bytes(65))):
        with pytest.raises(InvalidSpec):
            attester.quote(*given_)
    empty = verify(attester.quote(NONCE, b"", REPORT), IDENTITY.public, ANY)
    assert empty.bundle == b""
    with pytest.raises(PolicyRefused, match="of none yet"):
        verify(attester.quote(NONCE, b"", REPORT), IDENTITY.public, Expectation(bundle=BUNDLE))


def test_the_runtime_is_every_file_of_the_package_and_every_version(monkeypatch: pytest.MonkeyPatch) -> None:
    described = attest.describe_runtime()
    files = {path.name for path in Path(attest.__file__).parent.glob("*.py")}
    assert files | set(LIBRARIES) | {"interpreter"} == set(described)
    assert {"jail.py", "inside.py", "enclave.py"} <= files
    for library, version in (("numpy", "1.0"), ("scipy", None)):
        monkeypatch.setattr(attest, "_version", lambda name, v=version, of=library: v if name == of else "1")
        one = measure_runtime.__wrapped__()
        monkeypatch.setattr(attest, "_version", lambda name: "1")
        assert one != measure_runtime.__wrapped__()


def test_a_changed_file_changes_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = measure_runtime.__wrapped__()
    copy = tmp_path / "tee_sim"
    shutil.copytree(Path(attest.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(attest, "__file__", str(copy / "attest.py"))
    assert measure_runtime.__wrapped__() == before
    with (copy / "enclave.py").open("a") as file:
        file.write("\n")
    assert measure_runtime.__wrapped__() != before
