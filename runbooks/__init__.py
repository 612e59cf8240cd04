"""What you can do: one thin module per task namespace. No process starts here; that is `lib/runner.py`'s work."""
