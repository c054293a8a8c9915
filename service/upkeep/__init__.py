"""Commands that look after the store: remove what is not needed, and find what is wrong."""
