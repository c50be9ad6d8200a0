"""The audit trail: an append-only log, signed and co-signed checkpoints, receipts. Sees bytes, not their meaning."""
