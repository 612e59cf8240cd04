"""The lab's stand-in for the ``pulumi`` command: real programs, the real SDK protocol, the file back end's layout."""

VERSION = "v3.260.0-lab.standin"
"""The release whose recorded answers the stand-in follows, named for what it is; valid semantic versioning."""
