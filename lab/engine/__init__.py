"""The lab's stand-in for the ``pulumi`` command: real programs, the real SDK protocol, the file back end's layout."""
