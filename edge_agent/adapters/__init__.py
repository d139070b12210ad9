"""The agent's outside world: Modbus links, the store, the broker, the clock. Vendors live here and nowhere else."""
