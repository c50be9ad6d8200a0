"""Check a receipt of the data sandbox without the data sandbox.

    python verify_receipt.py RECEIPT TRUST [REQUIRED]

Needs Python 3.9 or newer and the ``openssl`` program, 3.0 or newer; imports nothing else. Copy this one file.

TRUST is a text file that you wrote from sources you trust, one key a line (empty lines and lines with # are skipped):

    origin ops.example/audit+1a2b3c4d+/1NNMi1TTTM...        whose log it is: exactly one
    witness regulator.example/audit+5e6f7a8b+/1NNMi1TTTM... who may co-sign: at least REQUIRED of them must have, 1 if
                                                            not given; the origin itself never counts

What is checked, in this order:
  1. the receipt has exactly the expected form (described in receipt.py, beside this file);
  2. the entry's SM3 digest, hashed together with the path, gives the root of the checkpoint (RFC 6962);
  3. the origin's SM2 signature over the checkpoint;
  4. every co-signature of a listed witness, over "cosignature/v1", its time, and the same checkpoint.
Exit code 0: all of it holds. Exit code 1: something does not, or could not be checked; the reason is printed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import tempfile

LIMIT = 2**63  # indexes, sizes and times stay below
MAX_RECEIPT = 147456  # bytes
Key = tuple[bytes, bytes]  # name, 65-byte public key
NAME = rb"[!-*,-~]{1,200}"  # visible ASCII without plus
RECEIPT = re.compile(
    rb"c2sp\.org/tlog-proof@v1\nextra ([A-Za-z0-9+/]+={0,2})\nindex (0|[1-9][0-9]{0,18})\n"
    rb"((?:[A-Za-z0-9+/]{43}=\n){0,63})\n"
    rb"((" + NAME + rb")\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n)\n(.+\n)",
    re.DOTALL,
)
SIGNATURE = re.compile("\u2014 ".encode() + rb"(" + NAME + rb") ([A-Za-z0-9+/]{8,400}={0,2})\n")
VERIFIER = re.compile(rb"(" + NAME + rb")\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")
CHECKPOINT = b"\xffSM2-SM3"
COSIGNATURE = b"\xffSM2-SM3/cosignature-v1"
SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")  # DER of "a public key on the SM2 curve"


class Refused(Exception):
    """The receipt does not prove what it should."""


def need(condition: bool, reason: str) -> None:
    """Go on only if ``condition`` holds."""
    if not condition:
        raise Refused(reason)


def matched(pattern: re.Pattern[bytes], text: bytes, reason: str) -> re.Match[bytes]:
    """Return the match of the whole text."""
    match = pattern.fullmatch(text)
    if match is None:
        raise Refused(reason)
    return match


def unbase64(text: bytes) -> bytes:
    """Decode, accepting only the one canonical form."""
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data) == text, "base64 is not canonical")
    return data


def sm3(data: bytes) -> bytes:
    """Hash with Python's own OpenSSL, or else with the openssl program."""
    if "sm3" in hashlib.algorithms_available:
        return hashlib.new("sm3", data).digest()
    return subprocess.run(["openssl", "dgst", "-sm3", "-binary"], input=data, stdout=subprocess.PIPE, check=True).stdout


def sm2_verifies(key: bytes, message: bytes, signature: bytes) -> bool:
    """Run ``openssl pkeyutl -verify``: the same command can be typed by hand."""
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(SPKI + key) + b"-----END PUBLIC KEY-----\n"
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, data in (("key", pem), ("message", message), ("signature", signature)):
            paths[name] = os.path.join(folder, name)
            with open(paths[name], "wb") as file:
                file.write(data)
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", paths["key"], "-rawin", "-digest", "sm3"]
        command += ["-in", paths["message"], "-sigfile", paths["signature"], "-pkeyopt", "distid:1234567812345678"]
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def key_id(name: bytes, kind: bytes, key: bytes) -> bytes:
    """Compute the four bytes that name a key in a signature line."""
    return hashlib.sha256(name + b"\n" + kind + key).digest()[:4]


