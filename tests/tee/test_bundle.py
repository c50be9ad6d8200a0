"""Bundles: one archive for one content, one measurement, and nothing else accepted."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_builders import CODE, FILES, MANIFEST, archive, contents, entry, write_files
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm3 import domain
from sandbox.errors import InvalidSpec, Unauthenticated
from sandbox.model import Signed
from sandbox.tee_sim import bundle as bundles
from sandbox.tee_sim.bundle import measure, pack, parse, sign_bundle, unpack, verify_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return pack(write_files(tmp_path_factory.mktemp("packed")))


def canonical(packed: bytes) -> bytes:
    return contents(packed)[0][1]


# --- the same everywhere


def test_the_archive_is_what_another_program_makes_of_the_contents(packed: bytes) -> None:
    document = {
        "name": "small",
        "form": "python",
        "entry": "model.py",
        "libraries": ["numpy", "pyarrow"],
        "inputs": {"people": ["id", "income"]},
        "params": {"factor": "number"},
        "outputs": {
            "scores": {
                "class": "row",
                "rows": 100,
                "of": "people",
                "key": ["id"],
                "columns": [
                    {"name": "id", "type": "string"},
                    {"name": "score", "type": "number", "places": 1, "low": 0.0, "high": 1000.0},
                ],
            },
            "totals": {
                "class": "aggregate",
                "rows": 3,
                "columns": [
                    {"name": "band", "type": "string", "values": ["high", "low"]},
                    {"name": "people", "type": "integer"},
                    {"name": "mean", "type": "number", "places": 2, "optional": True},
                    {"name": "full", "type": "boolean", "optional": True},
                    {"name": "day", "type": "date", "optional": True},
                ],
            },
        },
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    files = [("bundle.json", text), ("data/weights.csv", b"a,1\n"), ("model.py", CODE.encode())]
    assert packed == archive(entry(name, content) for name, content in files)


def test_the_measurement_is_the_digest_that_openssl_takes(packed: bytes) -> None:
    done = subprocess.run(
        ["openssl", "dgst", "-sm3", "-r"], input=domain("bundle") + packed, capture_output=True, check=True
    )
    assert done.stdout.split()[0].decode() == measure(packed).hex()
    # Known since the first version: a change here means that every approval of a bundle is void.
    assert measure(packed).hex() == "ce998ce03d878a79ad9481ef84bf99106d4c086fa7f05f7bb43deaeb519bc390"


def test_tar_lists_it(packed: bytes) -> None:
    done = subprocess.run(["tar", "-tvf", "-"], input=packed, capture_output=True, check=True, env={"TZ": "UTC"})
    lines = done.stdout.decode().splitlines()
    assert [line.split()[-1] for line in lines] == ["bundle.json", "data/weights.csv", "model.py"]
    assert all(line.startswith("-rw-r--r-- 0/0") and "1970-01-01 00:00" in line for line in lines)


@settings(max_examples=20, deadline=None)
@given(st.permutations(sorted(FILES)), st.integers(0, 2**31 - 1), st.sampled_from([0o000, 0o022, 0o077]))
def test_neither_sequence_nor_times_nor_modes_count(
    tmp_path_factory: pytest.TempPathFactory, packed: bytes, names: list[str], time: int, umask: int
) -> None:
    before = os.umask(umask)
    try:
        directory = write_files(tmp_path_factory.mktemp("again"), {name: FILES[name] for name in names})
        for path in directory.rglob("*"):
            os.utime(path, (time, time))
        (directory / "model.py").chmod(0o755)
        assert pack(directory) == packed
    finally:
        os.umask(before)


def test_another_process_with_another_environment_gives_the_same(tmp_path: Path, packed: bytes) -> None:
    directory, elsewhere = write_files(tmp_path / "bundle"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import sys; from sandbox.tee_sim.bundle import *; print(measure(pack(Path(sys.argv[1]))).hex())"
    environment = {"TMPDIR": str(elsewhere), "PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Shanghai"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.stdout.strip() == measure(packed).hex(), done.stderr
    assert not list(elsewhere.iterdir())


def test_remarks_and_layout_of_the_manifest_do_not_count(tmp_path: Path, packed: bytes) -> None:
    text = "# a remark\n" + MANIFEST.replace("low = 0,", "low = 0.0,").replace('"low", "high"', '"high", "low"')
    assert pack(write_files(tmp_path, {**FILES, "bundle.toml": text.encode()})) == packed


def test_what_python_and_editors_leave_behind_is_not_packed(tmp_path: Path, packed: bytes) -> None:
    rubbish = {"__pycache__/model.cpython-311.pyc": b"x", "old.pyc": b"x", ".git/HEAD": b"x", ".env": b"SECRET=1"}
    assert pack(write_files(tmp_path, {**FILES, **rubbish})) == packed


def test_a_changed_byte_changes_the_measurement(tmp_path: Path, packed: bytes) -> None:
    changed = pack(write_files(tmp_path, {**FILES, "data/weights.csv": b"a,2\n"}))
    assert measure(changed) != measure(packed)


def test_unpacked_files_are_those_that_were_packed(tmp_path: Path, packed: bytes) -> None:
    found = parse(packed)
    unpack(found, tmp_path)
    files = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {name: content for name, content in FILES.items() if name != "bundle.toml"}
    assert found.measurement == measure(packed)


def test_the_examples_can_be_packed() -> None:
    for name in ("score", "train"):
        assert parse(pack(ROOT / "jobs" / "own_model" / name)).manifest.entry == "model.py"


# --- directories that are refused


def refused(directory: Path, why: str) -> None:
    with pytest.raises(InvalidSpec, match=why):
        pack(directory)


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    kinds: list[Callable[[Path], None]] = [
        lambda path: path.symlink_to(secret),
        lambda path: path.symlink_to(tmp_path, target_is_directory=True),
        lambda path: path.symlink_to("nowhere"),
        os.mkfifo,
    ]
    for number, make in enumerate(kinds):
        directory = write_files(tmp_path / f"bundle{number}")
        make(directory / "extra")
        refused(directory, "link|plain file")


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"model.py": None}, "entry is no file"),
        ({"bundle.toml": None}, r"has no bundle\.toml"),
        ({"bundle.toml": b"name = "}, "is not TOML"),
        ({"bundle.toml": b"\xff\xfe"}, "is not TOML"),
        ({"bundle.toml": b"a = " + b"[" * 30_000}, "is not TOML"),
        ({"bundle.json": b"{}"}, "the sandbox itself uses"),
        ({"program.json": b"{}"}, "the sandbox itself uses"),
        ({"Model.py": b""}, "in case only"),
        ({"Data/other.csv": b""}, "in case only"),
        ({"模型.py": b""}, "name in a bundle"),
        ({"a b.py": b""}, "name in a bundle"),
        ({"-rf": b""}, "name in a bundle"),
        ({"x" * 100: b""}, "name in a bundle"),
        ({"a/b/c/d/e/f/g/h/i": b""}, "deep"),
        ({f"f{n}": b"" for n in range(bundles.MOST_FILES + 1)}, "files"),
    ],
    ids=lambda value: None if isinstance(value, str) else "+".join(sorted(value))[:40],
)
def test_directories_that_are_refused(tmp_path: Path, files: dict[str, bytes | None], why: str) -> None:
    given = {name: content for name, content in {**FILES, **files}.items() if content is not None}
    refused(write_files(tmp_path / "bundle", given), why)


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bytes) -> None:
    directory = write_files(tmp_path / "bundle", {**FILES, "big": bytes(4096)})
    monkeypatch.setattr(bundles, "MOST_BYTES", 4095)
    refused(directory, "at most")
    with pytest.raises(InvalidSpec, match="at most"):
        parse(packed)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no directory")


# --- manifests that are refused


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('form = "python"', 'form = "java"', "form is not one of"),
        ('form = "python"', 'form = "sql"', "entry is a file whose name ends in .sql"),
        ('form = "python"', 'form = "onnx"', "onnx is missing"),
        ('form = "python"', 'form = "python"\nspeed = 3', "'speed'"),
        ('form = "python"', "form = 3", "form is of another type"),
        ('name = "small"', 'name = "../small"', "name is not"),
        ('name = "small"', 'name = "Small"', "name is not"),
        ('"numpy"', '"torch"', "'torch' is not one of"),
        ('"numpy"', '"numpy", "numpy"', "twice"),
        ("people = [", "People = [", "a-z 0-9 _"),
        ('["id", "income"]', "[]", "columns, each once"),
        ('["id", "income"]', '["id", "id"]', "twice"),
        ('["id", "income"]', '["id", "in\\ncome"]', "printable"),
        ('["id", "income"]', '"id"', "another type"),
        ('factor = "number"', 'factor = "date"', "a parameter is one of"),
        ('class = "row"', 'class = "file"', "class is not one of"),
        ('class = "row"', 'class = "aggregate"', "class row, have a key"),
        ("rows = 100", "rows = 0", "rows is the most"),
        ("rows = 100", "rows = true", "another type"),
        ("rows = 100", "", "rows is missing"),
        ('of = "people"', 'of = "others"', "of names no input"),
        ('of = "people"', "", "belong together"),
        ('key = ["id"]', 'key = ["name"]', "a column of the key"),
        ('key = ["id"]', 'key = ["score"]', "a column of the key"),
        ('{ name = "id", type = "string" }', '{ name = "id", type = "string", optional = true }', "never missing"),
        ('type = "number", places = 1', 'type = "float"', "type is not one of"),
        ('type = "number", places = 1', 'type = "number"', "places is missing"),
        ('type = "number", places = 1', 'type = "number", places = 10', "places is 0 to"),
        ("low = 0, high = 1000", "low = 2, high = 1", "low is above high"),
        ("low = 0, high = 1000", "low = nan", "out of range"),
        ("low = 0, high = 1000", "high = inf", "out of range"),
        ("low = 0, high = 1000", f"high = {10**400}", "out of range"),
        ('type = "integer"', 'type = "integer", low = 0.5', "low is of another type"),
        ('type = "integer"', 'type = "integer", places = 2', "'places'"),
        (', values = ["low", "high"]', "", "needs values"),
        ('["low", "high"]', '["low", " high"]', "no blanks around"),
        ('{ name = "people", type = "integer" }', '{ name = "band", type = "integer" }', "each once"),
        ("[outputs.totals]", "[outputs.totals.extra]", "columns is missing"),
    ],
)
def test_manifests_that_are_refused(tmp_path: Path, old: str, new: str, why: str) -> None:
    assert MANIFEST.count(old) >= 1
    text = MANIFEST.replace(old, new, 1)
    refused(write_files(tmp_path, {**FILES, "bundle.toml": text.encode()}), why)


ONNX = """
name = "graph"
form = "onnx"
entry = "model.onnx"

