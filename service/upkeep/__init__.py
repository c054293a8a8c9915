"""Commands that look after the store: remove files that are not needed, and find faults."""
