"""What every run needs and no tool decides: processes, masking, journal, reporter, errors, files.

Belongs here: code that would be the same for another set of tools. Does not: the name of a tool's command or of a
service.
"""
