"""``sandbox model`` and ``sandbox tee`` as their users run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from bundle_builders import CODE, FILES, write_files
from typer.testing import CliRunner, Result

from jobs.own_model.generate import main as generate
from sandbox import keyring, signed, wire
from sandbox.cli import model, tee
from sandbox.cli.app import read_options
from sandbox.crypto.sm2 import PublicKey
from sandbox.errors import Unavailable
from sandbox.tee_sim.attest import SimulatedAttester, measure_runtime
from sandbox.tee_sim.bundle import measure, pack, verify_bundle
from sandbox.tee_sim.levels import Level
from sandbox.tee_sim.probes import strongest

ROOT = Path(__file__).parents[2]
OWN_MODEL = ROOT / "jobs" / "own_model"
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SANDBOX_KEY", "SANDBOX_HOME", "SANDBOX_NODE", "SANDBOX_PASSPHRASE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run() -> Run:
    root = typer.Typer()
    root.callback()(read_options)
    root.add_typer(model.app)
    root.add_typer(tee.app)

    def invoke(*words: object, code: int = 0) -> Result:
        result = CliRunner().invoke(root, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture(scope="module")
def level() -> Level:
    try:
        return strongest()
    except Unavailable as error:
        pytest.skip(f"no level of the jail holds here: {error}")


# --- model


def test_pack_measures_and_signs(run: Run, tmp_path: Path) -> None:
    directory, out = write_files(tmp_path / "bundle"), tmp_path / "out.bundle"
    person = keyring.create_person(tmp_path / "key", "merchant", "Example Merchant")
    told = json.loads(
        run("model", "pack", directory, "--out", out, "--sign", "--key", tmp_path / "key", "--json").stdout
    )
    archive = out.read_bytes()
    assert archive == pack(directory)
    assert told["measurement"] == measure(archive).hex()
    assert told["signature"] == str(out) + ".sig"
    statement = signed.read_signed(Path(told["signature"]).read_bytes())
    assert verify_bundle(person.identity.public, statement, archive).name == "small"
    assert "exists" in run("model", "pack", directory, "--out", out, code=1).stderr.lower()
    assert run("model", "pack", directory, "--sign", "--out", tmp_path / "x", code=2).stderr
    assert not (tmp_path / "x").exists()


def test_the_default_name_is_the_bundle_s(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        "measurement: " + measure(pack(OWN_MODEL / "score")).hex() in run("model", "pack", OWN_MODEL / "score").stdout
    )
    assert [path.name for path in tmp_path.iterdir()] == ["score-card.bundle"]


def test_show_says_what_may_leave(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "b"
    run("model", "pack", write_files(tmp_path / "bundle"), "--out", out)
    told = json.loads(run("model", "show", out, "--json").stdout)
    assert told["inputs"] == {"people": ["id", "income"]}
    assert told["outputs"][0]["class"] == "row"
    assert told["outputs"][0]["columns"][1]["places"] == 1
    assert [one["name"] for one in told["files"]] == ["data/weights.csv", "model.py"]
    shown = run("model", "show", out).stdout
    assert measure(out.read_bytes()).hex() in shown
    assert "score number of 1 places from 0.0 to 1000.0" in shown
    assert "band string (high | low), people integer, mean number of 2 places or missing" in shown
    out.write_bytes(b"PK\x03\x04")
    assert "ustar" in run("model", "show", out, code=1).stderr


def test_try_runs_the_example_in_the_jail(run: Run, tmp_path: Path, level: Level) -> None:
    assert generate([str(tmp_path / "data")]) == 0
    table, out = f"applicants={tmp_path / 'data' / 'applicants.parquet'}", tmp_path / "results"
    words = ("model", "try", OWN_MODEL / "score", "--table", table, "--params", '{"base": 600}')
    told = json.loads(run(*words, "--out", out, "--json").stdout)
    assert told["vendor"] == "SIMULATED"
    assert told["level"] == str(level)
    assert {one["name"]: one["rows"] for one in told["outputs"]} == {"bands": 3, "scores": 5000}
    assert pq.read_table(out / "scores.parquet").column_names == ["id_no", "points"]
    assert "SIMULATED" in run(*words).stdout


@pytest.mark.slow
def test_try_shows_a_merchant_what_went_wrong(run: Run, tmp_path: Path, level: Level) -> None:
    directory = write_files(tmp_path / "bundle", {**FILES, "model.py": CODE.replace("params[", "parameters[").encode()})
    pq.write_table(pa.table({"id": ["a"], "income": [1.0]}), tmp_path / "people.parquet")
    words = ("model", "try", directory, "--table", f"people={tmp_path / 'people.parquet'}", "--params", '{"factor": 1}')
    ended = run(*words, code=1)
    assert "NameError: name 'parameters' is not defined" in ended.stdout
    assert "the program ended with an error" in ended.stderr
    told = json.loads(run(*words, "--json", code=1).stdout)
    assert told["error"]["code"] == "JobFailed"
    (directory / "model.py").write_text(CODE.replace('["low", "high"]', '["low", "middle"]'))
    assert "not one of the declared values" in run(*words, code=1).stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--params", "3"), "not a JSON object"),
        (("--params", "["), "not a JSON object"),
        (("--table", "people"), "as NAME=FILE"),
        (("--table", "people=a", "--table", "people=b"), "as NAME=FILE"),
    ],
)
def test_try_refuses_a_command_line_that_makes_no_sense(
    run: Run, tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    assert why in run("model", "try", write_files(tmp_path / "bundle"), *words, code=2).stderr


def test_try_needs_parquet(run: Run, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("id,income\n")
    words = ("model", "try", write_files(tmp_path / "bundle"), "--table", f"people={tmp_path / 'people.csv'}")
    assert "not a Parquet file" in run(*words, code=1).stderr


# --- tee


@pytest.fixture(scope="module")
def quoted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A node's card, a bundle, and a quote about it."""
    folder = tmp_path_factory.mktemp("quoted")
    keys = keyring.create_node(folder / "keys", "bank")
    card = keys.card("bank", "Example Bank", "127.0.0.1:1")
    (folder / "bank.peer").write_bytes(wire.encode(card))
    other = keyring.create_node(folder / "other", "other").card("other", "Other", "127.0.0.1:1")
    (folder / "other.peer").write_bytes(wire.encode(other))
    (folder / "b.bundle").write_bytes(pack(OWN_MODEL / "score"))
    (folder / "c.bundle").write_bytes(pack(OWN_MODEL / "train"))
    attester = SimulatedAttester(keys.attestation, signed.open_peer_card(card).attestation, Level.CONFINED)
    ephemeral = PublicKey.from_bytes(keys.sealing.public.to_bytes())
    bundle = measure((folder / "b.bundle").read_bytes())
    (folder / "quote").write_bytes(attester.quote(bytes(range(32)), bundle, ephemeral.to_bytes()))
    return {"folder": folder, "nonce": bytes(range(32)).hex(), "bundle": bundle.hex(), "key": ephemeral.key_id}


