"""Signed tree heads, and the co-signatures of those who checked them.

    ops.example/audit                                  origin: the log's name
    20852163                                           size: how many entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=       root: base64 of 32 bytes
                                                       an empty line ends the body
    — ops.example/audit Az3grlgtzPIC...                the origin's signature
    — regulator.example/audit jWbPPwAAAABkGFDL...      a co-signature

Source:    C2SP tlog-checkpoint v1, tlog-cosignature v1 and signed-note v1, with SM2 (GB/T 32918.2-2016, id
           1234567812345678, SM3) as a signature of type 0xFF.
Security:  SM2 signs exactly the body (all bytes up to the empty line, which is not part of it); a co-signature signs
           ``cosignature/v1\\ntime <n>\\n`` and then the body. No body begins like that, as its second line is a number.
           A head proves a single history only together with a co-signer who checked it (``witness``).
Shapes:    A signature line is ``— <name> <blob>\\n``, the blob in base64:
               checkpoint     key id (4) ‖ DER signature
               co-signature   key id (4) ‖ time in seconds since 1970, 8 bytes big-endian ‖ DER signature
           key id = SHA-256(name ‖ 0x0A ‖ material)[:4], SHA-256 being the notes' own rule for finding a key, not for
           trusting it. Public keys are 65 bytes, 04 ‖ x ‖ y. The material differs, so a line says which it is:
               checkpoint     0xFF ‖ "SM2-SM3" ‖ public key
               co-signature   0xFF ‖ "SM2-SM3/cosignature-v1" ‖ public key
           A verifier key is text: ``<name>+<key id, 8 lower-case hex digits>+<base64 of the material>``, with the
           checkpoint's id and material; one such text serves a node as origin and as co-signer.
           A name is 1 to 200 visible ASCII characters without plus; base64 is padded and canonical; numbers are
           decimal without leading zeros, below 2^63; a note has at most 32 signature lines and 16 KiB. Extension
           lines are refused: this product issues none, and nobody audits them. The key's name must be the origin.
Errors:    ``IntegrityFailed`` on any note or signature that does not verify; ``InvalidSpec`` on a verifier key that
           is malformed or a name that cannot be used.
Not here:  consistency with earlier heads (``witness``), inclusion of entries (``receipt``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.errors import IntegrityFailed, InvalidSpec

MAX_NOTE = 16_384  # bytes
MAX_SIGNATURES = 32  # lines
LIMIT = 1 << 63  # sizes, indexes and times stay below

_CHECKPOINT = b"\xffSM2-SM3"
_COSIGNATURE = b"\xffSM2-SM3/cosignature-v1"
_NAME = rb"[!-*,-~]{1,200}"
_BODY = re.compile(rb"(" + _NAME + rb")\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n")
_SIGNATURE = re.compile("— ".encode() + rb"(" + _NAME + rb") ([A-Za-z0-9+/]{8,400}={0,2})\n")
_VERIFIER = re.compile(rb"(" + _NAME + rb")\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a tree head says: the log ``origin`` has ``size`` entries under ``root``."""

    origin: str
    size: int
    root: bytes

    def body(self) -> bytes:
        """Return the bytes that are signed."""
        _need_name(self.origin)
        body = f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()
        if not _BODY.fullmatch(body) or self.size >= LIMIT or len(self.root) != 32:
            raise InvalidSpec("a checkpoint needs a size and a root of 32 bytes")
        return body


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A name and a public key whose signatures are believed."""

    name: str
    key: PublicKey

    def __post_init__(self) -> None:
        _need_name(self.name)

    @property
    def key_id(self) -> bytes:
        """The 4 bytes by which checkpoint signatures refer to this key."""
        return _key_id(self.name, _CHECKPOINT, self.key)

    @property
    def cosigner_id(self) -> bytes:
        """The 4 bytes by which co-signatures refer to this key."""
        return _key_id(self.name, _COSIGNATURE, self.key)

    def to_text(self) -> str:
        """Return the one-line form."""
        material = base64.b64encode(_CHECKPOINT + self.key.to_bytes()).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"

    @classmethod
    def from_text(cls, text: str) -> VerifierKey:
        """Read the one-line form.

        Raises:
            InvalidSpec: it is malformed, of another type, or its key id is not that of its key.
        """
        try:
            match = _VERIFIER.fullmatch(text.encode("ascii"))
        except UnicodeEncodeError as error:
            raise InvalidSpec("a verifier key is ASCII") from error
        if match is None:
            raise InvalidSpec("a verifier key is name+id+key")
        name, key_id, encoded = match.groups()
        try:
            material = decode_base64(encoded)
        except IntegrityFailed as error:
            raise InvalidSpec("a verifier key is not in canonical base64") from error
        if not material.startswith(_CHECKPOINT) or len(material) != len(_CHECKPOINT) + 65:
            raise InvalidSpec("a verifier key is not of type SM2-SM3")
        verifier = cls(name.decode(), PublicKey.from_bytes(material[len(_CHECKPOINT) :]))
        if verifier.key_id != bytes.fromhex(key_id.decode()):
            raise InvalidSpec("a verifier key has the id of another key")
        return verifier


def sign_checkpoint(checkpoint: Checkpoint, name: str, key: PrivateKey) -> bytes:
    """Return ``checkpoint`` as a signed note; ``name`` must be its origin."""
    if name != checkpoint.origin:
        raise InvalidSpec("a log signs its own checkpoints only")
    body = checkpoint.body()
    return body + b"\n" + _line(name, _key_id(name, _CHECKPOINT, key.public) + key.sign(body))


def parse_checkpoint(note: bytes) -> Checkpoint:
    """Return what a note *claims*: enough to look up whose key to check it with, no more."""
    body, _ = split_note(note)
    return _read_body(body)


def verify_checkpoint(note: bytes, verifier: VerifierKey) -> Checkpoint:
    """Return the tree head that ``verifier`` signed.

    Raises:
        IntegrityFailed: the note is malformed, of another origin, or not signed by this key exactly once.
    """
    body, lines = split_note(note)
    checkpoint = _read_body(body)
    if checkpoint.origin != verifier.name:
        raise IntegrityFailed("checkpoint: the note is of another origin than the key")
    verifier.key.verify(body, _only(_blobs(lines, verifier.name, verifier.key_id), "checkpoint"))
    return checkpoint


def cosign(note: bytes, name: str, key: PrivateKey, now: int) -> bytes:
    """Return one signature line: as of ``now``, this is the newest and only history seen of that log.

    Only ``witness.cosign_checked`` may make that statement; the caller of this function has checked that it is true.
    """
    body, _ = split_note(note)
    _read_body(body)
    _need_name(name)
    if not 0 <= now < LIMIT:
        raise InvalidSpec("a co-signature's time is in seconds since 1970")
    key_id = _key_id(name, _COSIGNATURE, key.public)
    return _line(name, key_id + now.to_bytes(8, "big") + key.sign(_cosigned(body, now)))


def has_cosignature(note: bytes, verifier: VerifierKey) -> bool:
    """Tell whether the note carries a line that claims to be a co-signature of ``verifier``; proves nothing."""
    return bool(_blobs(split_note(note)[1], verifier.name, verifier.cosigner_id))


def verify_cosignature(note: bytes, verifier: VerifierKey) -> int:
    """Return the time, in seconds since 1970, at which ``verifier`` co-signed the note.

    Raises:
        IntegrityFailed: the note is malformed, or not co-signed by this key exactly once.
    """
    body, lines = split_note(note)
    _read_body(body)
    blob = _only(_blobs(lines, verifier.name, verifier.cosigner_id), "co-signature")
    time = int.from_bytes(blob[:8], "big")
    if len(blob) <= 8 or time >= LIMIT:
        raise IntegrityFailed("co-signature: malformed")
    verifier.key.verify(_cosigned(body, time), blob[8:])
    return time


def split_note(note: bytes) -> tuple[bytes, list[bytes]]:
    """Return the body and the signature lines, each line whole, with its newline.

    Raises:
        IntegrityFailed: the note does not have the shape of one.
    """
    text, empty_line, tail = note.rpartition(b"\n\n")
    lines = tail.splitlines(keepends=True) if len(note) <= MAX_NOTE else []
    if not empty_line or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise IntegrityFailed("note: malformed, too long, or with no signature or too many")
    if not all(_SIGNATURE.fullmatch(line) for line in lines):
        raise IntegrityFailed("note: malformed signature line")
    return text + b"\n", lines


def decode_base64(text: bytes) -> bytes:
    """Return the bytes; one value has one text, so that nothing can be altered without notice.

    Raises:
        IntegrityFailed: it is not padded, canonical base64.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise IntegrityFailed("malformed base64") from error
    if base64.b64encode(data) != text:
        raise IntegrityFailed("base64 is not canonical")
    return data


