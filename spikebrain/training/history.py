"""What each epoch gave, kept with the checkpoints and written for the curves."""

import json

from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks

from spikebrain.data.manifest import write_atomic


@register_checkpoint_hooks
class History:
    """One row of numbers an epoch: a recoverable, so that a resumed run has each epoch once.

    Arguments
    ---------
    path : str
        Where :meth:`write` puts the rows, one JSON object a line.
    """

    def __init__(self, path):
        self.path = path
        self.rows = []

    def add(self, **numbers):
        """Appends an epoch's numbers, and forgets rows of that epoch or later ones."""
        self.rows = [row for row in self.rows if row["epoch"] < numbers["epoch"]] + [numbers]

    def write(self):
        """Writes all rows to ``path``, atomically."""
        write_atomic(self.path, self._text())

    @mark_as_saver
    def save(self, path):
        """Saves the rows in a checkpoint."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._text())

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Takes the rows of a checkpoint."""
        del end_of_epoch
        with open(path, encoding="utf-8") as file:
            self.rows = [json.loads(line) for line in file]

    def _text(self):
        return "".join(json.dumps(row) + "\n" for row in self.rows)
