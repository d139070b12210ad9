"""What the gateway decides, purely: stream order, alarms, who is told, what the board shows. No clock, no I/O."""
