"""The connection that settings and environment describe."""

from mad_backend.errors import SettingsError
from mad_backend.settings import Secrets, Settings
from sync.client import LabelStudioClient


def connect(settings: Settings, secrets: Secrets | None = None) -> LabelStudioClient:
    """A client for the server of `settings`; raises SettingsError where no token is given."""
    secrets = secrets or Secrets()
    if secrets.label_studio_token is None:
        raise SettingsError(
            "no Label Studio token; set MAD_LABEL_STUDIO_TOKEN to the token of Account & Settings > Access Token"
        )
    url = secrets.label_studio_url or settings.label_studio.url
    return LabelStudioClient(url, secrets.label_studio_token.get_secret_value())
