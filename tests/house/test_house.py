"""What the repository promises about itself: documents, licence, versions, generated code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from by_hand_page import ROOT
from typer.main import get_command

from sandbox.catalog.cache import MOST
from sandbox.cli import app
from sandbox.exchange import AWAY_S
from sandbox.kinds.cells import MOST_CELLS
from sandbox.parts import ATTEMPTS
from sandbox.psi.buckets import BUCKET, WHOLE

READMES = ("README.md", "README.zh-CN.md")
INSIDE = [page for folder in ("docs", "jobs") for page in (ROOT / folder).rglob("*.md")]
PAGES = sorted([*(ROOT / name for name in READMES), ROOT / "CHANGELOG.md", *INSIDE])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
# Written so that this file does not match itself.
FORBIDDEN = "|".join(
    ["/" + "root/", "/" + "work/", "/opt/" + "pypi", "/opt/" + "wheels", "extra-" + "index-url", "simple" + "/?$"]
)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _commands(group: object, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    inner = getattr(group, "commands", None)
    return {path} if inner is None else {c for name, one in inner.items() for c in _commands(one, (*path, name))}


def _tracked() -> list[str]:
    found = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip("not a git clone: there is no list of tracked files")
    return [name for name in found.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    broken = []
    for link in links:
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(link)
    assert not broken


def _anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get where Markdown is shown."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def _code(text: str) -> list[str]:
    """The lines of code in a page: fenced, indented, or between backticks; continued lines joined."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4,}.*$", rest, re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", rest)
    joined = "\n".join([*fenced, *indented]).replace("\\\n", " ")
    return [*joined.splitlines(), *spans]


