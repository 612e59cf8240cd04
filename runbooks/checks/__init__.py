"""Does it work? One file per service or operator, and the probes they share: exposure, SQL, HTTP.

Belongs here: reading the cluster and the network, and a verdict with evidence. Does not: anything that changes them.
"""
