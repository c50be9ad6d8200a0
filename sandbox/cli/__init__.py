"""The ``sandbox`` command: one module a noun, each a thin layer over ``sandbox.client`` or ``sandbox.node``."""

from sandbox.cli.app import app, main

__all__ = ["app", "main"]