def test_verify_says_simulated_first(run: Run, quoted: dict[str, Any]) -> None:
    folder = quoted["folder"]
    words = ("tee", "verify", folder / "quote", "--peer", folder / "bank.peer")
    told = json.loads(run(*words, "--bundle", folder / "b.bundle", "--nonce", quoted["nonce"], "--json").stdout)
    assert told["vendor"] == "SIMULATED"
    assert (told["level"], told["bundle"], told["nonce"]) == ("confined", quoted["bundle"], quoted["nonce"])
    assert (told["runtime"], told["key_id"]) == (measure_runtime().hex(), quoted["key"])
    assert (told["bundle_checked"], told["nonce_checked"], told["verified"]) == (True, True, True)
    english, chinese = run(*words).stdout, run(*words, "--lang", "zh").stdout
    assert english.splitlines()[0] == "vendor: SIMULATED"
    assert "no trusted hardware" in english.splitlines()[1]
    assert "没有可信硬件" in chinese.splitlines()[1]
    assert "nonce checked: no" in english


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--bundle", "c.bundle"), "another bundle"),
        (("--nonce", "00" * 32), "another nonce"),
        (("--peer", "other.peer"), "not certified by the expected node"),
    ],
)
def test_verify_refuses(run: Run, quoted: dict[str, Any], words: tuple[str, str], why: str) -> None:
    folder = quoted["folder"]
    option, value = words
    given = {"--peer": folder / "bank.peer", option: folder / value if "." in value else value}
    flat = [word for pair in given.items() for word in pair]
    assert why in run("tee", "verify", folder / "quote", *flat, code=1).stderr


def test_verify_refuses_an_old_quote_and_a_changed_one(run: Run, quoted: dict[str, Any], tmp_path: Path) -> None:
    folder = quoted["folder"]
    peer = ("--peer", folder / "bank.peer")
    run("tee", "verify", folder / "quote", *peer, "--max-age-s", 600)
    changed = tmp_path / "quote"
    changed.write_bytes((folder / "quote").read_bytes().replace(b"confined", b"narrowed"))
    assert "signature does not verify" in run("tee", "verify", changed, *peer, code=1).stderr
    assert "64 hexadecimal" in run("tee", "verify", changed, *peer, "--nonce", "00", code=2).stderr


def test_doctor_names_levels_and_runtime(run: Run, level: Level) -> None:
    told = {one["name"]: one for one in json.loads(run("tee", "doctor", "--json").stdout)}
    assert told[f"level {level}"]["ok"] is True
    assert {f"level {one}" for one in Level} <= told.keys()
    assert all(one["fix"] for name, one in told.items() if name.startswith("level ") and not one["ok"])
    assert told["runtime"]["detail"] == measure_runtime().hex()
    assert told["vendor"]["detail"] == "SIMULATED"
