"""What a node reads at start: ``sandbox.toml`` in its home, overridden by ``SANDBOX_*`` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from sandbox.errors import InvalidSpec, NotFound

FILE = "sandbox.toml"


class Settings(BaseSettings):
    """One node's settings. Every default is safe on one machine."""

    model_config = SettingsConfigDict(env_prefix="SANDBOX_", extra="forbid", frozen=True)

    node_id: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$", description="short name, unique among the peers")
    organisation: str = Field(min_length=1, max_length=64)
    listen: str = Field("127.0.0.1:7700", description="host:port the one gRPC port binds")
    address: str = Field("", description="host:port peers dial; empty: same as listen")
    seal: Literal["sm4", "tls"] = Field("sm4", description="what seals the records between nodes, inside TLS")
    seal_by_peer: dict[str, Literal["sm4", "tls"]] = Field(default_factory=dict)
    witness: str = Field("", description="node id of the peer that co-signs this node's checkpoints")
    ray_address: str = Field("", description="an existing cluster of this party; empty: embedded, on loopback")
    ray_cpus: int = Field(1, ge=1, le=1024)
    ray_start: Literal["lazy", "eager"] = "lazy"
    database: str = Field("", description="SQLAlchemy URL; empty: store.db in the home")
    min_group_floor: int = Field(10, ge=1, description="no scenario may set a smaller minimum group")
    round_floor: int = Field(10, ge=1, description="no scenario may round counts more finely")
    top_two_floor: int = Field(900, ge=1, le=1000, description="permille of a total that its two largest may make up")
    remainder_floor: int = Field(100, ge=0, description="permille of the largest that the rest of a total must reach")
    review_days: int = Field(7, ge=1, le=90, description="after which a held job expires")
    score_step_floor: int = Field(5, ge=1, description="points; no scenario may release finer scores")
    national_algorithms: bool = Field(False, description="intersections on the SM2 curve only; other engines refused")
    link_mbit: int = Field(1000, ge=1, description="the line to the other parties, each way; for the choice of engines")
    test_before_production: bool = Field(
        True, description="admit in production only what was released on twins first, under the same scenario"
    )
    deadline_s: int = Field(900, ge=5, le=86400, description="the plan's own deadline where the spec gives none")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def reachable_at(self) -> str:
        """The address peers and clients dial."""
        return self.address or self.listen

    def seal_for(self, peer: str) -> str:
        """Return how the link to ``peer`` is sealed."""
        return self.seal_by_peer.get(peer, self.seal)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over arguments, arguments over nothing: the file arrives as arguments."""
        return (env_settings, init_settings)


def load(home: Path) -> Settings:
    """Read the settings of the node in ``home``.

    Raises:
        NotFound: there is no node.
        InvalidSpec: a setting is wrong; named.
    """
    path = home / FILE
    if not path.is_file():
        raise NotFound(tell=f"no node in {home}: {FILE} is missing", hint="make one with `sandbox init`")
    try:
        return Settings(**TomlConfigSettingsSource(Settings, path).toml_data)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidSpec(
            tell=f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}", hint="correct the file"
        ) from None
    except ValueError:
        raise InvalidSpec(tell=f"{path} is not valid TOML", hint="correct the file") from None
