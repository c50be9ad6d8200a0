"""One example taken through the whole line, at nodes that admit on rows only what has run on twins before.

    python -m jobs.walkthrough NAME FOLDER          NAME: a folder of jobs/ with a walkthrough.toml, e.g. marriage_check

    generate --> register, under terms, with a twin --> apply --> departments and owners approve
             --> on rows: refused --> on twins --> on rows --> result opened, receipt checked

Shapes:    ``walkthrough.toml`` says who takes part, what stands in the catalogue, and which jobs are run. A job's
           document may name an earlier job of the same application by its file name: ``${align}`` for align.toml.
Security:  keys lie unprotected in ``FOLDER``, all nodes on this machine: for trying out.
Errors:    those of the SDK; ``InvalidSpec`` for an example that cannot be read.
Not here:  what the rows, scenarios and jobs say: each example's own files. The same by command: each README.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sandbox import keyring, wire
from sandbox.client import Client, Outcome, Terms, Trust, job_from_file, read_scenario, scenario_from_toml
from sandbox.demo.nodes import LocalNodes
from sandbox.errors import InvalidSpec, JobFailed, PolicyRefused, SandboxError
from sandbox.home import Home
from sandbox.model import DatasetView, JobView, Scenario

STRICT: Final[Mapping[str, Any]] = {"ray_start": "eager", "test_before_production": True}
JOB_S: Final = 300.0
_APPROVERS: Final = {"owner", "operator"}


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who takes part, registered at one node."""

    name: str
    organisation: str
    node: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A table that was generated, and what the catalogue says of it."""

    table: str
    name: str
    owner: str
    licence: str
    retention_days: int
    terms: Terms


@dataclass(frozen=True, slots=True)
class Application:
    """A scenario as one person applies for it, and the documents of the jobs under it."""

    document: str
    applicant: str
    jobs: tuple[str, ...]
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """One folder of this package."""

    folder: Path
    nodes: Mapping[str, str]
    people: tuple[Person, ...]
    datasets: tuple[Dataset, ...]
    applications: tuple[Application, ...]

    @classmethod
    def read(cls, name: str) -> Example:
        """Return the example of that name.

        Raises:
            InvalidSpec: there is none, or its walkthrough.toml does not say what it has to.
        """
        folder = Path(__file__).parent / name
        try:
            tree = tomllib.loads((folder / "walkthrough.toml").read_text(encoding="utf-8"))
            return cls(
                folder,
                tree["nodes"],
                tuple(Person(**{**one, "roles": tuple(one["roles"])}) for one in tree["people"]),
                tuple(_dataset(one) for one in tree["datasets"]),
                tuple(Application(**{**one, "jobs": tuple(one["jobs"])}) for one in tree["applications"]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InvalidSpec(tell=f"{name} is no example to walk through: {error}") from None


@dataclass(frozen=True, slots=True)
class Done:
    """One job that was released: as its submitter sees it, and the result, opened and checked."""

    view: JobView
    outcome: Outcome


class Walk:
    """One example at running nodes; leaving hangs up."""

    def __init__(self, example: Example, nodes: LocalNodes, folder: Path) -> None:
        """Args:
        nodes: at least those that the example's people work at.
        folder: new, for keys, tables and cards.
        """
        self.example, self.folder = example, folder
        self._nodes, self._stack = nodes, ExitStack()
        self.clients: dict[str, Client] = {}
        self.views: dict[str, DatasetView] = {}
        folder.mkdir(mode=0o700, parents=True)

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def meet(self) -> None:
        """Make everybody's keys, and have their nodes know them."""
        for person in self.example.people:
            made = keyring.create_person(self.folder / person.name, person.name, person.organisation)
            home = Home(self._nodes.home(person.node))
            try:
                home.register_key(made.card, person.roles)
            finally:
                home.store.close()
            (self.folder / f"{person.name}.card").write_bytes(wire.encode(made.card))
            client = Client.connect(made, self._nodes.cards[person.node])
            self.clients[person.name] = self._stack.enter_context(client)

    def register(self) -> None:
        """Generate the tables and register each under its terms, with a twin."""
        data = self.folder / "data"
        generate: Callable[[list[str]], int] = importlib.import_module(f"jobs.{self.example.folder.name}.generate").main
        generate([str(data)])
        for one in self.example.datasets:
            files = data / f"{one.table}.parquet", data / f"{one.table}.schema.json"
            owner = self.clients[one.owner]
            view = owner.register_dataset(*files, one.name, one.licence, one.retention_days, terms=one.terms)
            entry = {
                **{name: getattr(view, name) for name in ("code", "version", "owner", "rows")},
                **{name: getattr(view, name).hex() for name in ("content_hash", "schema_digest")},
                "schema": json.loads(view.schema_json),
            }
            (self.folder / f"{one.table}.dataset.json").write_text(json.dumps(entry), encoding="utf-8")
            self.views[one.table] = view

    def apply(self, application: Application) -> bytes:
        """File an application and return its digest."""
        document = self.example.folder / application.document
        scenario = scenario_from_toml(document, application.values, self.folder)
        return self.clients[application.applicant].apply_scenario(scenario).digest

    def approve(self, application: Application, digest: bytes) -> tuple[str, ...]:
        """Have everybody approve who is asked, departments before the nodes that run their data; return their names."""
        filed = self.clients[application.applicant].find_scenario(digest)
        asked, names = read_scenario(filed), list[str]()
        for node in filed.awaiting:
            own = self._who(one for one in self.example.people if one.node == node and _APPROVERS & set(one.roles))
            for department in own.find_scenario(digest).awaiting_departments:
                desk = self._who(one for one in self.example.people if one.organisation == department)
                _accept(desk, digest, asked)
                names.append(department)
            _accept(own, digest, asked)
            names.append(node)
        return tuple(names)

    def refused(self, application: Application, digest: bytes) -> str:
        """Submit the first job on rows before it ran on twins, and return why that is refused.

        Raises:
            JobFailed: it was admitted.
        """
        try:
            self._submit(application, digest, application.jobs[0], {}, test=False)
        except PolicyRefused as error:
            return error.tell
        raise JobFailed(tell="a job was admitted that had not run on twins")

    def run(self, application: Application, digest: bytes, *, test: bool) -> dict[str, Done]:
        """Run the jobs of an application, on twins or on rows; return them by the names of their documents."""
        client, done = self.clients[application.applicant], dict[str, Done]()
        for document in application.jobs:
            earlier = {name: one.view.job_id for name, one in done.items()}
            job = self._submit(application, digest, document, earlier, test=test)
            view = client.wait(job.job_id, JOB_S)
            done[Path(document).stem] = Done(view, client.result(job.job_id, self.trust(application)))
        return done

    def trust(self, application: Application) -> Trust:
        """Return whom receipts of an application's results are checked against."""
        node = self.clients[application.applicant].node.node_id
        return Trust.from_file(self._nodes.folder / f"{node}.trust")

    def _submit(
        self, application: Application, digest: bytes, document: str, earlier: Mapping[str, str], *, test: bool
    ) -> JobView:
        values = {**application.values, **earlier, "scenario": digest.hex()}
        spec, inputs = job_from_file(self.example.folder / document, values, self.folder)
        return self.clients[application.applicant].submit(spec, inputs, test=test)

    def _who(self, fitting: Iterator[Person]) -> Client:
        found = next(fitting, None)
        if found is None:
            raise InvalidSpec(tell=f"{self.example.folder.name}: it names nobody who could approve for a party")
        return self.clients[found.name]


