"""The store: one object for everything that must survive a restart."""

from mad_backend.store.choices import ChoiceTable
from mad_backend.store.database import Database
from mad_backend.store.remote import RemoteTable
from mad_backend.store.rounds import RoundTable
from mad_backend.store.versions import VersionTable


class Store:
    """Opens (and migrates) the database at `url`, e.g. "sqlite:///runs/demo/mad.sqlite3".

    Every method is one short transaction; several processes may use the same database at once.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self.rounds = RoundTable(self._database)
        self.choices = ChoiceTable(self._database)
        self.remote = RemoteTable(self._database)
        self.versions = VersionTable(self._database)

    def close(self) -> None:
        """Gives the connections back."""
        self._database.engine.dispose()
