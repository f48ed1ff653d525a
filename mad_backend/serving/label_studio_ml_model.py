"""The promoted target as a model of `label-studio-ml` 2, for teams that run their ML backends with that package.

A `model.py` of theirs that serves it is two lines; MAD_CONFIG names the settings file:

    from mad_backend.serving.label_studio_ml_model import target_model
    TargetModel = target_model()
"""

import atexit
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, Final

from mad_backend.errors import MissingRuntimeError
from mad_backend.serving.local_targets import LocalTargets
from mad_backend.serving.target_service import PredictRequest, TargetService
from mad_backend.serving.task_images import TaskImageReader
from mad_backend.settings import Secrets
from mad_backend.settings_file import load_label_set, load_settings
from mad_backend.store.store import Store

_DEFAULT_CONFIG: Final = "mad.yaml"
_INSTALL: Final = "pip install git+https://github.com/HumanSignal/label-studio-ml-backend.git"


class Opened:
    """Store and service of one process, opened when first asked for: a server may fork after it has made the class."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._lock = Lock()
        self._kept = ExitStack()
        self._service: TargetService | None = None
        self._store: Store | None = None

    def service(self) -> TargetService:
        """Raises SettingsError, PoolError or StoreError."""
        with self._lock:
            if self._service is None:
                with ExitStack() as opening:
                    settings = load_settings(self._config)
                    store = Store(settings.database_url)
                    opening.callback(store.close)
                    targets = LocalTargets(store, settings, load_label_set(settings.label_set))
                    opening.callback(targets.close)
                    images = TaskImageReader(settings, Secrets(), store.remote.sign)
                    service = TargetService(store, settings, targets, images)
                    opening.callback(service.close)
                    self._kept = opening.pop_all()
                self._service, self._store = service, store
            return self._service

    def want_pull(self) -> None:
        """Lets the next tick look for new answers at Label Studio."""
        self.service()
        assert self._store
        self._store.remote.want_pull()

    def close(self) -> None:
        with self._lock:
            self._service = self._store = None
            self._kept.close()


def target_model(config: Path | None = None) -> type[Any]:
    """A subclass of `label_studio_ml.model.LabelStudioMLBase`; without `config` its settings are those of MAD_CONFIG.

    The attribute `opened` closes what instances share, which otherwise the end of the process does. Raises
    MissingRuntimeError where the package is absent or older than 2.
    """
    base, response = _package()
    opened = Opened(config or Path(os.environ.get("MAD_CONFIG", _DEFAULT_CONFIG)))
    atexit.register(opened.close)
    return _subclass(base, response, opened)


def _subclass(base: Any, response: Any, opened: Opened) -> type[Any]:
    class TargetModel(base):  # type: ignore[misc]  # known at run time only
        """The package makes an instance for each request."""

        def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
            # The package's own `label_config` is the last one that came for a project of this number.
            self._asked = label_config or ""
            super().__init__(project_id, label_config)

        def setup(self) -> None:
            """Called for each instance: what /setup names is what results name, whatever was promoted before."""
            self.set("model_version", opened.service().served_version() or "")

        def predict(
            self,
            tasks: Sequence[Mapping[str, Any]],
            context: Mapping[str, Any] | None = None,
            **_credentials: object,
        ) -> Any:
            """A `ModelResponse` with one prediction per task, in order, as `TargetService.predict` gives them."""
            found = opened.service().predict(PredictRequest(tasks, self._asked, context))
            predictions = [
                {"model_version": f.model_version, "score": None, "result": list(f.regions)} for f in found
            ]
            version = found[0].model_version if found else opened.service().served_version()
            return response(model_version=version, predictions=predictions)

        def fit(self, event: str, data: Mapping[str, Any], **_additional: object) -> dict[str, str]:
            """Never trains: whether fine-tuning is due is for `mad schedule` to say, once it has seen the answers."""
            opened.want_pull()
            return {"status": "ok"}

    TargetModel.opened = opened
    return TargetModel


def _package() -> tuple[Any, Any]:
    """`LabelStudioMLBase` and `ModelResponse` of the package."""
    try:
        import label_studio_ml
    except ImportError as error:
        raise MissingRuntimeError(f"label-studio-ml is not installed; {_INSTALL}") from error
    version = str(getattr(label_studio_ml, "__version__", ""))
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < 2:
        raise MissingRuntimeError(
            f"wanted label-studio-ml 2 or newer, got {version or 'one without a version'}; PyPI has older ones only: "
            f"{_INSTALL}"
        )
    from label_studio_ml.model import LabelStudioMLBase
    from label_studio_ml.response import ModelResponse

    return LabelStudioMLBase, ModelResponse