def _read_body(body: bytes) -> Checkpoint:
    match = _BODY.fullmatch(body)
    if match is None or int(match[2]) >= LIMIT:
        raise IntegrityFailed("checkpoint: the body is not an origin, a size and a root")
    return Checkpoint(match[1].decode(), int(match[2]), decode_base64(match[3]))


def _blobs(lines: list[bytes], name: str, key_id: bytes) -> list[bytes]:
    """Return what follows the key id on every line that names this key; lines of unknown keys are ignored."""
    found = []
    for line in lines:
        match = _SIGNATURE.fullmatch(line)
        if match is not None and match[1] == name.encode():
            blob = decode_base64(match[2])
            if blob[:4] == key_id:
                found.append(blob[4:])
    return found


def _only(blobs: list[bytes], what: str) -> bytes:
    if len(blobs) != 1:
        raise IntegrityFailed(f"{what}: {len(blobs)} signatures of the expected key, not one")
    return blobs[0]


def _line(name: str, blob: bytes) -> bytes:
    return f"— {name} {base64.b64encode(blob).decode()}\n".encode()


def _cosigned(body: bytes, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n".encode() + body


def _key_id(name: str, kind: bytes, key: PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + kind + key.to_bytes()).digest()[:4]


def _need_name(name: str) -> None:
    if not re.fullmatch(_NAME.decode(), name):
        raise InvalidSpec("a signer's name is 1 to 200 visible ASCII characters without plus")
