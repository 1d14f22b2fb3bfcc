"""How a worker is started in an environment."""
