"""The lab's controllers: what the pods of a real platform's operators would do, in one process.

Run as `python -m lab.operators --lab-dir DIR`; each controller is a module of its own.
"""
