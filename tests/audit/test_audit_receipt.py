"""Receipts: proof for the honest, refusal for all else, and a second verifier that agrees."""

from __future__ import annotations

import base64
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from audit_parties import Signer, receipt_for
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from sandbox.audit import log, merkle, tables, verify_receipt
from sandbox.audit.checkpoint import MAX_SIGNATURES, Checkpoint, VerifierKey, cosign, sign_checkpoint
from sandbox.audit.receipt import MAX_LEAF, MAX_TEXT, Receipt, verify
from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed

SIZE = 11


@dataclass(frozen=True)
class World:
    """A log of eleven entries, two witnesses, and a good receipt for every entry."""

    origin: Signer
    bank: Signer
    regulator: Signer
    receipts: list[Receipt]

    @property
    def witnesses(self) -> list[VerifierKey]:
        return [self.bank.verifier, self.regulator.verifier]

    def trust(self, *witnesses: VerifierKey) -> str:
        lines = [f"witness {key.to_text()}" for key in witnesses or self.witnesses]
        return "\n".join(["# exchanged on paper", "", f"origin {self.origin.verifier.to_text()}", *lines, ""])


@pytest.fixture(scope="module")
def world(origin: Signer, bank: Signer, regulator: Signer) -> World:
    engine = create_engine("sqlite://")
    tables.metadata.create_all(engine)
    with engine.begin() as conn:
        for n in range(SIZE):
            log.append(conn, b"entry %d" % n)
        note = log.checkpoint(conn, origin.name, origin.key)
        lines = [cosign(note, signer.name, signer.key, 1_700_000_000) for signer in (bank, regulator)]
        receipts = [receipt_for(conn, n, note, SIZE, *lines[: 1 + n % 2]) for n in range(SIZE)]
    engine.dispose()
    return World(origin, bank, regulator, receipts)


def verdicts(world: World, text: bytes, required: int = 1) -> tuple[bool, bool]:
    """Return what our verifier and the stand-alone one say."""
    try:
        verify(Receipt.from_text(text), world.origin.verifier, world.witnesses, required)
        ours = True
    except IntegrityFailed:
        ours = False
    try:
        verify_receipt.check(text, world.trust(), required)
        theirs = True
    except (verify_receipt.Refused, ValueError):
        theirs = False
    return ours, theirs


def test_every_entry_has_a_receipt_that_both_verifiers_accept(world: World) -> None:
    for n, receipt in enumerate(world.receipts):
        checkpoint = verify(receipt, world.origin.verifier, world.witnesses)
        assert (checkpoint.origin, checkpoint.size) == (world.origin.name, SIZE)
        assert receipt.leaf == b"entry %d" % n
        assert Receipt.from_text(receipt.to_text()) == receipt
        assert verdicts(world, receipt.to_text()) == (True, True)


def test_the_text_is_what_the_docstring_draws(world: World) -> None:
    receipt = world.receipts[3]
    lines = receipt.to_text().decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", f"extra {base64.b64encode(b'entry 3').decode()}", "index 3"]
    assert lines[3:7] == [base64.b64encode(digest).decode() for digest in receipt.path]
    assert lines[7] == ""
    assert "\n".join(lines[8:]).encode() == receipt.note + b"".join(receipt.cosignatures)


def test_the_number_of_cosigners_counts(world: World) -> None:
    one, two = world.receipts[0].to_text(), world.receipts[1].to_text()
    assert [verdicts(world, one, n) for n in (0, 1, 2)] == [(True, True), (True, True), (False, False)]
    assert [verdicts(world, two, n) for n in (2, 3)] == [(True, True), (False, False)]


def lists(world: World) -> Iterator[tuple[str, list[VerifierKey], int, bool]]:
    bank, regulator = world.witnesses
    yield "both", [bank, regulator], 2, True
    yield "one twice", [bank, bank], 2, False
    yield "only the other", [VerifierKey("regulator.example/audit", PrivateKey.generate().public)], 1, False
    yield "origin counted", [world.origin.verifier, bank], 2, False
    yield "origin's key under another name", [VerifierKey("ghost.example", world.origin.key.public), bank], 2, False


