"""Subprocesses and threads that do work off the event loop."""
