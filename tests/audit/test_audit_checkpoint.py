"""Signed tree heads: their form to the byte, their verdicts, and the same verdict from the openssl program."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest
from audit_parties import Signer
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.audit.checkpoint import (
    MAX_SIGNATURES,
    Checkpoint,
    VerifierKey,
    cosign,
    has_cosignature,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import IntegrityFailed, InvalidSpec

ROOT = bytes(range(32))


def head(origin: Signer, size: int = 20852163) -> Checkpoint:
    return Checkpoint(origin.name, size, ROOT)


def signed(origin: Signer) -> bytes:
    return sign_checkpoint(head(origin), origin.name, origin.key)


def openssl_verifies(folder: Path, key: bytes, message: bytes, signature: bytes) -> bool:
    for name, data in (("k", key), ("m", message), ("s", signature)):
        (folder / name).write_bytes(data)
    command = "openssl pkeyutl -verify -pubin -inkey k -rawin -digest sm3 -in m -sigfile s"
    asked = [*command.split(), "-pkeyopt", "distid:1234567812345678"]
    return subprocess.run(asked, cwd=folder, capture_output=True, check=False).returncode == 0


def test_the_note_is_what_the_specification_draws(origin: Signer) -> None:
    body, line = signed(origin).split(b"\n\n")
    assert body.decode() == f"ops.example/audit\n20852163\n{base64.b64encode(ROOT).decode()}"
    dash, name, blob = line.decode().rstrip("\n").split(" ")
    material = b"\xffSM2-SM3" + origin.key.public.to_bytes()
    key_id = hashlib.sha256(b"ops.example/audit\n" + material).digest()[:4]
    assert (dash, name, base64.b64decode(blob)[:4]) == ("—", "ops.example/audit", key_id)
    text = f"ops.example/audit+{key_id.hex()}+{base64.b64encode(material).decode()}"
    assert origin.verifier.to_text() == text
    assert VerifierKey.from_text(text) == origin.verifier
    assert verify_checkpoint(signed(origin), origin.verifier) == parse_checkpoint(signed(origin)) == head(origin)


def test_the_openssl_program_verifies_both_signatures_by_hand(origin: Signer, bank: Signer, tmp_path: Path) -> None:
    note = signed(origin)
    body, line = note.split(b"\n\n")
    body += b"\n"
    signature = base64.b64decode(line.split(b" ")[2])[4:]
    assert openssl_verifies(tmp_path, origin.key.public.to_pem(), body, signature)
    assert not openssl_verifies(tmp_path, origin.key.public.to_pem(), body + b"x", signature)
    blob = base64.b64decode(cosign(note, bank.name, bank.key, 1679315147).split(b" ")[2])
    assert int.from_bytes(blob[4:12], "big") == 1679315147
    message = b"cosignature/v1\ntime 1679315147\n" + body
    assert openssl_verifies(tmp_path, bank.key.public.to_pem(), message, blob[12:])
    assert not openssl_verifies(tmp_path, bank.key.public.to_pem(), body, blob[12:])


def test_a_signature_made_by_the_openssl_program_is_accepted(origin: Signer, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(origin.key.to_pem())
    (tmp_path / "m").write_bytes(head(origin).body())
    command = "openssl pkeyutl -sign -inkey k -rawin -digest sm3 -in m -out s -pkeyopt distid:1234567812345678"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    blob = base64.b64encode(origin.verifier.key_id + (tmp_path / "s").read_bytes()).decode()
    note = head(origin).body() + f"\n— {origin.name} {blob}\n".encode()
    assert verify_checkpoint(note, origin.verifier) == head(origin)


def test_cosignatures_stand_beside_each_other(origin: Signer, bank: Signer, regulator: Signer) -> None:
    note = signed(origin)
    both = note + cosign(note, bank.name, bank.key, 17) + cosign(note, regulator.name, regulator.key, 0)
    assert verify_checkpoint(both, origin.verifier) == head(origin)
    assert (verify_cosignature(both, bank.verifier), verify_cosignature(both, regulator.verifier)) == (17, 0)
    assert has_cosignature(both, bank.verifier)
    assert not has_cosignature(note, bank.verifier)
    with pytest.raises(IntegrityFailed, match="0 signatures"):
        verify_cosignature(note, bank.verifier)


def test_a_signature_and_a_cosignature_do_not_stand_for_each_other(origin: Signer, bank: Signer) -> None:
    note = signed(origin)
    assert not has_cosignature(note, origin.verifier)
    body = note[: note.index(b"\n\n") + 2]
    with pytest.raises(IntegrityFailed, match="0 signatures"):
        verify_checkpoint(body + cosign(note, origin.name, origin.key, 1), origin.verifier)
    relabelled = base64.b64encode(origin.verifier.cosigner_id + bytes(8) + _blob(note)[4:]).decode()
    with pytest.raises(IntegrityFailed):
        verify_cosignature(body + f"— {origin.name} {relabelled}\n".encode(), origin.verifier)


def _blob(note: bytes) -> bytes:
    return base64.b64decode(note.rsplit(b" ", 1)[1])


def test_another_time_is_another_statement(origin: Signer, bank: Signer) -> None:
    note = signed(origin)
    blob = _blob(cosign(note, bank.name, bank.key, 5))
    later = base64.b64encode(blob[:4] + (6).to_bytes(8, "big") + blob[12:]).decode()
    with pytest.raises(IntegrityFailed):
        verify_cosignature(note + f"— {bank.name} {later}\n".encode(), bank.verifier)


@pytest.mark.parametrize("blob", [b"abc", bytes(8), b"\x80" + bytes(80)])
def test_a_cosignature_without_a_time_or_a_signature_is_malformed(blob: bytes, origin: Signer, bank: Signer) -> None:
    line = base64.b64encode(bank.verifier.cosigner_id + blob).decode()
    with pytest.raises(IntegrityFailed, match="malformed"):
        verify_cosignature(signed(origin) + f"— {bank.name} {line}\n".encode(), bank.verifier)


def test_lines_of_unknown_keys_are_ignored_and_of_known_ones_never(origin: Signer, bank: Signer) -> None:
    note = signed(origin)
    stranger = Signer(origin.name, PrivateKey.generate())
    body = note[: note.index(b"\n\n") + 2]
    mixed = sign_checkpoint(head(stranger), stranger.name, stranger.key) + note[len(body) :]
    assert verify_checkpoint(mixed, origin.verifier) == head(origin)
    with pytest.raises(IntegrityFailed, match="2 signatures"):
        verify_checkpoint(note + note[len(body) :], origin.verifier)
    forged = base64.b64encode(origin.verifier.key_id + _blob(mixed)[4:-1] + b"\x00").decode()
    with pytest.raises(IntegrityFailed):
        verify_checkpoint(body + f"— {origin.name} {forged}\n".encode(), origin.verifier)
    with pytest.raises(IntegrityFailed, match="0 signatures"):
        verify_checkpoint(note, VerifierKey(origin.name, bank.key.public))
    with pytest.raises(IntegrityFailed, match="another origin"):
        verify_checkpoint(note, VerifierKey(bank.name, origin.key.public))


@pytest.mark.parametrize(
    "alter",
    [
        lambda n: b"",
        lambda n: n.replace(b"\n20852163\n", b"\n020852163\n"),
        lambda n: n.replace(b"\n20852163\n", b"\n-1\n"),
        lambda n: n.replace(b"\n20852163\n", b"\n9223372036854775808\n"),  # 2^63
        lambda n: n.replace(b"\n20852163\n", "\n１\n".encode()),  # a full-width digit is no digit
        lambda n: n.replace(b"\n20852163\n", b"\n20852163\nextension\n"),
        lambda n: n.replace(b"\n20852163\n", b"\r\n20852163\n"),
        lambda n: n.replace(b"ops.example/audit\n", b"ops example\n"),
        lambda n: n.replace(b"ops.example/audit\n", b"\n"),
        lambda n: n.replace(b"Hh8=", b"Hh9="),  # other base64 of the same root
        lambda n: n.replace(b"Hh8=", b"Hh8"),
        lambda n: n.replace(b"\n\n", b"\n"),
        lambda n: n.replace(b"\n\n", b"\n\n\n"),
        lambda n: n + b"\n",
        lambda n: n[:-1],
        lambda n: n.replace("—".encode(), b"-"),
        lambda n: n + f"— {'n' * 200} {'A' * 400}\n".encode() * 30,  # 31 good lines, but more than 16 KiB
        lambda n: n + n[n.index(b"\n\n") + 2 :].replace(b"ops", b"oops") * MAX_SIGNATURES,
    ],
)
def test_malformed_notes_are_refused_by_every_reader(alter, origin: Signer) -> None:  # type: ignore[no-untyped-def]
    note = alter(signed(origin))
    assert note != signed(origin)
    for read in (
        lambda: verify_checkpoint(note, origin.verifier),
        lambda: parse_checkpoint(note),
        lambda: verify_cosignature(note, origin.verifier),
        lambda: cosign(note, "bank.example", origin.key, 1),
    ):
        with pytest.raises(IntegrityFailed):
            read()


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 10_000), mask=st.integers(1, 255))
def test_no_flipped_byte_goes_unnoticed(at: int, mask: int, origin: Signer) -> None:
    note = bytearray(signed(origin))
    note[at % len(note)] ^= mask
    with pytest.raises(IntegrityFailed):
        verify_checkpoint(bytes(note), origin.verifier)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(note: bytes) -> None:
    with pytest.raises(IntegrityFailed):
        parse_checkpoint(note)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "名", "\udc80", "x" * 201])
def test_names_that_cannot_stand_on_a_line_are_refused(name: str, origin: Signer) -> None:
    for use in (
        lambda: sign_checkpoint(Checkpoint(name, 1, ROOT), name, origin.key),
        lambda: cosign(signed(origin), name, origin.key, 1),
        lambda: VerifierKey(name, origin.key.public),
    ):
        with pytest.raises(InvalidSpec):
            use()


def test_nonsense_is_not_signed(origin: Signer) -> None:
    for checkpoint in (Checkpoint(origin.name, -1, ROOT), Checkpoint(origin.name, 1 << 63, ROOT), head(origin)):
        name = "other" if checkpoint == head(origin) else origin.name
        with pytest.raises(InvalidSpec):
            sign_checkpoint(checkpoint, name, origin.key)
    with pytest.raises(InvalidSpec):
        sign_checkpoint(Checkpoint(origin.name, 1, ROOT[1:]), origin.name, origin.key)
    for time in (-1, 1 << 63):
        with pytest.raises(InvalidSpec):
            cosign(signed(origin), "bank", origin.key, time)


def test_verifier_keys_are_read_strictly(origin: Signer, bank: Signer) -> None:
    name, key_id, material = origin.verifier.to_text().split("+", 2)
    ed25519 = base64.b64encode(b"\x01" + bytes(32)).decode()
    off_curve = base64.b64encode(base64.b64decode(material)[:-1] + b"\x00").decode()
    for text in (
        "",
        "名+00000000+AA==",
        f"{name}+{key_id}",
        f"{name}+{key_id.upper() if key_id.upper() != key_id else 'ABCDEF01'}+{material}",
        f"{name}+{bank.verifier.key_id.hex()}+{material}",
        f"x{name}+{key_id}+{material}",
        f"{name}+{key_id}+{material}\n",
        f"{name}+{key_id}+{material}=",
        f"{name}+{key_id}+{material[:-3]}",
        f"{name}+{key_id}+AB==",
        f"{name}+{key_id}+{ed25519}",
        f"{name}+{key_id}+{off_curve}",
    ):
        with pytest.raises(InvalidSpec):
            VerifierKey.from_text(text)
