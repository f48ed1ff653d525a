"""Every error this project raises on purpose; each says what was wanted, what came and what to do."""


class MadError(Exception):
    """Root of all errors a user or operator can act on."""


class SettingsError(MadError):
    """Raised when the settings file or an environment variable is missing, unknown or of the wrong type."""


class PoolError(MadError):
    """Raised when a pool source cannot be read at all (a missing folder, an empty list)."""


class ImageError(MadError):
    """Raised when one image cannot be read; the caller counts it, names it and goes on."""


class UnknownKindError(MadError):
    """Raised when the settings name a model kind that is not in the registry."""


class MissingRuntimeError(MadError):
    """Raised when a model's runtime is not installed; the message names the extra to install."""


class ModelError(MadError):
    """Raised when a model cannot be loaded, or its classes cannot be mapped to the label set."""


class ScanError(MadError):
    """Raised when a process or a node that predicts for a scan is lost for good."""


class StoreError(MadError):
    """Raised when the database is of another schema version, or a row it must have is absent."""


class TransitionError(MadError):
    """Raised when a round is asked for a change of state that its state machine does not have."""


class CorruptFileError(MadError):
    """Raised when a stored file fails its checksum."""


class LabelFormatError(MadError):
    """Raised when a Label Studio result cannot be read as a rating or as a label map."""


class LabelStudioError(MadError):
    """Raised when the Label Studio server cannot be reached, refuses the token or answers with an error.

    `status` is the HTTP status, or None when no answer came.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BusyError(MadError):
    """Raised when so many requests for predictions are waiting that another has to come again in `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AbandonedError(MadError):
    """Raised when whoever asked is no longer there to be answered."""


class TrainingError(MadError):
    """Raised when fine-tuning cannot start or ends without a usable checkpoint."""


class DemoError(MadError):
    """Raised when the demo cannot start on this machine (a port is taken, a service did not come up)."""
