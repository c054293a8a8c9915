"""HTTP without models: server, protocol, authentication, errors, bodies."""
