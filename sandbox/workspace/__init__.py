"""Where an engine runs: a channel to its peer, a private directory, and a child process of its own.

* ``channel``    bytes in order between two parties; one over a unix socket
* ``directory``  a private directory that disappears whatever happens
* ``child``      one foreign engine in one fresh process, and what became of it

``boot`` runs inside the child and ``guard`` beside the workspace; neither is imported by callers.
"""

from sandbox.workspace.channel import Channel, SocketChannel, dial, listen_once
from sandbox.workspace.child import Outcome, run_child
from sandbox.workspace.directory import Workspace

__all__ = ["Channel", "Outcome", "SocketChannel", "Workspace", "dial", "listen_once", "run_child"]
