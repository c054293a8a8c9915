"""Steps, in order: never changed once released."""