def _named(line: str) -> list[tuple[str, ...]]:
    """The words after `sandbox` in a line of code, its shared options left out."""
    found = []
    for said in re.findall(r"(?:^|[\s(/$;])sandbox((?: +[^\s|`)]+)+)", line):
        words = re.sub(r"--(?:home|key|node|lang) +\S+|--json", "", said).split()
        if words and re.fullmatch(r"[a-z]+", words[0]):
            found.append(tuple(words[:2]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_documents_name_exist(page: Path) -> None:
    known = _commands(get_command(app))
    groups = {path[0] for path in known if len(path) == 2}
    wrong = []
    for line in _code(page.read_text(encoding="utf-8")):
        for words in _named(line):
            if words not in known and (words[0] in groups or words[:1] not in known):
                wrong.append(words)
    assert not wrong


def test_commands_are_found_where_documents_name_them() -> None:
    named = {words for page in PAGES for line in _code(page.read_text(encoding="utf-8")) for words in _named(line)}
    assert {("init", "operator"), ("peer", "export"), ("job", "submit"), ("audit", "verify"), ("serve",)} <= named


@pytest.mark.parametrize("name", READMES)
def test_make_targets_that_documents_name_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    said = set(re.findall(r"(?:`|^ +)make ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "check", "bench"} <= said
    assert said <= targets


def test_both_readmes_link_to_the_same_files() -> None:
    english, chinese = (
        set(re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text(encoding="utf-8"))) for name in READMES
    )
    assert english - chinese == {"README.zh-CN.md"}
    assert chinese - english == {"README.md"}


def test_decisions_are_numbered_without_gaps_and_in_the_readme() -> None:
    found = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in found] == list(range(1, len(found) + 1))
    for path in found:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {int(path.name[:4])}. ")
        assert "## Context" in lines
        assert len(lines) <= 75, f"{path.name} is longer than a page"
        for name in READMES:
            assert f"docs/adr/{path.name}" in (ROOT / name).read_text(encoding="utf-8")


def test_decision_on_libraries_speaks_of_each_that_was_asked_for() -> None:
    text = (ROOT / "docs" / "adr" / "0001-libraries-and-what-each-is-for.md").read_text()
    for name in ("phe", "pycryptodome", "gmssl", "pandas", "ray", "grpcio", "protobuf", "pytest"):
        assert f"| **{name}** |" in text


def test_figures_in_the_readmes_are_those_measured() -> None:
    done = subprocess.run([sys.executable, "docs/figures.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_figures_name_commands_that_exist() -> None:
    commands = {one["command"] for one in json.loads((ROOT / "bench" / "results.json").read_text())}
    assert commands
    for command in commands:
        assert command.startswith("python -m bench.")
        assert (ROOT / f"{command.split()[2].replace('.', '/')}.py").is_file(), command


def test_costs_on_the_page_are_those_that_engines_are_chosen_by() -> None:
    done = subprocess.run([sys.executable, "docs/costs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_limits_on_the_pages_are_those_in_the_code() -> None:
    said = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("intersections", "totals")}
    assert f"Above {_grouped(WHOLE)} rows on the larger side" in said["intersections"]
    assert f"buckets of about {_grouped(BUCKET)};" in said["intersections"]
    assert f"At most {MOST} are kept at a node" in said["intersections"]
    assert {1: "once", 2: "twice"}[ATTEMPTS - 1] in said["intersections"].partition("**Retry**")[2].partition("\n")[0]
    assert {180.0: "three minutes"}[AWAY_S] in said["intersections"]
    assert f"up to {_grouped(MOST_CELLS)} groups" in said["totals"]


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def test_an_installed_package_has_every_document_of_the_examples() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folders = {path.parent for path in (ROOT / "jobs").glob("*/*.toml")}
    assert {folder.name for folder in folders} >= {"credit_score", "intersections", "joint_totals"}
    for folder in folders:
        assert {"*.toml", "*.md"} <= set(shipped[f"jobs.{folder.name}"])
        assert (folder / "__init__.py").is_file()
        assert (folder / "README.md").is_file()


def test_licence_is_the_one_declared() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "9. Accepting Warranty or Additional Liability" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_one_version() -> None:
    assert PROJECT["version"] == metadata.version(PROJECT["name"])
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_no_path_of_a_machine_and_no_registry_in_any_file() -> None:
    found = []
    for name in _tracked():
        text = (ROOT / name).read_bytes().decode("utf-8", errors="replace")
        found += [f"{name}:{n}" for n, line in enumerate(text.splitlines(), 1) if re.search(FORBIDDEN, line)]
    assert not found


def test_constraints_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins)
    assert pins == sorted(pins)


def test_constraints_cover_everything_that_gets_installed() -> None:
    pins = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(name for extra in extras.values() for name in extra)]
    waiting = [_canonical(re.split(r"[^\w.-]", one)[0]) for one in asked]
    assert len(waiting) > 30
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in pins, f"{name} is not in constraints.txt"
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here; its own pin was just checked
        waiting += [_canonical(re.split(r"[^\w.-]", need)[0]) for need in needs if _applies(need)]


def _applies(need: str) -> bool:
    """Tell whether a requirement holds here; those of an extra do not."""
    from packaging.requirements import Requirement

    marker = Requirement(need).marker
    return marker is None or marker.evaluate({"extra": ""})


def test_what_is_copyleft_is_no_dependency_at_run_time() -> None:
    needed = {_canonical(re.split(r"[^\w.-]", one)[0]) for one in PROJECT["dependencies"]}
    assert needed.isdisjoint({"phe", "gmssl"})  # gmpy2 is under the LGPL: a library of its own, and stays one


def test_generated_code_is_what_the_protocol_files_give(tmp_path: Path) -> None:
    protos = sorted(path.relative_to(ROOT) for path in (ROOT / "proto").rglob("*.proto"))
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", *out, *map(str, protos)], cwd=ROOT, check=True
    )
    fresh = {path.name: path.read_text() for path in (tmp_path / "sandbox" / "v1").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "sandbox" / "v1").iterdir() if path.is_file()}
    assert kept.pop("__init__.py") == ""
    assert fresh == kept
