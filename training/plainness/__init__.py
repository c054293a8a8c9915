"""Train the check that distinguishes plain digits from other marks: `python -m training.plainness`."""
