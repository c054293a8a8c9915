"""Train the check that tells plain digits from other marks: `python -m training.plainness`."""
