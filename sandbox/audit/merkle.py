"""The Merkle tree of RFC 6962, with the hash as an argument.

        root of 5              a node is (level, index); it is stored only when complete:
       /         \\                level 2   (2,0)
    (2,0)        (0,4)            level 1   (1,0) (1,1)
    /    \\                        level 0   (0,0) (0,1) (0,2) (0,3) (0,4)
  (1,0)  (1,1)

Source:    RFC 6962 section 2.1 (tree and proofs); RFC 9162 sections 2.1.3.2 and 2.1.4.2 (verification).
Security:  as collision resistant as the hash; leaves and inner nodes carry different prefixes.
Shapes:    a proof is a list of digests from the leaf's side to the root's side. Two forms of the same functions:
           ``root``, ``path``, ``consistency`` follow the text of the RFC over all leaves and serve as reference;
           ``new_nodes``, ``root_at``, ``inclusion_path``, ``consistency_path`` read O(log n) stored nodes.
Errors:    ``IntegrityFailed`` from ``verify_*`` on anything wrong; ``InvalidSpec`` when a proof is asked for that
           cannot exist.
Not here:  storage (``log``), signatures (``checkpoint``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sandbox.errors import IntegrityFailed, InvalidSpec

Hash = Callable[[bytes], bytes]
Read = Callable[[int, int], bytes]


def leaf_hash(leaf: bytes, h: Hash) -> bytes:
    """Return the digest of an entry."""
    return h(b"\x00" + leaf)


def node_hash(left: bytes, right: bytes, h: Hash) -> bytes:
    """Return the digest of an inner node."""
    return h(b"\x01" + left + right)


def _split(size: int) -> int:
    """Return the largest power of two below ``size``, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


# --- reference form: the text of RFC 6962 --------------------------------------------------------------------------


def root(leaves: Sequence[bytes], h: Hash) -> bytes:
    """Return the Merkle tree hash of ``leaves``."""
    if not leaves:
        return h(b"")
    if len(leaves) == 1:
        return leaf_hash(leaves[0], h)
    k = _split(len(leaves))
    return node_hash(root(leaves[:k], h), root(leaves[k:], h), h)


def path(index: int, leaves: Sequence[bytes], h: Hash) -> list[bytes]:
    """Return the proof that entry ``index`` is in the tree of ``leaves``."""
    _need_entry(index, len(leaves))
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*path(index, leaves[:k], h), root(leaves[k:], h)]
    return [*path(index - k, leaves[k:], h), root(leaves[:k], h)]


def consistency(old_size: int, leaves: Sequence[bytes], h: Hash) -> list[bytes]:
    """Return the proof that the first ``old_size`` entries are a prefix of ``leaves``."""
    _need_sizes(old_size, len(leaves))
    return [] if old_size == 0 else _subproof(old_size, leaves, True, h)


def _subproof(old: int, leaves: Sequence[bytes], known: bool, h: Hash) -> list[bytes]:
    # ``known``: the verifier has this subtree's hash already, because it is the old root itself.
    if old == len(leaves):
        return [] if known else [root(leaves, h)]
    k = _split(len(leaves))
    if old <= k:
        return [*_subproof(old, leaves[:k], known, h), root(leaves[k:], h)]
    return [*_subproof(old - k, leaves[k:], False, h), root(leaves[:k], h)]


# --- efficient form: complete subtrees are stored, everything else follows from O(log n) of them ---------------------


def new_nodes(size: int, leaf_digest: bytes, read: Read, h: Hash) -> list[tuple[int, int, bytes]]:
    """Return (level, index, digest) of every subtree that entry number ``size`` completes."""
    level, index, digest = 0, size, leaf_digest
    nodes = [(level, index, digest)]
    while index & 1:
        digest = node_hash(read(level, index - 1), digest, h)
        level, index = level + 1, index >> 1
        nodes.append((level, index, digest))
    return nodes


def root_at(size: int, read: Read, h: Hash) -> bytes:
    """Return the root of the first ``size`` entries."""
    return h(b"") if size == 0 else _range_hash(0, size, read, h)


def inclusion_path(index: int, size: int, read: Read, h: Hash) -> list[bytes]:
    """Return the proof that entry ``index`` is in the tree of the first ``size`` entries."""
    _need_entry(index, size)
    begin, end, proof = 0, size, list[bytes]()
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(_range_hash(middle, end, read, h))
            end = middle
        else:
            proof.append(_range_hash(begin, middle, read, h))
            begin = middle
    return proof[::-1]


