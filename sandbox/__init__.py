"""A privacy-preserving computation sandbox: raw data stays home, only checked results and a trail leave."""

import os

# gRPC reads this once, at import. Its fork handlers stop the threads of a server whenever a child process is started
# from another thread; our children exec at once and never use the parent's connections.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
