"""What will change, and where: target, session, guard, preparation, preview, plan, apply, environments.

Belongs here: the steps of a run up to the applied stack. Does not: whether the service works (`checks`), or the
names and options of tasks (`tasks`).
"""
