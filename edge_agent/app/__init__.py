"""The agent's verbs, each composed from adapters and core: the only layer that knows them all."""
