"""Servers to compare with: each file is a program of its own, written as a user of that server would write it.

They import nothing of this checkout and share nothing, and find their weights where the environment variable CHECKPOINT
says. Each runs in the environment that benchmarks/servers.py makes for it.
"""
