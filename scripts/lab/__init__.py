"""The lab of the scripts: real nodes, real runtimes and a real registry in network namespaces of one machine.

Invariant: everything a run makes (processes, mounts, namespaces, files) belongs to one `Lab` and ends with it;
nothing outside the lab's own directory and its own namespace prefix is touched. Waiting is always for a condition
with a deadline. Only the standard library is used, so that a fresh machine needs nothing but a Python.
"""
