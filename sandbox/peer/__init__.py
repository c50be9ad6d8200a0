"""What stands between two nodes: handshake, sealed records, signed calls, the relay of engine links."""
