"""What the gateway does: each service sequences the pure domain and the ports, and decides nothing itself."""
