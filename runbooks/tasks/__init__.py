"""The tasks, one file per namespace of `./inv --list`. A task opens a run, calls the layers below and shows the result.

Imports of those layers stand inside the bodies: listing the tasks must not load them (0.3 seconds).
"""
