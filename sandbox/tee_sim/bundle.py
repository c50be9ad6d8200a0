"""A merchant's model as one file: packed the same on every machine, measured, signed, and opened with suspicion.

    directory --pack--> bundle (a tar archive) --measure--> 32 bytes that approvals name
                        bundle --parse--> Bundle --unpack--> a directory for the jail

Shapes:    the archive is POSIX ustar (IEEE Std 1003.1-1988) without compression: ``bundle.json``, the manifest in its
           canonical form, then every other file in the order of its name's bytes. Modes, owners and times are fixed, so
           ``tar -tvf`` reads it and nothing but names and contents counts. Names are ASCII. Hidden files, and what
           Python leaves behind (``__pycache__``, ``*.pyc``), are not packed.
Security:  an archive is accepted only if it is, byte for byte, what ``pack`` would have made of its contents: every
           header is compared with the one we would write. There is no second spelling of anything, nothing to expand
           and nothing to follow. The signature is over the measurement, the name and a time.
Errors:    ``InvalidSpec`` for a directory or an archive that is not one of ours; ``Unauthenticated`` for a signature
           that does not verify or is over another bundle.
Not here:  what the manifest means (``manifest``), who may run what (policy).
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.crypto.envelope import sign_payload, verify_payload
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import tagged
from sandbox.errors import IntegrityFailed, InvalidSpec, Unauthenticated
from sandbox.model import Signed
from sandbox.tee_sim import manifest as manifests
from sandbox.tee_sim.manifest import Form, Manifest

MOST_BYTES: Final = 128 << 20  # of one bundle
MOST_FILES: Final = 512
MOST_DEPTH: Final = 8
MANIFEST: Final = "bundle.toml"
_CANONICAL: Final = "bundle.json"
_RESERVED: Final = frozenset({_CANONICAL, "program.json"})  # the jail's runner reads the second
_MANIFEST_BYTES: Final = 65536
_STATEMENT_BYTES: Final = 65536
_BLOCK: Final = 512
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_NAME_BYTES: Final = 99  # so that ustar's second name field stays empty
_SIGNED_AS: Final = "bundle-statement"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's contents. Only ``parse`` makes one."""

    manifest: Manifest
    files: Mapping[str, bytes]
    measurement: bytes


@dataclass(frozen=True, slots=True)
class BundleStatement:
    """What a merchant signs: this bundle, by its measurement, is mine."""

    measurement: bytes
    name: str
    time_ms: int


def pack(directory: Path) -> bytes:
    """Return the archive of a directory that holds a ``bundle.toml``.

    Raises:
        InvalidSpec: the manifest is wrong, or a file is a link, too large, too many, or of a name we do not take.
    """
    files: dict[str, bytes] = {}
    try:
        for name, content in _walk(directory, directory, 1):
            files[name] = content
            if len(files) > MOST_FILES + 1 or sum(map(len, files.values())) > MOST_BYTES:
                raise InvalidSpec(tell=f"a bundle has at most {MOST_FILES} files and {MOST_BYTES >> 20} MiB")
    except OSError:
        raise InvalidSpec(tell=f"{directory} is no directory that can be read") from None
    text = files.pop(MANIFEST, None)
    if text is None:
        raise InvalidSpec(tell=f"{directory} has no {MANIFEST}", hint="see docs/models.md")
    try:
        document = tomllib.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # their messages quote the text
        raise InvalidSpec(tell=f"{MANIFEST} is not TOML in UTF-8") from None
    return _archive(manifests.read(document, MANIFEST), files)


def measure(bundle: bytes) -> bytes:
    """Return the measurement of an archive: SM3 over its bytes with their type in front."""
    return tagged("bundle", bundle)


def parse(bundle: bytes) -> Bundle:
    """Return the contents of an archive that ``pack`` made.

    Raises:
        InvalidSpec: it is anything else.
    """
    if len(bundle) > MOST_BYTES:
        raise InvalidSpec(tell=f"a bundle has at most {MOST_BYTES >> 20} MiB")
    files: dict[str, bytes] = {}
    position = 0
    while bundle[position : position + 1] not in (b"\0", b""):
        name, size = _read_header(bundle[position : position + _BLOCK])
        if name in files or len(files) > MOST_FILES:
            raise InvalidSpec(tell="a bundle has a file twice, or too many files")
        start = position + _BLOCK
        files[name] = bundle[start : start + size]
        position = start + _padded(size)
    text = files.pop(_CANONICAL, b"")
    if not 0 < len(text) <= _MANIFEST_BYTES:
        raise InvalidSpec(tell=f"a bundle begins with its {_CANONICAL}, of at most {_MANIFEST_BYTES} bytes")
    try:
        document = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError):
        raise InvalidSpec(tell=f"a bundle's {_CANONICAL} is not JSON in ASCII") from None
    manifest = manifests.read(document, _CANONICAL)
    if _archive(manifest, files) != bundle:
        raise InvalidSpec(tell="a bundle is not in the one form that packing gives it; pack it again")
    return Bundle(manifest, files, measure(bundle))


def unpack(bundle: Bundle, into: Path) -> None:
    """Write a bundle's files, without the manifest, into an empty directory of the caller's."""
    for name, content in bundle.files.items():
        path = into / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as file:
            file.write(content)


