"""Trust files, and what a receipt proves under one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandbox.audit.checkpoint import VerifierKey
from sandbox.audit.receipt import Receipt
from sandbox.client import Trust
from sandbox.errors import IntegrityFailed, InvalidSpec

JOB = "ab" * 16


def test_a_receipt_proves_entry_place_and_cosigner(deliver: Callable[..., Receipt], trust: Trust) -> None:
    proven = trust.verify(deliver(JOB, {}).to_text())
    assert (proven.entry.what, proven.entry.job_id, proven.index) == ("delivered", JOB, 5)
    assert proven.cosigners == ("witness",)
    assert (proven.checkpoint.origin, proven.checkpoint.size) == ("bank", 6)


@pytest.mark.parametrize("place", range(0, 1000, 37))
def test_any_changed_byte_is_noticed(deliver: Callable[..., Receipt], trust: Trust, place: int) -> None:
    text = bytearray(deliver(JOB, {}).to_text())
    text[place % len(text)] ^= 0x01
    with pytest.raises(IntegrityFailed):
        trust.verify(bytes(text))


def test_the_origin_does_not_count_as_its_own_witness(deliver: Callable[..., Receipt], trust: Trust) -> None:
    alone = Trust(trust.origin, (trust.origin,))
    with pytest.raises(IntegrityFailed):
        alone.verify(deliver(JOB, {}).to_text())


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "0 origins"),
        (["origin"], "line 1"),
        (["origin KEY", "origin KEY"], "2 origins"),
        (["owner KEY"], "neither origin nor witness"),
        (["witness KEY"], "0 origins"),
        (["origin KEY", "witness garbage"], "line 2"),
    ],
)
def test_malformed_trust_files_are_refused_with_their_line(lines: list[str], reason: str, bank: Any) -> None:
    key = VerifierKey("bank", bank.keys.checkpoint.public).to_text()
    with pytest.raises(InvalidSpec, match=reason):
        Trust.from_text("\n".join(lines).replace("KEY", key))


def test_a_trust_file_that_is_not_text(tmp_path: Any) -> None:
    path = tmp_path / "trust"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpec, match="UTF-8"):
        Trust.from_file(path)
