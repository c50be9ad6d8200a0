"""The broker: a key for the enclave that was approved, for no other, and opened nowhere else."""

from __future__ import annotations

import dataclasses
import itertools

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import signed
from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm3 import tagged
from sandbox.errors import IntegrityFailed, PolicyRefused
from sandbox.tee_sim.attest import Expectation, Quote, SimulatedAttester, verify
from sandbox.tee_sim.broker import (
    REFUSED,
    Approved,
    Binding,
    facts,
    grant_key,
    open_bundle,
    open_grant,
    open_rows,
    release,
    seal_bundle,
    seal_rows,
)
from sandbox.tee_sim.levels import Level

ENCLAVE = PrivateKey.generate()
BUNDLE, KEY = tagged("bundle", b"approved"), bytes(range(16))
ROWS = pa.table({"id": ["a", "b"], "income": [1, 2]})


def quoted(nonce: bytes = bytes(32), bundle: bytes = BUNDLE) -> Quote:
    identity, attestation = PrivateKey.generate(), PrivateKey.generate()
    attester = SimulatedAttester(
        attestation, signed.certify(identity, "attestation", attestation.public), Level.CONFINED
    )
    return verify(attester.quote(nonce, bundle, ENCLAVE.public.to_bytes()), identity.public, Expectation())


@pytest.fixture(scope="module")
def quote() -> Quote:
    return quoted()


@pytest.fixture(scope="module")
def wanted(quote: Quote) -> Approved:
    return Approved(frozenset({BUNDLE}), frozenset({quote.runtime}), frozenset({"confined"}), True)


def binding(quote: Quote) -> Binding:
    return Binding(quote.nonce, quote.runtime, quote.bundle)


def test_what_was_approved_gets_the_key(quote: Quote, wanted: Approved) -> None:
    release(quote, wanted)
    grant = grant_key(KEY, quote, wanted)
    assert open_grant(ENCLAVE, grant.sealed, binding(quote)) == KEY
    assert KEY not in grant.sealed
    said = {fact.name: fact.value for fact in grant.facts}
    assert said == {
        "vendor": "SIMULATED",
        "level": "confined",
        "runtime": quote.runtime.hex(),
        "bundle": BUNDLE.hex(),
        "quote": quote.digest.hex(),
    }
    assert grant.facts == facts(quote)


NOTHING: frozenset[bytes] = frozenset()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"accepts_simulated": False}, "simulated"),
        ({"bundles": NOTHING}, "bundle"),
        ({"bundles": frozenset({tagged("bundle", b"another"), b""})}, "bundle"),
        ({"runtimes": NOTHING}, "runtime"),
        ({"runtimes": frozenset({bytes(32)})}, "runtime"),
        ({"levels": frozenset()}, "level is confined"),
        ({"levels": frozenset({"narrowed", "unprivileged"})}, "level is confined"),
    ],
)
def test_one_difference_is_enough_and_the_caller_is_not_told_which(
    quote: Quote, wanted: Approved, change: dict[str, object], why: str
) -> None:
    narrower = dataclasses.replace(wanted, **change)  # type: ignore[arg-type]
    for decide in (lambda: release(quote, narrower), lambda: grant_key(KEY, quote, narrower)):
        with pytest.raises(PolicyRefused, match=why) as refused:
            decide()
        assert refused.value.tell == REFUSED


def test_the_decision_is_the_conjunction_of_four_answers(quote: Quote, wanted: Approved) -> None:
    none = Approved(frozenset(), frozenset(), frozenset(), False)
    names = [field.name for field in dataclasses.fields(Approved)]
    for yes in itertools.product([True, False], repeat=len(names)):
        chosen = {n: getattr(wanted if ok else none, n) for n, ok in zip(names, yes, strict=True)}
        if all(yes):
            release(quote, Approved(**chosen))
        else:
            with pytest.raises(PolicyRefused):
                release(quote, Approved(**chosen))


def test_an_enclave_without_a_bundle_gets_nothing(wanted: Approved) -> None:
    with pytest.raises(PolicyRefused, match="bundle none"):
        grant_key(KEY, quoted(bundle=b""), wanted)


def test_hardware_need_not_be_accepted_as_simulated(quote: Quote, wanted: Approved) -> None:
    real = dataclasses.replace(quote, vendor="TDX")
    release(real, dataclasses.replace(wanted, accepts_simulated=False))


def test_a_grant_opens_only_in_its_enclave_and_for_its_quote(quote: Quote, wanted: Approved) -> None:
    sealed = grant_key(KEY, quote, wanted).sealed
    right = binding(quote)
    wrong = [
        dataclasses.replace(right, nonce=bytes([1]) * 32),
        dataclasses.replace(right, runtime=bytes(32)),
        dataclasses.replace(right, bundle=b""),
    ]
    for one in wrong:
        with pytest.raises(IntegrityFailed):
            open_grant(ENCLAVE, sealed, one)
    with pytest.raises(IntegrityFailed):
        open_grant(PrivateKey.generate(), sealed, right)
    with pytest.raises(IntegrityFailed):
        open_bundle(ENCLAVE, sealed, right, "merchant-a")  # sealed as another thing
    for key in (KEY + b"x", b"k"):
        with pytest.raises(IntegrityFailed, match="other than a data key"):
            open_grant(ENCLAVE, grant_key(key, quote, wanted).sealed, right)


def test_a_bundle_sealed_to_an_enclave() -> None:
    empty = quoted(bundle=b"")
    sealed = seal_bundle(b"the merchant's model", empty, "merchant-a")
    assert b"merchant" not in sealed
    assert open_bundle(ENCLAVE, sealed, binding(empty), "merchant-a") == b"the merchant's model"
    with pytest.raises(IntegrityFailed):
        open_bundle(ENCLAVE, sealed, binding(quoted(nonce=bytes([1]) * 32, bundle=b"")), "merchant-a")
    with pytest.raises(IntegrityFailed):  # overheard
        open_bundle(ENCLAVE, sealed, binding(empty), "merchant-b")


def test_rows_open_under_their_key_and_name() -> None:
    sealed = seal_rows(KEY, "people", ROWS)
    assert b"income" not in sealed
    assert open_rows(KEY, "people", sealed).equals(ROWS)
    assert seal_rows(KEY, "people", ROWS) != sealed  # one data key may serve several tables
    for key, name in ((bytes(16), "people"), (KEY, "others")):
        with pytest.raises(IntegrityFailed):
            open_rows(key, name, sealed)


def test_large_tables_are_several_records() -> None:
    table = pa.table({"n": pa.array(range(400_000), pa.int64())})
    sealed = seal_rows(KEY, "n", table)
    assert len(sealed) > 3 << 20
    assert open_rows(KEY, "n", sealed).equals(table)
    record = (1 << 20) + 16
    records = [sealed[at : at + record] for at in range(32, len(sealed), record)]
    for parts in (records[:-1], records[1:], [records[1], records[0], *records[2:]], [*records, records[-1]]):
        with pytest.raises(IntegrityFailed):
            open_rows(KEY, "n", sealed[:32] + b"".join(parts))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_changed_or_cut_rows_do_not_open(data: st.DataObject) -> None:
    sealed = seal_rows(KEY, "people", ROWS)
    at = data.draw(st.integers(0, len(sealed) - 1))
    for changed in (sealed[:at], sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]):
        with pytest.raises(IntegrityFailed):
            open_rows(KEY, "people", changed)


def test_metadata_does_not_travel() -> None:
    noted = ROWS.replace_schema_metadata({"note": "from the vault"})
    assert open_rows(KEY, "people", seal_rows(KEY, "people", noted)).schema.metadata is None
