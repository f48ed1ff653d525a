"""Where the pictures of a project's tasks lie, so that browsers can show them (label_studio.media)."""

from collections.abc import Mapping
from typing import Protocol

from sync.client import LabelStudioClient


class PictureHost(Protocol):
    """Places pictures; the same name placed twice is there once, and has the same address."""

    def own_address(self, address: str) -> str | None:
        """What a task's data shall say of a photo that stays where it lies (`address`); None: it is to be placed."""

    def place(self, project_id: int, pictures: Mapping[str, bytes]) -> dict[str, str]:
        """Name -> address for the task's data, of JPEG files (name -> content) that tasks of the project show.

        Raises LabelStudioError or PoolError.
        """


class UploadedPictures:
    """Files uploaded into Label Studio (`media: upload`), into `shelf`, or into the project of the tasks."""

    def __init__(self, client: LabelStudioClient, shelf: int | None = None) -> None:
        self._client = client
        self._shelf = shelf

    def own_address(self, address: str) -> str | None:
        return None

    def place(self, project_id: int, pictures: Mapping[str, bytes]) -> dict[str, str]:
        shelf = self._shelf or project_id
        there = self._client.uploads(shelf)
        absent = {name: content for name, content in pictures.items() if name not in there}
        if absent:
            self._client.upload(shelf, absent)
            there = self._client.uploads(shelf)
        return {name: there[name] for name in pictures}
