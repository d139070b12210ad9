"""Stand-ins for the hardware: a seeded, physical plant over real Modbus/TCP, and the faults of its network."""
