"""The ``postgresql`` provider: databases, roles, schemas, extensions and privileges of the lab's Postgres.

``provider`` is the engine's view; ``properties`` says what each resource type has and what a difference means;
``connection`` talks to the server; the other modules each carry out one resource type.
"""

from lab.engine.providers.postgresql.provider import create_provider

__all__ = ["create_provider"]