[inputs]
people = ["id", "income", "age"]

[onnx]
input = "people"
features = ["income", "age"]
outputs = { score = ["probabilities", 1], label = "label" }
keep = ["id"]

[outputs.result]
class = "row"
rows = 10
of = "people"
key = ["id"]
columns = [{ name = "id", type = "string" }, { name = "score", type = "number", places = 3 },
  { name = "label", type = "integer" }]
"""
SQL = """
name = "statement"
form = "sql"
entry = "query.sql"

[inputs]
people = ["band"]

[outputs.result]
class = "aggregate"
rows = 2
columns = [{ name = "band", type = "integer" }, { name = "people", type = "integer" }]
"""


def test_graphs_and_statements_are_packed_too(tmp_path: Path) -> None:
    graph = parse(pack(write_files(tmp_path / "a", {"bundle.toml": ONNX.encode(), "model.onnx": b"\x08\x07"})))
    assert graph.manifest.mapping is not None
    assert graph.manifest.mapping.outputs == {"score": ("probabilities", 1), "label": "label"}
    files = {"bundle.toml": SQL.encode(), "query.sql": b"SELECT band, count(*) AS people FROM people GROUP BY band"}
    assert parse(pack(write_files(tmp_path / "b", files))).manifest.form == "sql"


@pytest.mark.parametrize(
    ("text", "old", "new", "why"),
    [
        (ONNX, 'input = "people"', 'input = "others"', "onnx names an input"),
        (ONNX, '["income", "age"]\n', '["income", "weight"]\n', "onnx names an input"),
        (ONNX, '["probabilities", 1]', "3", "output of the graph"),
        (ONNX, '["probabilities", 1]', '["probabilities", -1]', "output of the graph"),
        (ONNX, '["probabilities", 1]', '["probabilities", true]', "output of the graph"),
        (ONNX, '["probabilities", 1]', "[3, 1]", "list of at most"),
        (ONNX, ', label = "label"', "", "not those that onnx"),
        (ONNX, "[outputs.result]", "[outputs.other]", "called result"),
        (SQL, "[outputs.result]", "[outputs.other]", "called result"),
    ],
)
def test_graphs_and_statements_that_are_refused(tmp_path: Path, text: str, old: str, new: str, why: str) -> None:
    assert old in text
    files = {"bundle.toml": text.replace(old, new).encode(), "model.onnx": b"", "query.sql": b"SELECT 1"}
    refused(write_files(tmp_path, files), why)


def test_a_statement_is_text(tmp_path: Path) -> None:
    refused(write_files(tmp_path / "a", {"bundle.toml": SQL.encode(), "query.sql": b"\xff"}), "text in UTF-8")
    refused(write_files(tmp_path / "b", {"bundle.toml": SQL.encode(), "query.sql": b" " * 65537}), "text in UTF-8")


# --- archives that are refused


def zipped(packed: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("bundle.json", canonical(packed))
    return sink.getvalue()


def extended(packed: bytes) -> bytes:
    """The same contents with an extension header, as GNU tar and Python write for what does not fit ustar."""
    info = tarfile.TarInfo("model.py")
    info.pax_headers, info.size, info.mode = {"path": "../../escaped.py"}, 0, 0o644
    return archive([entry("bundle.json", canonical(packed)), info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")])


def long_named(packed: bytes) -> bytes:
    info = tarfile.TarInfo("x" * 200)
    return archive([entry("bundle.json", canonical(packed)), info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")])


def with_file(name: str, content: bytes = b"", **fields: object) -> Callable[[bytes], bytes]:
    return lambda packed: archive(
        [*(entry(*one) for one in contents(packed)), entry(name, content, **fields)],
    )


def with_manifest(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def make(packed: bytes) -> bytes:
        (_, text), *others = contents(packed)
        return archive([entry("bundle.json", change(text)), *(entry(*one) for one in others)])

    return make


def reordered(packed: bytes) -> bytes:
    return archive(entry(*one) for one in reversed(contents(packed)))


def huge(packed: bytes) -> bytes:
    """A header that promises 8 GiB, with nothing behind it."""
    return archive([entry("bundle.json", canonical(packed)), entry("model.py", size=(1 << 33) - 1)])


MALICIOUS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda packed: b"", "begins with"),
    "zeros": (lambda packed: bytes(1024), "begins with"),
    "gzip": (gzip.compress, "not a bundle"),
    "bzip2": (bz2.compress, "not a bundle"),
    "zip": (zipped, "not a bundle"),
    "gzip bomb": (lambda packed: gzip.compress(bytes(100 << 20)), "not a bundle"),
    "absolute name": (with_file("/etc/cron.d/x"), "name in a bundle"),
    "name that climbs": (with_file("../escaped.py"), "name in a bundle"),
    "name that climbs inside": (with_file("data/../../escaped.py"), "name in a bundle"),
    "name with a dot": (with_file("./model.py"), "name in a bundle"),
    "double slash": (with_file("data//x"), "name in a bundle"),
    "backslash": (with_file("data\\x"), "name in a bundle"),
    "line end": (with_file("x\n"), "name in a bundle"),
    "no name": (with_file(""), "one form"),
    "hidden": (with_file(".bashrc"), "name in a bundle"),
    "not ASCII": (with_file("模型.py"), "name in a bundle"),
    "symbolic link": (with_file("zlink", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "no links"),
    "hard link": (with_file("zlink", type=tarfile.LNKTYPE, linkname="model.py"), "no links"),
    "device": (with_file("zero", type=tarfile.CHRTYPE), "no links"),
    "named pipe": (with_file("zpipe", type=tarfile.FIFOTYPE), "no links"),
    "directory": (with_file("zdir", type=tarfile.DIRTYPE), "no links"),
    "sparse file": (with_file("zsparse", type=tarfile.GNUTYPE_SPARSE), "no links"),
    "extension": (extended, "no links"),
    "long name": (long_named, "not a bundle|no links"),
    "setuid": (with_file("zfile", mode=0o4755), "a mode, an owner"),
    "owner": (with_file("zfile", uid=1), "a mode, an owner"),
    "owner's name": (with_file("zfile", uname="root"), "a mode, an owner"),
    "time": (with_file("zfile", mtime=1), "a mode, an owner"),
    "link name of a plain file": (with_file("zfile", linkname="x"), "a mode, an owner"),
    "file twice": (with_file("model.py", b"evil"), "twice"),
    "case": (with_file("model.PY"), "in case only"),
    "file below a file": (with_file("model.py/x"), "below a file"),
    "the runner's own file": (with_file("program.json", b"{}"), "the sandbox itself uses"),
    "order": (reordered, "one form"),
    "too many": (
        lambda packed: archive([*(entry(*one) for one in contents(packed)), *(entry(f"z{n:04}") for n in range(600))]),
        "too many",
    ),
    "promised size": (huge, "a mode, an owner"),
    "cut short": (lambda packed: packed[:-1], "one form"),
    "cut in a file": (lambda packed: packed[:-1600], "one form"),
    "cut in the manifest": (lambda packed: packed[:600], "not JSON"),
    "cut in a header": (lambda packed: packed[:400], "not a bundle"),
    "something behind": (lambda packed: packed + b"x", "one form"),
    "zeros behind": (lambda packed: packed + bytes(512), "one form"),
    "no manifest": (lambda packed: archive([entry("model.py", b"")]), "begins with"),
    "manifest too large": (with_manifest(lambda text: text + b" " * 65536), "begins with"),
    "manifest with blanks": (with_manifest(lambda text: text.replace(b",", b", ", 1)), "one form"),
    "member twice": (with_manifest(lambda text: b'{"entry":"model.py",' + text[1:]), "one form"),
    "unknown member": (with_manifest(lambda text: b'{"apt":"install",' + text[1:]), "'apt'"),
    "not JSON": (with_manifest(lambda text: text[:-1]), "not JSON"),
    "not an object": (with_manifest(lambda text: b"[]"), "not a table"),
    "deep JSON": (with_manifest(lambda text: b"[" * 60_000), "not JSON"),
    "long number": (with_manifest(lambda text: text.replace(b":100}", b":" + b"1" * 5000 + b"}", 1)), "not JSON"),
    "not a number": (with_manifest(lambda text: text.replace(b"1000.0", b"NaN")), "out of range"),
    "surrogate": (with_manifest(lambda text: text.replace(b',"low"]', b',"\\ud800"]')), "printable"),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_archives_that_are_refused(packed: bytes, name: str) -> None:
    make, why = MALICIOUS[name]
    made = make(packed)
    assert made != packed
    with pytest.raises(InvalidSpec, match=why):
        parse(made)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_accepted_has_one_spelling(packed: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(packed) - 1))
    changed = packed[:at] + bytes([data.draw(st.integers(0, 255))]) + packed[at + 1 :]
    try:
        found = parse(changed)
    except InvalidSpec:
        return
    names = ["bundle.json", *found.files]
    assert [name for name, _ in contents(changed)] == names
    assert changed == archive(entry(*one) for one in contents(changed))
    assert (found.measurement == measure(packed)) == (changed == packed)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2048))
def test_any_bytes_are_refused_in_our_words(data: bytes) -> None:
    with pytest.raises(InvalidSpec):
        parse(data)


# --- signatures


def test_a_statement_is_about_one_bundle_and_by_one_key(tmp_path: Path, packed: bytes) -> None:
    key, other = PrivateKey.generate(), PrivateKey.generate()
    signed = sign_bundle(key, packed, 1_700_000_000_000)
    statement = verify_bundle(key.public, signed, packed)
    assert (statement.measurement, statement.name, statement.time_ms) == (measure(packed), "small", 1_700_000_000_000)
    changed = pack(write_files(tmp_path, {**FILES, "data/weights.csv": b"b,1\n"}))
    for key_used, said, about in (
        (other.public, signed, packed),
        (key.public, signed, changed),
        (key.public, Signed(signed.payload + b" ", signed.key_id, signed.signature), packed),
        (key.public, Signed(signed.payload, other.public.key_id, signed.signature), packed),
    ):
        with pytest.raises(Unauthenticated):
            verify_bundle(key_used, said, about)


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[" * 60_000, b'{"measurement":"zz","name":"a","time_ms":1}', b"\xff"]
)
def test_a_signed_text_that_is_no_statement(packed: bytes, payload: bytes) -> None:
    from sandbox.crypto.envelope import sign_payload

    key = PrivateKey.generate()
    signed = Signed(payload, key.public.key_id, sign_payload(key, "bundle-statement", payload))
    with pytest.raises(InvalidSpec):
        verify_bundle(key.public, signed, packed)
