"""Guardwatch gateway: journals what the agents saw, runs the alarms, shows the plant, tells people."""
