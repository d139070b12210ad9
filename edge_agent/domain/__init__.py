"""What the agent decides, purely: plans, decoding, guard states, rules, delivery. No clock, no I/O, no randomness."""
