"""The services' checks: which rungs each ladder has. How a rung is looked at is `runbooks/lib`'s work."""
