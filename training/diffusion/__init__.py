"""Diffusion models: stochastic differential equations, losses, samplers. Nothing here knows of robots."""
