"""Errors that a user can mend: their message names what was wrong and what to do about it."""


class InputError(ValueError):
    """Input that cannot be used: a file, a parameter, a message or a calibration."""


class CalibrationError(InputError):
    """Camera numbers that describe no camera."""


class CheckpointError(InputError):
    """A checkpoint that is damaged or does not fit what it is used with."""


class DataError(InputError):
    """A data folder or bag that is missing, unreadable or of another format."""


class TeacherError(InputError):
    """An image model that cannot be loaded or does not fit the checkpoint."""
