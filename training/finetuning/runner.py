"""mmengine's Runner, on the device that settings chose."""

from typing import Any

from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import Runner


class StayingRunner(Runner):  # type: ignore[misc]
    """Trains a network where it is; mmengine's own takes the current GPU wherever there is one."""

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: Any) -> Any:
        if is_model_wrapper(model):
            return model
        # With its pre-processing, which goes where the network is.
        return revert_sync_batchnorm(model.to(next(model.parameters()).device))
