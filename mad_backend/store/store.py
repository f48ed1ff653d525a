"""The store: one object for everything that must survive a restart."""

from mad_backend.core.checks import final_masks
from mad_backend.core.records import HumanMask
from mad_backend.store.answers import AnswerTable
from mad_backend.store.checks import CheckTable
from mad_backend.store.choices import ChoiceTable
from mad_backend.store.database import Database
from mad_backend.store.duels import DuelTable
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
        self.answers = AnswerTable(self._database)
        self.checks = CheckTable(self._database)
        self.versions = VersionTable(self._database)
        self.duels = DuelTable(self._database)

    def final_masks(self, number: int) -> dict[str, HumanMask]:
        """Image id -> the label map of S or T that counts, once it was checked; what is trained and measured on."""
        return final_masks(self.remote.masks(number), self.checks.all(number))

    def close(self) -> None:
        """Gives the connections back."""
        self._database.engine.dispose()