def read_trust(text: str) -> tuple[Key, list[Key]]:
    """Return the origin and the witnesses."""
    keys: dict[str, list[Key]] = {"origin": [], "witness": []}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            role, _, verifier = line.strip().partition(" ")
            need(role in keys, "trust file: a line begins neither with origin nor with witness")
            match = matched(VERIFIER, verifier.strip().encode(), "trust file: a key is not name+id+key")
            material = unbase64(match[3])
            key = material[len(CHECKPOINT) :]
            need(material.startswith(CHECKPOINT) and len(key) == 65, "trust file: a key is not of type SM2-SM3")
            need(key_id(match[1], CHECKPOINT, key).hex() == match[2].decode(), "trust file: a key has a wrong id")
            keys[role].append((match[1], key))
    need(len(keys["origin"]) == 1, "trust file: exactly one origin is needed")
    return keys["origin"][0], keys["witness"]


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Hash the entry together with its path, up to the root of the tree of ``size`` entries (RFC 9162, 2.1.3.2)."""
    need(index < size, "the index lies outside the log")
    digest, here, last = sm3(b"\x00" + leaf), index, size - 1
    for sibling in path:
        need(last > 0, "the inclusion path is too long")
        if here % 2 == 1 or here == last:
            digest = sm3(b"\x01" + sibling + digest)
            while here % 2 == 0:
                here, last = here // 2, last // 2
        else:
            digest = sm3(b"\x01" + digest + sibling)
        here, last = here // 2, last // 2
    need(last == 0, "the inclusion path is too short")
    return digest


def signatures_of(lines: list[re.Match[bytes]], name: bytes, wanted_id: bytes) -> list[bytes]:
    """Return what follows the key id on the lines of one key."""
    blobs = [unbase64(match[2]) for match in lines if match[1] == name]
    return [blob[4:] for blob in blobs if blob[:4] == wanted_id]


def check(receipt: bytes, trust: str, required: int) -> list[str]:
    """Return what was found to hold, as printable lines, or raise ``Refused``."""
    (origin, origin_key), witnesses = read_trust(trust)
    need(len(receipt) <= MAX_RECEIPT, "the receipt is too long")
    match = matched(RECEIPT, receipt, "the receipt is malformed")
    leaf, index, size = unbase64(match[1]), int(match[2]), int(match[6])
    body, root, path = match[4], unbase64(match[7]), [unbase64(line) for line in match[3].splitlines()]
    need(len(leaf) <= 65536 and index < LIMIT and size < LIMIT, "the receipt exceeds a limit")
    need(len(body) + 1 + len(match[8]) <= 16384, "the checkpoint is too long")
    lines = [matched(SIGNATURE, line, "a malformed signature line") for line in match[8].splitlines(keepends=True)]
    need(len(lines) <= 32, "too many signature lines")
    need(match[5] == origin, "the receipt is of another log than the trusted origin")
    need(root_of(leaf, index, size, path) == root, "the entry is not under the root of the checkpoint")

    signed = signatures_of(lines, origin, key_id(origin, CHECKPOINT, origin_key))
    need(len(signed) == 1, "not exactly one signature of the origin")
    need(sm2_verifies(origin_key, body, signed[0]), "the signature of the origin does not verify")
    found = [
        f"entry    {index} of {size} in {origin.decode()}, {len(leaf)} bytes, SM3 {sm3(leaf).hex()}",
        f"origin   {origin.decode()} signed the checkpoint",
    ]
    cosigners = set()
    for name, key in witnesses:
        if name == origin or key == origin_key:
            continue
        blobs = signatures_of(lines, name, key_id(name, COSIGNATURE, key))
        if blobs:
            time = int.from_bytes(blobs[0][:8], "big")
            need(len(blobs) == 1 and len(blobs[0]) > 8 and time < LIMIT, "a malformed co-signature")
            message = b"cosignature/v1\ntime %d\n" % time + body
            need(sm2_verifies(key, message, blobs[0][8:]), f"the co-signature of {name.decode()} does not verify")
            cosigners.add(key)
            found.append(f"witness  {name.decode()} co-signed at {time} (seconds since 1970)")
    need(len(cosigners) >= required, f"{len(cosigners)} co-signers, {required} required")
    return found


def main(arguments: list[str]) -> int:
    """Run the check and return the exit code."""
    try:
        need(len(arguments) in (2, 3), "usage: python verify_receipt.py RECEIPT TRUST [REQUIRED]")
        with open(arguments[0], "rb") as file:
            receipt = file.read(MAX_RECEIPT + 1)
        with open(arguments[1], encoding="ascii") as file:
            trust = file.read()
        print(*check(receipt, trust, int(arguments[2]) if len(arguments) == 3 else 1), sep="\n")
    except (Refused, OSError, ValueError, subprocess.CalledProcessError) as reason:
        print(f"REFUSED  {reason}")
        return 1
    print("VERIFIED")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
