"""Pose estimators: data, models, diffusion, recipes, evaluation."""
