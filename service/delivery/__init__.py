"""Which version answers: registry, gate, rollout, uploads."""