def sign_bundle(key: PrivateKey, bundle: bytes, time_ms: int) -> Signed:
    """Return the merchant's statement about an archive, signed."""
    payload = _statement_bytes(BundleStatement(measure(bundle), parse(bundle).manifest.name, time_ms))
    return Signed(payload, key.public.key_id, sign_payload(key, _SIGNED_AS, payload))


def verify_bundle(key: PublicKey, signed: Signed, bundle: bytes) -> BundleStatement:
    """Return the statement that ``key`` signed about exactly this archive.

    Raises:
        Unauthenticated: the signature is another's, or over something else.
        InvalidSpec: what was signed is no statement.
    """
    try:
        verify_payload(key, _SIGNED_AS, signed.payload, signed.signature)
    except IntegrityFailed:
        raise Unauthenticated(f"the signature over a bundle by {signed.key_id} does not verify") from None
    try:
        found = json.loads(signed.payload.decode("ascii"))
        statement = BundleStatement(bytes.fromhex(found["measurement"]), str(found["name"]), int(found["time_ms"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidSpec(tell="this is not a statement about a bundle") from None
    if _statement_bytes(statement) != signed.payload:
        raise InvalidSpec(tell="a statement about a bundle is not in its one form")
    if signed.key_id != key.key_id or statement.measurement != measure(bundle):
        raise Unauthenticated("a bundle comes with a statement about another one, or in another's name")
    return statement


def _statement_bytes(statement: BundleStatement) -> bytes:
    document = {"measurement": statement.measurement.hex(), "name": statement.name, "time_ms": statement.time_ms}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def _walk(top: Path, directory: Path, depth: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the files below a directory; links and devices are refused, not followed."""
    if depth > MOST_DEPTH:
        raise InvalidSpec(tell=f"{directory}: directories of a bundle are at most {MOST_DEPTH} deep")
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__pycache__" or entry.name.endswith(".pyc"):
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(top, path, depth + 1)
            else:
                yield path.relative_to(top).as_posix(), _read(path)


def _read(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise InvalidSpec(tell=f"{path} cannot be read, or is a link; a bundle has plain files only") from None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise InvalidSpec(tell=f"{path} is not a plain file of at most {MOST_BYTES >> 20} MiB")
        return file.read(MOST_BYTES + 1)


def _archive(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """Return the one archive of these contents, having checked names, sizes, and that the manifest fits them."""
    if len(files) > MOST_FILES:
        raise InvalidSpec(tell=f"a bundle has at most {MOST_FILES} files")
    spelled: dict[str, str] = {}
    for name in files:
        _check_name(name)
        above = [str(parent) for parent in Path(name).parents]
        # Names that differ in case only, or that are a file's and a directory's, do not unpack the same everywhere.
        if any(spelled.setdefault(path.casefold(), path) != path for path in (name, *above)) or files.keys() & above:
            raise InvalidSpec(tell=f"{name} differs from another name in case only, or stands below a file")
        if name in _RESERVED:
            raise InvalidSpec(tell=f"{name} is a name that the sandbox itself uses in a bundle")
    if manifest.entry not in files:
        raise InvalidSpec(tell="the manifest's entry is no file of the bundle")
    if manifest.form is Form.SQL and not _is_text(files[manifest.entry]):
        raise InvalidSpec(tell="a bundle's statement is a text in UTF-8 of at most 64 KiB")
    parts: list[bytes] = []
    for name, content in [(_CANONICAL, manifests.canonical(manifest)), *sorted(files.items())]:
        parts += [_header(name, len(content)), content, bytes(_padded(len(content)) - len(content))]
    archive = b"".join([*parts, bytes(2 * _BLOCK)])
    if len(archive) > MOST_BYTES:
        raise InvalidSpec(tell=f"a bundle has at most {MOST_BYTES >> 20} MiB")
    return archive


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return len(content) <= _STATEMENT_BYTES


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _NAME_BYTES or name.count("/") >= MOST_DEPTH:
        raise InvalidSpec(
            tell=f"a file's name in a bundle is 1 to {_NAME_BYTES} characters of a-z A-Z 0-9 _ . - and /, "
            "and no part of it begins with a dot or a hyphen"
        )


def _header(name: str, size: int) -> bytes:
    """Return the block before a file's contents."""
    fields = [
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,  # mode, user, group
        b"%011o\0" % size,
        b"00000000000\0",  # time
        b" " * 8,  # the sum, while it is taken
        b"0" + bytes(100),  # a plain file, no link
        b"ustar\x0000" + bytes(64 + 16 + 155 + 12),  # no names of owners, no device, no second name
    ]
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _read_header(block: bytes) -> tuple[str, int]:
    """Return name and size that a header states, if it is exactly the header that we would write for them."""
    name, digits = block[:100].rstrip(b"\0"), block[124:135]
    if len(block) < _BLOCK or block[257:263] != b"ustar\0" or not re.fullmatch(rb"[0-7]{11}", digits):
        raise InvalidSpec(tell="this is not a bundle: bundles are ustar archives without compression")
    if block[156:157] != b"0":
        raise InvalidSpec(tell="a bundle has plain files only: no links, devices or extensions")
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if text != _CANONICAL:
        _check_name(text)
    size = int(digits, 8)
    if size > MOST_BYTES or block != _header(text, size):
        raise InvalidSpec(tell="a bundle's file has a mode, an owner, a time or a sum that packing does not give it")
    return text, size


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