def test_only_different_parties_count_and_never_the_origin(world: World) -> None:
    good = world.receipts[1]
    ghost = cosign(good.note, "ghost.example", world.origin.key, 1)
    self_signed = cosign(good.note, world.origin.name, world.origin.key, 1)
    twin = cosign(good.note, "twin.example", world.bank.key, 1)
    receipt = replace(good, cosignatures=(*good.cosignatures, ghost, self_signed, twin))
    cases = [
        *lists(world),
        ("two names, one key", [world.witnesses[0], VerifierKey("twin.example", world.bank.key.public)], 2, False),
    ]
    for name, witnesses, required, expected in cases:
        accepted = True
        try:
            verify(receipt, world.origin.verifier, witnesses, required)
        except IntegrityFailed:
            accepted = False
        assert accepted is expected, name
        try:
            verify_receipt.check(receipt.to_text(), world.trust(*witnesses), required)
            assert expected, name
        except verify_receipt.Refused:
            assert not expected, name


def test_one_bad_cosignature_of_a_known_witness_spoils_the_receipt(world: World) -> None:
    good = world.receipts[1]
    other_note = sign_checkpoint(Checkpoint(world.origin.name, 9, bytes(32)), world.origin.name, world.origin.key)
    foreign = cosign(other_note, world.regulator.name, world.regulator.key, 1)
    unknown = cosign(good.note, "nobody.example", PrivateKey.generate(), 1)
    first = good.cosignatures[0]
    for lines, expected in (
        ((first, foreign), False),
        ((first, first), False),
        ((first, unknown), True),
        ((unknown,), False),
    ):
        assert verdicts(world, replace(good, cosignatures=lines).to_text()) == (expected, expected)


def test_the_origins_line_need_not_come_first(world: World) -> None:
    good = world.receipts[0]
    body, line = good.note.split(b"\n\n")
    swapped = replace(good, note=body + b"\n\n" + good.cosignatures[0], cosignatures=(line,))
    assert verdicts(world, swapped.to_text()) == (True, True)


def damages(world: World, count: int) -> Iterator[bytes]:
    """Texts that are almost receipts; a fixed seed picks places, so a failure comes back."""
    picks = random.Random(20240601)
    texts = [receipt.to_text() for receipt in world.receipts]
    for _ in range(count):
        text = picks.choice(texts)
        at, to = sorted(picks.choices(range(len(text) + 1), k=2))
        lines = text.split(b"\n")
        n = picks.randrange(len(lines))
        other = picks.choice(texts).split(b"\n")
        yield picks.choice(
            [
                text[:at] + bytes([text[at % len(text)] ^ (1 << picks.randrange(8))]) + text[at + 1 :],
                text[:at] + text[to:],
                text[:at] + picks.randbytes(1) + text[at:],
                b"\n".join([*lines[:n], *lines[n + 1 :]]),
                b"\n".join([*lines[:n], lines[n], *lines[n:]]),
                b"\n".join([*lines[:n], picks.choice(other), *lines[n + 1 :]]),
                re.sub(rb"index \d+", b"index %d" % picks.randrange(-1, 20), text),
                text.replace(b"\n", b"\r\n", 1),
                text.replace(b"=\n", b"\n", 1),
            ]
        )


def test_both_verifiers_agree_on_hundreds_of_damaged_receipts(world: World) -> None:
    seen = {(True, True): 0, (False, False): 0}
    for text in damages(world, 600):
        verdict = verdicts(world, text)
        assert verdict in seen, text
        seen[verdict] += 1
    assert seen[False, False] > 400
    assert seen[True, True] > 5  # a dropped second co-signature, an index set to what it was