def consistency_path(old: int, new: int, read: Read, h: Hash) -> list[bytes]:
    """Return the proof that the tree of ``old`` entries is a prefix of the tree of ``new`` entries."""
    _need_sizes(old, new)
    if old in (0, new):
        return []
    begin, end, proof = 0, new, list[bytes]()
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            proof.append(_range_hash(middle, end, read, h))
            end = middle
        else:
            proof.append(_range_hash(begin, middle, read, h))
            begin = middle
    if begin:  # otherwise the subtree that ends at ``old`` is the whole old tree, whose root the verifier holds
        proof.append(_range_hash(begin, end, read, h))
    return proof[::-1]


def _range_hash(begin: int, end: int, read: Read, h: Hash) -> bytes:
    """Return the hash of entries ``begin`` to ``end``, where ``begin`` starts a subtree of that size."""
    parts = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        parts.append(read(level, begin >> level))
        begin += 1 << level
    digest = parts.pop()
    while parts:
        digest = node_hash(parts.pop(), digest, h)
    return digest


def _need_entry(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise InvalidSpec(f"merkle: no entry {index} in a tree of {size}")


def _need_sizes(old: int, new: int) -> None:
    if not 0 <= old <= new:
        raise InvalidSpec(f"merkle: {old} entries are no prefix of {new}")


# --- verification ----------------------------------------------------------------------------------------------------


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes, h: Hash) -> None:
    """Check that ``leaf`` is entry ``index`` of the tree of ``size`` entries.

    Raises:
        IntegrityFailed: it is not, or the proof has the wrong shape.
    """
    if not 0 <= index < size:
        raise IntegrityFailed(f"inclusion: no entry {index} in a tree of {size}")
    digest = leaf_hash(leaf, h)
    _need_digests([*proof, expected_root], len(digest), "inclusion")
    here, last = index, size - 1  # position of the digest in its level, and of that level's last node
    for sibling in proof:
        if last == 0:
            raise IntegrityFailed("inclusion: the proof is too long")
        if here & 1 or here == last:
            digest = node_hash(sibling, digest, h)
            while not here & 1:  # a last node without right sibling moves up unchanged
                here, last = here >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling, h)
        here, last = here >> 1, last >> 1
    if last != 0:
        raise IntegrityFailed("inclusion: the proof is too short")
    if digest != expected_root:
        raise IntegrityFailed(f"inclusion: entry {index} is not under the root of size {size}")


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes], h: Hash
) -> None:
    """Check that the tree of ``old_size`` entries is a prefix of the tree of ``new_size`` entries.

    Raises:
        IntegrityFailed: it is not, or the proof has the wrong shape.
    """
    if not 0 <= old_size <= new_size:
        raise IntegrityFailed(f"consistency: {old_size} entries are no prefix of {new_size}")
    empty = h(b"")
    _need_digests([*proof, old_root, new_root], len(empty), "consistency")
    if (old_size == 0 and old_root != empty) or (new_size == 0 and new_root != empty):
        raise IntegrityFailed("consistency: a tree of no entries has a root that is not the empty one")
    if old_size in (0, new_size):
        if proof:
            raise IntegrityFailed("consistency: the proof is too long")
        if old_size and old_root != new_root:
            raise IntegrityFailed(f"consistency: two roots for size {old_size}")
        return
    _verify_growth(old_size, new_size, old_root, new_root, proof, h)


def _verify_growth(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes], h: Hash
) -> None:
    here, last = old_size - 1, new_size - 1
    while here & 1:  # climb to the largest complete subtree that ends the old tree
        here, last = here >> 1, last >> 1
    rest = list(proof)
    if here:
        if not rest:
            raise IntegrityFailed("consistency: the proof is too short")
        start = rest.pop(0)
    else:  # the old tree is itself complete: its root is where both climbs start
        start = old_root
    old, new = start, start
    for sibling in rest:
        if last == 0:
            raise IntegrityFailed("consistency: the proof is too long")
        if here & 1 or here == last:
            old, new = node_hash(sibling, old, h), node_hash(sibling, new, h)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            new = node_hash(new, sibling, h)
        here, last = here >> 1, last >> 1
    if last != 0:
        raise IntegrityFailed("consistency: the proof is too short")
    if old != old_root or new != new_root:
        raise IntegrityFailed(f"consistency: size {new_size} does not extend size {old_size}")


def _need_digests(digests: Sequence[bytes], length: int, what: str) -> None:
    if any(len(digest) != length for digest in digests):
        raise IntegrityFailed(f"{what}: a digest of the wrong length")
