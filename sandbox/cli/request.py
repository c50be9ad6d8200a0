"""``sandbox request``: signed requests for other programs, such as grpcurl."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from sandbox.cli.session import CLIENT, Session, command

app = typer.Typer(name="request", help="Signed requests for other programs. 为其他程序签名请求。", no_args_is_help=True)


@command(app, "sign", needs=CLIENT, always_json=True)
def sign(
    session: Session,
    method: Annotated[str, typer.Argument(help="For example JobService/GetJob.")],
    body: Annotated[str, typer.Argument(help="The body named at the RPC, in protobuf's JSON; - is standard input.")],
) -> Any:
    """Sign one request for the node; it holds for two minutes and one use.

    sandbox request sign JobService/ListJobs '{}' | grpcurl -d @ ... sandbox.v1.JobService/ListJobs
    """
    from sandbox.client import requests

    text = sys.stdin.read() if body == "-" else body
    with session.connect() as node:
        return requests.to_json(node.sign_request(method, requests.body_from_json(method, text)))