@settings(max_examples=200, deadline=None)
@given(which=st.integers(0, SIZE - 1), at=st.integers(0, 99_999), mask=st.integers(1, 255))
def test_no_flipped_byte_in_a_receipt_is_believed(world: World, which: int, at: int, mask: int) -> None:
    """As many co-signatures are required as there are, so that every byte matters."""
    text = bytearray(world.receipts[which].to_text())
    text[at % len(text)] ^= mask
    with pytest.raises(IntegrityFailed):
        verify(Receipt.from_text(bytes(text)), world.origin.verifier, world.witnesses, 1 + which % 2)


@settings(max_examples=100, deadline=None)
@given(text=st.binary(max_size=300))
def test_no_bytes_break_the_parser(text: bytes) -> None:
    for data in (text, b"c2sp.org/tlog-proof@v1\nextra AA==\nindex 0\n\n" + text):
        with pytest.raises(IntegrityFailed):
            Receipt.from_text(data)


def test_sizes_are_bounded_alike(world: World) -> None:
    good = world.receipts[1]
    filler = cosign(good.note, "nobody.example", world.bank.key, 1)
    long_path = good.to_text().replace(b"index 1\n", b"index 1\n" + base64.b64encode(bytes(32)) + b"\n" + b"")
    for text in (
        good.to_text().replace(b"extra ", b"extra " + b"AAAA" * (MAX_LEAF // 3 + 1)),
        good.to_text() + b"x" * MAX_TEXT,
        good.to_text().replace(b"index 1\n", b"index 1\n" + (base64.b64encode(bytes(32)) + b"\n") * 60),
        good.to_text().replace(b"index 1\n", b"index 9223372036854775808\n"),
        good.to_text() + filler * (MAX_SIGNATURES - 2),
        good.to_text() + f"— {'n' * 200} {'A' * 400}\n".encode() * 29,
        large_entry(world, bytes(MAX_LEAF + 1)),
        re.sub(rb"extra [^\n]*", b"extra ", good.to_text()),
        long_path,
    ):
        assert verdicts(world, text) == (False, False)
    assert verdicts(world, good.to_text() + filler * (MAX_SIGNATURES - 3)) == (True, True)
    assert verdicts(world, large_entry(world, bytes(MAX_LEAF))) == (True, True)


def large_entry(world: World, leaf: bytes) -> bytes:
    """Write the receipt of a log of one entry by hand, so that nothing stops an entry that is too large."""
    return signed_by_hand(world, leaf, Checkpoint(world.origin.name, 1, merkle.leaf_hash(leaf, sm3)))


def signed_by_hand(world: World, leaf: bytes, head: Checkpoint) -> bytes:
    """Write a receipt without path over whatever the origin and the bank can be made to sign."""
    note = sign_checkpoint(head, head.origin, world.origin.key)
    note += cosign(note, world.bank.name, world.bank.key, 1)
    return b"c2sp.org/tlog-proof@v1\nextra " + base64.b64encode(leaf) + b"\nindex 0\n\n" + note


def test_a_root_of_one_entry_does_not_prove_it_in_a_larger_log(world: World) -> None:
    digest = merkle.leaf_hash(b"entry", sm3)
    for size, expected in ((0, False), (1, True), (2, False), (5, False)):
        text = signed_by_hand(world, b"entry", Checkpoint(world.origin.name, size, digest))
        assert verdicts(world, text) == (expected, expected)


def test_another_origins_body_under_the_trusted_origins_line_is_refused(world: World) -> None:
    foreign = Checkpoint("other.example", 1, merkle.leaf_hash(b"entry", sm3))
    text = signed_by_hand(world, b"entry", foreign)
    blob = base64.b64encode(world.origin.verifier.key_id + world.origin.key.sign(foreign.body()))
    relabelled = re.sub("— other.example [^\n]*".encode(), f"— {world.origin.name} ".encode() + blob, text)
    assert relabelled != text
    assert verdicts(world, relabelled) == (False, False)


def test_an_entry_has_one_base64(world: World) -> None:
    text = world.receipts[3].to_text()
    same_bytes = text.replace(b"ZW50cnkgMw==", b"ZW50cnkgMx==")
    assert same_bytes != text
    assert verdicts(world, same_bytes) == (False, False)


def test_a_receipt_cannot_be_put_together_wrongly(world: World) -> None:
    good = world.receipts[1]
    for change in (
        {"leaf": b""},
        {"leaf": bytes(MAX_LEAF + 1)},
        {"index": -1},
        {"index": 1 << 63},
        {"path": (b"short",)},
        {"path": (bytes(32),) * 64},
        {"note": good.note + good.cosignatures[0]},
        {"note": b"nothing"},
        {"cosignatures": (good.cosignatures[0] * 2,)},
        {"cosignatures": (b"not a line\n",)},
    ):
        with pytest.raises(IntegrityFailed):
            replace(good, **change)


def test_the_largest_entry_fits_a_log_and_a_receipt(world: World, origin: Signer, bank: Signer) -> None:
    engine = create_engine("sqlite://")
    tables.metadata.create_all(engine)
    with engine.begin() as conn:
        log.append(conn, bytes(MAX_LEAF))
        note = log.checkpoint(conn, origin.name, origin.key)
        receipt = receipt_for(conn, 0, note, 1, cosign(note, bank.name, bank.key, 1))
    engine.dispose()
    assert verdicts(world, receipt.to_text()) == (True, True)


def run_alone(folder: Path, text: bytes, trust: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the file, outside the repository, with nothing but the standard library in reach."""
    (folder / "verify_receipt.py").write_bytes(Path(verify_receipt.__file__).read_bytes())
    (folder / "receipt").write_bytes(text)
    (folder / "trust").write_text(trust)
    command = [sys.executable, "-I", "-S", "verify_receipt.py", "receipt", "trust", *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_file_runs_alone(world: World, tmp_path: Path) -> None:
    text = world.receipts[1].to_text()
    good = run_alone(tmp_path, text, world.trust(), "2")
    assert (good.returncode, good.stderr) == (0, "")
    for words in (
        "entry    1 of 11",
        "origin   ops.example",
        "witness  bank.example",
        "witness  regulator",
        "VERIFIED",
    ):
        assert words in good.stdout
    bad = run_alone(tmp_path, text.replace(b"index 1", b"index 2"), world.trust())
    assert (bad.returncode, bad.stderr) == (1, "")
    assert bad.stdout == "REFUSED  the entry is not under the root of the checkpoint\n"


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda t: t.replace("origin ", "witness "), "exactly one origin"),
        (lambda t: t + t, "exactly one origin"),
        (lambda t: t.replace("witness ", "friend "), "neither"),
        (lambda t: t.replace("+", "-"), "name"),
        (lambda t: re.sub(r"\+[0-9a-f]{8}\+", "+00000000+", t), "wrong id"),
        (lambda t: re.sub(r"witness .*", "witness a+00000000+AQID", t), "not of type"),
        (lambda t: t + "名", "codec"),
    ],
)
def test_a_bad_trust_file_is_refused(alter, words: str, world: World, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "receipt").write_bytes(world.receipts[1].to_text())
    (tmp_path / "trust").write_text(alter(world.trust()), encoding="utf-8")
    assert verify_receipt.main([str(tmp_path / "receipt"), str(tmp_path / "trust")]) == 1
    assert words in capsys.readouterr().out


def test_a_wrong_call_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["only one"], [str(tmp_path / "missing"), "x"], [__file__, __file__, "two"]):
        assert verify_receipt.main(arguments) == 1
        assert capsys.readouterr().out.startswith("REFUSED")


def test_it_hashes_with_the_openssl_program_where_python_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    with_python = verify_receipt.sm3(b"abc")
    monkeypatch.setattr("hashlib.algorithms_available", set())
    assert verify_receipt.sm3(b"abc") == with_python
    assert with_python.hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
