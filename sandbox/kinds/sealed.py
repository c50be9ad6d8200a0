"""Sums of sealed rows between two parties: one encrypts a row's numbers, the other adds ciphertexts and hides the sums.

    holder                          adder
    one ciphertext a row  ------->  sums, plus a number uniform modulo n
    decrypts: its share   <-------
                     share + share = the sum, at whoever gets both

Security: the holder sees the sums under a mask that is uniform modulo n, the adder sees ciphertexts. What a party sends
          is checked before it is used: as many units modulo n^2 as agreed.
Errors:   ``ProtocolFailed`` and ``PartyFailed`` naming the party.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox.errors import InvalidSpec, PartyFailed, ProtocolFailed
from sandbox.kinds.cells import Mask, Shape, Whole
from sandbox.kinds.kind import Task
from sandbox.mpc.packing import Additions, Column, Layout
from sandbox.mpc.paillier import PrivateKey, PublicKey

STAGE: Final = "compute"


def columns_of(shape: Shape) -> list[Column]:
    """Return a slot for each number that is added up. A row without a value adds 0, so 0 is in every range."""
    return [Column(f"s{n}", min(low, 0), max(high, 0)) for n, (low, high) in enumerate(shape.bounds)]


def row_layout(shape: Shape, rows: int, bits: int) -> Layout:
    """Return how one row's numbers stand in a plaintext: what it adds to the sums, and whether it counts."""
    counted = [Column(f"n{n}", 0, 1) for n in range(shape.counts)]
    return Layout.fitting([*columns_of(shape), *counted], max(rows, 1), key_bits=bits, lanes=1)


def rows_of(values: list[Whole], present: list[Mask]) -> NDArray[np.int64]:
    """Return the numbers of every row, in the order of ``row_layout``."""
    return np.stack([*values, *(mask.astype(np.int64) for mask in present)], axis=1)


def hide(key: PublicKey, sums: bytes, *, threads: int = 1) -> tuple[bytes, bytes]:
    """Return fresh ciphertexts of the sums plus uniform numbers, and those numbers: the adder's share.

    Fresh, or the holder, who knows the randomness of every row it encrypted, could try which rows were added.
    """
    count = len(sums) // (2 * key.size)
    hiding = b"".join(secrets.randbelow(key.n).to_bytes(key.size, "big") for _ in range(count))
    return key.add_plain(sums, hiding, threads=threads), hiding


def join(key: PublicKey, masked: bytes, hiding: bytes, party: str) -> bytes:
    """Return the plaintexts that two shares make."""
    if len(masked) != len(hiding) or len(hiding) % key.size:
        raise ProtocolFailed("the two shares differ in length", party=party, stage="reveal")
    numbers = (
        int.from_bytes(masked[at : at + key.size], "big") - int.from_bytes(hiding[at : at + key.size], "big")
        for at in range(0, len(hiding), key.size)
    )
    return b"".join((number % key.n).to_bytes(key.size, "big") for number in numbers)


def opened(layout: Layout, plain: bytes, additions: Additions, cells: int, party: str = "") -> list[list[int]]:
    """Return the sums in plaintexts, a list for each column of the layout, of numbers by cell.

    Raises:
        ProtocolFailed: so many rows cannot make them; naming who could have brought others.
    """
    try:
        found = layout.unpack(plain, additions, cells)
    except ProtocolFailed as error:
        raise ProtocolFailed(str(error), party=party, stage="reveal") from None
    return [[int(value) for value in column] for column in found.T]


def offer_key(task: Task, parties: list[str]) -> PublicKey:
    """Send this node's public key to other parties, and return it."""
    with PrivateKey.from_bytes(task.paillier_key) as key:
        public = key.public
    for party in parties:
        task.send(party, "key", public.to_bytes())
    return public


def take_key(task: Task, holder: str, bits: int) -> PublicKey:
    """Return the holder's public key."""
    try:
        key = PublicKey.from_bytes(task.receive(holder, "key"))
    except InvalidSpec as error:
        raise ProtocolFailed(str(error), tell="sent a key that is none", party=holder, stage=STAGE) from None
    if key.bits != bits:
        raise PartyFailed(tell="uses a key of another size than planned", party=holder, stage=STAGE)
    return key


def checked(key: PublicKey, ciphertexts: bytes, count: int, party: str) -> bytes:
    """Return what a party sent, if it is as many ciphertexts under the key as agreed."""
    if len(ciphertexts) != 2 * count * key.size:
        raise ProtocolFailed("another number of ciphertexts came than agreed", party=party, stage=STAGE)
    try:
        key.check(ciphertexts)
    except ProtocolFailed as error:
        raise ProtocolFailed(str(error), party=party, stage=STAGE) from None
    return ciphertexts
