"""The tables of the audit log. ``store`` creates them with its own: ``metadata.create_all(engine)``.

Shapes:    ``audit_leaf`` and ``audit_node`` only grow; a node is stored once its subtree is complete.
           ``audit_checkpoint`` holds what this node signed, one note a size.
           ``audit_seen`` holds the newest head this node co-signed of each other log.
           ``job_id`` is a way to find entries, not part of them: the tree does not protect it (``log.check`` can).
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

# SQLite makes a 64-bit primary key the table's own order only under the name INTEGER.
_Number = BigInteger().with_variant(Integer(), "sqlite")

audit_leaf = Table(
    "audit_leaf",
    metadata,
    Column("index", _Number, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("job_id", Text, nullable=False, index=True),
)

audit_node = Table(
    "audit_node",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("index", _Number, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("size", _Number, primary_key=True, autoincrement=False),
    Column("note", LargeBinary, nullable=False),
)

audit_seen = Table(
    "audit_seen",
    metadata,
    Column("origin", String(200), primary_key=True),
    Column("size", _Number, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
)
