"""The lab's controllers: one process that does the work of a real platform's operators.

Run as `python -m lab.operators --lab-dir DIR`; each controller is a module of its own.
"""
