"""What can go wrong in training and is not a defect of ours."""

from dataengine.errors import DataEngineError


class TrainingError(DataEngineError):
    """A run that cannot go on, or a checkpoint that does not fit."""
