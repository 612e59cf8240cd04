"""Does it work? One file per service or operator, and what they share: questions to the cluster, HTTP, SQL.

Belongs here: reading the cluster and the network, and a verdict with evidence. Does not: anything that changes them.
"""
