"""The connection that settings and environment describe."""

from mad_backend.errors import SettingsError
from mad_backend.network.servers import check_address
from mad_backend.network.tls import Certificates
from mad_backend.settings import Secrets, Settings
from sync.client import LabelStudioClient


def connect(settings: Settings, secrets: Secrets | None = None) -> LabelStudioClient:
    """A client for the server of `settings`.

    Raises SettingsError where no token is given, a certificate cannot be read, or the address is none.
    """
    secrets = secrets or Secrets()
    if secrets.label_studio_token is None:
        raise SettingsError(
            "no Label Studio token; set MAD_LABEL_STUDIO_TOKEN to the token of Account & Settings > Access Token"
        )
    given = settings.label_studio
    url = secrets.label_studio_url or given.url
    check_address(url)
    certificates = Certificates(given.ca_file, given.client_cert, given.verify)
    token = secrets.label_studio_token.get_secret_value()
    return LabelStudioClient(url, token.strip(), certificates=certificates)
