"""The tree: published values, laws, and every damage the reference implementation probes for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.audit import merkle
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed, InvalidSpec

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rfc6962.json").read_text())
LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(VECTORS["empty_root"]), *map(bytes.fromhex, VECTORS["roots"])]
EMPTY, OTHER = ROOTS[0], b"\xab\xac" * 16


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Stored:
    """A tree as the log keeps it; counts what is read."""

    def __init__(self, leaves: Sequence[bytes], h: merkle.Hash) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.reads = 0
        for size, leaf in enumerate(leaves):
            for level, index, digest in merkle.new_nodes(size, merkle.leaf_hash(leaf, h), self.read, h):
                assert (level, index) not in self.nodes
                self.nodes[level, index] = digest

    def read(self, level: int, index: int) -> bytes:
        self.reads += 1
        return self.nodes[level, index]


def unhex(proof: Sequence[str]) -> list[bytes]:
    return [bytes.fromhex(digest) for digest in proof]


def test_the_published_roots() -> None:
    stored = Stored(LEAVES, sha256)
    for size, expected in enumerate(ROOTS):
        assert merkle.root(LEAVES[:size], sha256) == expected
        assert merkle.root_at(size, stored.read, sha256) == expected


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda c: f"{c['index']}-of-{c['size']}")
def test_published_inclusion_proofs_and_their_damages(case: dict[str, object]) -> None:
    index, size, proof = int(str(case["index"])), int(str(case["size"])), unhex(case["proof"])  # type: ignore[arg-type]
    leaf, top = LEAVES[index], ROOTS[size]
    assert merkle.path(index, LEAVES[:size], sha256) == proof
    assert merkle.inclusion_path(index, size, Stored(LEAVES, sha256).read, sha256) == proof
    merkle.verify_inclusion(leaf, index, size, proof, top, sha256)
    for damage in inclusion_damages(leaf, index, size, proof, top):
        with pytest.raises(IntegrityFailed):
            merkle.verify_inclusion(*damage, sha256)


def inclusion_damages(
    leaf: bytes, index: int, size: int, proof: list[bytes], top: bytes
) -> Iterator[tuple[bytes, int, int, list[bytes], bytes]]:
    """Every probe of the reference implementation."""
    for other in (index - 1, index + 1, index ^ 2):
        yield leaf, other, size, proof, top
    for other in (size * 2, size // 2):
        yield leaf, index, other, proof, top
    yield b"WrongLeaf", index, size, proof, top
    for root in (EMPTY, OTHER, b""):
        yield leaf, index, size, proof, root
    for extra in (b"", top):
        yield leaf, index, size, [*proof, extra], top
        yield leaf, index, size, [extra, *proof], top
    for at in range(len(proof)):
        yield leaf, index, size, flipped(proof, at, 8), top
        yield leaf, index, size, proof[:at] + proof[at + 1 :], top
    if len(proof) > 1:
        yield leaf, index, size, [proof[0], OTHER, *proof[1:]], top
        yield leaf, index, size, proof[::-1], top


def flipped(proof: list[bytes], at: int, bit: int) -> list[bytes]:
    return [*proof[:at], bytes([proof[at][0] ^ bit]) + proof[at][1:], *proof[at + 1 :]]


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda c: f"{c['old']}-to-{c['new']}")
def test_published_consistency_proofs_and_their_damages(case: dict[str, object]) -> None:
    old, new, proof = int(str(case["old"])), int(str(case["new"])), unhex(case["proof"])  # type: ignore[arg-type]
    assert merkle.consistency(old, LEAVES[:new], sha256) == proof
    assert merkle.consistency_path(old, new, Stored(LEAVES, sha256).read, sha256) == proof
    merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], proof, sha256)
    for damage in consistency_damages(old, new, proof):
        with pytest.raises(IntegrityFailed):
            merkle.verify_consistency(*damage, sha256)


def consistency_damages(old: int, new: int, proof: list[bytes]) -> Iterator[tuple[int, int, bytes, bytes, list[bytes]]]:
    """Every probe of the reference implementation (those of non-trivial proofs only where one exists)."""
    first, second = ROOTS[old], ROOTS[new]
    yield old, new, b"WrongRoot", second, proof
    yield old, new, first, b"WrongRoot", proof
    yield old, new, OTHER, second, proof
    for extra in (b"", first, second):
        yield old, new, first, second, [*proof, extra]
        yield old, new, first, second, [extra, *proof]
    if not proof:
        return
    for other in (old - 1, old + 1, old ^ 2):
        yield other, new, first, second, proof
    for other in (new * 2, new // 2):
        yield old, other, first, second, proof
    yield old, new, second, first, proof
    yield old, new, first, second, []
    yield old, new, first, second, proof[:-1]
    yield old, new, first, second, [proof[0], *proof]
    for at in range(len(proof)):
        yield old, new, first, second, flipped(proof, at, 16)


@pytest.mark.parametrize(
    ("old", "new", "first", "second", "proof"),
    [
        (0, 0, ROOTS[1], ROOTS[1], []),  # the empty tree has one root only
        (0, 0, EMPTY, EMPTY, [EMPTY]),
        (0, 1, EMPTY, ROOTS[1], [EMPTY]),
        (0, 1, ROOTS[2], ROOTS[1], []),
        (1, 1, ROOTS[1], ROOTS[2], []),
        (1, 0, ROOTS[1], EMPTY, []),  # time does not run backwards
        (2, 1, ROOTS[2], ROOTS[1], []),
        (1, 2, ROOTS[1], ROOTS[2], []),
        (3, 4, ROOTS[3], ROOTS[4], []),
        (-1, 4, ROOTS[3], ROOTS[4], []),
    ],
)
def test_consistency_at_the_edges(old: int, new: int, first: bytes, second: bytes, proof: list[bytes]) -> None:
    with pytest.raises(IntegrityFailed):
        merkle.verify_consistency(old, new, first, second, proof, sha256)


def test_everything_extends_the_empty_tree() -> None:
    for size, top in enumerate(ROOTS):
        merkle.verify_consistency(0, size, EMPTY, top, [], sha256)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 0), (2, 1), (1, 1), (-1, 1)])
def test_no_entry_is_in_a_tree_too_small_for_it(index: int, size: int) -> None:
    with pytest.raises(IntegrityFailed):
        merkle.verify_inclusion(LEAVES[0], index, size, [], ROOTS[1], sha256)
    with pytest.raises(InvalidSpec):
        merkle.path(index, LEAVES[:size], sha256)
    with pytest.raises(InvalidSpec):
        merkle.inclusion_path(index, size, Stored(LEAVES, sha256).read, sha256)


@pytest.mark.parametrize(("old", "size"), [(2, 1), (-1, 1)])
def test_no_proof_of_shrinking(old: int, size: int) -> None:
    with pytest.raises(InvalidSpec):
        merkle.consistency(old, LEAVES[:size], sha256)
    with pytest.raises(InvalidSpec):
        merkle.consistency_path(old, size, Stored(LEAVES, sha256).read, sha256)


@pytest.mark.parametrize("stretched", [b"", ROOTS[1] + b"x", ROOTS[1][:-1]])
def test_digests_of_another_length_are_refused_before_they_are_hashed(stretched: bytes) -> None:
    with pytest.raises(IntegrityFailed, match="wrong length"):
        merkle.verify_inclusion(LEAVES[1], 1, 2, [stretched], ROOTS[2], sha256)
    with pytest.raises(IntegrityFailed, match="wrong length"):
        merkle.verify_consistency(1, 2, ROOTS[1], ROOTS[2], [stretched], sha256)


def test_an_inner_node_does_not_pass_as_an_entry() -> None:
    two = b"".join(merkle.leaf_hash(leaf, sha256) for leaf in LEAVES[:2])
    with pytest.raises(IntegrityFailed):
        merkle.verify_inclusion(two, 0, 2, merkle.path(0, LEAVES[:4], sha256)[1:], ROOTS[4], sha256)


@pytest.mark.parametrize("h", [sha256, sm3], ids=["sha256", "sm3"])
def test_the_efficient_form_equals_the_reference_for_all_sizes(h: merkle.Hash) -> None:
    leaves = [bytes([n]) for n in range(33)]
    stored = Stored(leaves, h)
    tops = [merkle.root(leaves[:size], h) for size in range(len(leaves) + 1)]
    for size, top in enumerate(tops):
        assert merkle.root_at(size, stored.read, h) == top
        for index in range(size):
            proof = merkle.inclusion_path(index, size, stored.read, h)
            assert proof == merkle.path(index, leaves[:size], h)
            merkle.verify_inclusion(leaves[index], index, size, proof, top, h)
        for old in range(size + 1):
            proof = merkle.consistency_path(old, size, stored.read, h)
            assert proof == merkle.consistency(old, leaves[:size], h)
            merkle.verify_consistency(old, size, tops[old], top, proof, h)


def test_the_efficient_form_reads_few_nodes() -> None:
    leaves = [n.to_bytes(2, "big") for n in range(1000)]
    stored = Stored(leaves, sha256)
    for ask in (
        lambda: merkle.root_at(1000, stored.read, sha256),
        lambda: merkle.inclusion_path(3, 1000, stored.read, sha256),
        lambda: merkle.consistency_path(513, 1000, stored.read, sha256),
        lambda: merkle.new_nodes(1023, EMPTY, lambda *_: stored.read(0, 0), sha256),
    ):
        stored.reads = 0
        ask()
        assert stored.reads <= 20


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_every_leaf_is_provable_and_no_other(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    other = data.draw(st.integers(-1, len(leaves)))
    top, proof = merkle.root(leaves, sm3), merkle.path(index, leaves, sm3)
    merkle.verify_inclusion(leaves[index], index, len(leaves), proof, top, sm3)
    with pytest.raises(IntegrityFailed):
        merkle.verify_inclusion(leaves[index] + b"!", index, len(leaves), proof, top, sm3)
    if other != index:
        with pytest.raises(IntegrityFailed):
            merkle.verify_inclusion(leaves[index] + b"!", other, len(leaves), proof, top, sm3)
        if leaves[index] not in leaves[:index] + leaves[index + 1 :]:
            with pytest.raises(IntegrityFailed):
                merkle.verify_inclusion(leaves[index], other, len(leaves), proof, top, sm3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=4), min_size=2, max_size=40), st.data())
def test_a_rewritten_past_has_no_consistency_proof(leaves: list[bytes], data: st.DataObject) -> None:
    old = data.draw(st.integers(1, len(leaves) - 1))
    at = data.draw(st.integers(0, old - 1))
    before = merkle.root(leaves[:old], sm3)
    rewritten = [*leaves[:at], leaves[at] + b"!", *leaves[at + 1 :]]
    for proof in (merkle.consistency(old, rewritten, sm3), merkle.consistency(old, leaves, sm3)):
        with pytest.raises(IntegrityFailed):
            merkle.verify_consistency(old, len(leaves), before, merkle.root(rewritten, sm3), proof, sm3)
