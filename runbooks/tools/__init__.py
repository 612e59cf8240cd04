"""One file per tool (pulumi, esc, kubectl, helm, git, modal) and per kind of file that such a tool reads.

Belongs here: builders of command lines, readers of answers, what a tool's failure means. Does not: deciding what to do
about an answer, or anything about a service.
"""
