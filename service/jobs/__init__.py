"""Training jobs: the queue and the worker."""
