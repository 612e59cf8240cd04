"""The `postgresql` provider as a plugin process: databases, roles, schemas, extensions and privileges.

It behaves as pulumi-postgresql 3.18.2, which no registry serves. `service` answers Pulumi's requests; a module for each
resource type has its shape and its statements; `properties` derives checks and differences from a shape; `server`
connects to Postgres; `wire` reads and writes Pulumi's messages.
"""
