"""The gRPC edge: who calls, may they, and what they are told."""
