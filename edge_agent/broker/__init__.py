"""The way to a broker, the same for agent and gateway: it knows neither what they publish nor why."""
