"""What Label Studio's webhooks carry when they come to us: our secret, in a header of our own."""

from typing import Final

SECRET_HEADER: Final = "X-MAD-Secret"  # noqa: S105 - a header's name