def walk(example: Example, nodes: LocalNodes, folder: Path) -> Iterator[str]:
    """Take an example through the line, and tell of each step."""
    with Walk(example, nodes, folder) as going:
        going.meet()
        going.register()
        for one in example.datasets:
            view = going.views[one.table]
            yield f"registered  {view.code} {one.name}: {view.rows} rows, with a twin"
        for application in example.applications:
            digest = going.apply(application)
            yield f"applied     {digest.hex()} {' '.join(application.values.values())}".rstrip()
            yield f"approved    {', '.join(going.approve(application, digest))}"
            yield f"refused     {application.jobs[0]} on rows: {going.refused(application, digest)}"
            for name, done in going.run(application, digest, test=True).items():
                yield f"on twins    {name}: {done.view.state.name.lower()}"
            for name, done in going.run(application, digest, test=False).items():
                yield f"on rows     {name}: {done.view.state.name.lower()}, fee {_fee(done.view)}"
                for file, content in done.outcome.files.items():
                    (folder / f"{digest.hex()[:8]}-{name}-{file}").write_bytes(content)
                proven = going.trust(application).verify(done.outcome.receipt)
                yield f"verified    receipt {proven.index} of {name}, co-signed by {', '.join(proven.cosigners)}"


def main(arguments: list[str]) -> int:
    """Start the example's nodes, walk through it, and stop them."""
    known = sorted(path.parent.name for path in Path(__file__).parent.glob("*/walkthrough.toml"))
    parser = argparse.ArgumentParser(prog="jobs.walkthrough", description="one example through the whole line")
    parser.add_argument("name", choices=known)
    parser.add_argument("folder", type=Path, help="new folder for nodes, keys, tables and results")
    chosen = parser.parse_args(arguments)
    if chosen.folder.exists():
        parser.error(f"{chosen.folder} is there already; name a new folder")
    example = Example.read(chosen.name)
    chosen.folder.mkdir(mode=0o700, parents=True)
    try:
        with LocalNodes(chosen.folder, dict.fromkeys(example.nodes, STRICT), example.nodes) as nodes:
            for line in walk(example, nodes, chosen.folder / "walk"):
                print(line, flush=True)
    except SandboxError as error:
        print(f"{error.party or chosen.name}: {error.tell}; {error.hint}", file=sys.stderr)
        return 1
    return 0


def _dataset(tree: Mapping[str, Any]) -> Dataset:
    """Return what a table of walkthrough.toml says of a dataset; a twin's budget is written as it is for people."""
    own = {name: tree[name] for name in ("table", "name", "owner", "licence", "retention_days")}
    rest = {name: value for name, value in tree.items() if name not in own and name != "twin_epsilon"}
    rest["keywords"] = tuple(rest["keywords"])
    return Dataset(**own, terms=Terms(**rest, twin_epsilon_milli=round(1000 * tree["twin_epsilon"])))


def _accept(client: Client, digest: bytes, asked: Scenario) -> None:
    """Approve a scenario, and with it whatever it asks owners to accept."""
    simulated, two = asked.accepts_simulated, asked.accepts_two_contributors
    client.approve_scenario(digest, accepts_simulated=simulated, accepts_two_contributors=two)


def _fee(view: JobView) -> str:
    return f"{view.fee.yuan} yuan" if view.fee is not None else "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
