"""Where the pictures of a project's tasks lie, so that browsers can show them (label_studio.media)."""

from collections.abc import Callable, Mapping, Set
from typing import Final, Protocol, runtime_checkable

from mad_backend.errors import LabelStudioError
from sync.client import LabelStudioClient
from sync.shapes import UPLOADS

_SHELF_TRIES: Final = 2


class PictureHost(Protocol):
    """Places pictures; the same name placed twice is there once, and has the same address."""

    def own_address(self, address: str) -> str | None:
        """What a task's data shall say of a photo that stays where it lies (`address`); None: it is to be placed.

        Raises SettingsError for a photo that could be seen from this machine only.
        """

    def place(self, project_id: int, pictures: Mapping[str, bytes]) -> dict[str, str]:
        """Name -> address for the task's data, of JPEG files (name -> content) that tasks of the project show.

        Raises LabelStudioError, PoolError or SettingsError.
        """


@runtime_checkable
class PerishablePictures(Protocol):
    """A host whose pictures people can delete beside us; every push looks after them."""

    def lost(self, project_id: int, addresses: Set[str]) -> set[str]:
        """Those of `addresses` in the data of the project's tasks that are gone; raises LabelStudioError."""


class UploadedPictures:
    """Files uploaded into Label Studio (`media: upload`), into the project `shelf`, or into that of the tasks.

    `shelf` may be a function that finds the project or makes it; it is asked again should somebody delete it. What lies
    there is listed once, and again after a failure, when files may have arrived without an answer.
    """

    def __init__(self, client: LabelStudioClient, shelf: int | Callable[[], int] | None = None) -> None:
        self._client = client
        self._shelf = shelf
        self._there: dict[int, dict[str, str]] = {}
        self._found: int | None = None

    def own_address(self, address: str) -> str | None:
        return None

    def place(self, project_id: int, pictures: Mapping[str, bytes]) -> dict[str, str]:
        if not pictures:
            return {}
        for left in reversed(range(_SHELF_TRIES)):
            shelf = self._on(project_id)
            try:
                there = self._listed(shelf)
                if absent := {name: content for name, content in pictures.items() if name not in there}:
                    there |= self._client.upload(shelf, absent)
                return {name: there[name] for name in pictures}
            except LabelStudioError as error:
                self._there.pop(shelf, None)
                self._found = None
                if not (left and error.status == 404 and callable(self._shelf)):
                    raise
        raise AssertionError("the last try returns or raises")

    def lost(self, project_id: int, addresses: Set[str]) -> set[str]:
        shelves: dict[int, set[str]] = {}
        for address in addresses:
            shelf, slash, _ = address.partition(UPLOADS)[2].partition("/")
            if address.startswith(self._client.path + UPLOADS) and slash and shelf.isdecimal():
                shelves.setdefault(int(shelf), set()).add(address)
        self._there.clear()
        return {address for shelf, own in shelves.items() for address in self._lost_of(shelf, own)}

    def _lost_of(self, shelf: int, addresses: set[str]) -> set[str]:
        try:
            unlisted = addresses - set(self._listed(shelf).values())
        except LabelStudioError as error:
            if error.status != 404:
                raise
            return addresses
        # The list has only what the user of this token uploaded, and of twins only the first.
        return {address for address in unlisted if not self._client.has_file(address)}

    def _on(self, project_id: int) -> int:
        if callable(self._shelf):
            if self._found is None:
                self._found = self._shelf()
            return self._found
        return self._shelf or project_id

    def _listed(self, shelf: int) -> dict[str, str]:
        """Name -> address of what lies there, as of the last look and what was uploaded since."""
        if shelf not in self._there:
            self._there[shelf] = self._client.uploads(shelf)
        return self._there[shelf]
