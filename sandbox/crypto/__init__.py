"""The only package that touches a cryptographic primitive: SM2, SM3, SM4, envelopes, and TLS certificates."""
