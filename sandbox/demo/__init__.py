"""The main job on one machine: three nodes as separate processes, one joint credit score, one receipt."""

from sandbox.demo.story import run

__all__ = ["run"]
