"""What tasks share whose networks name a class: who is counted as right, and which checkpoint is best."""


class Tally:
    """Counts of a split: utterances, those that are named rightly, and the sum of losses."""

    def __init__(self):
        self.utterances, self.right, self.losses = 0, 0, 0.0

    def add(self, logits, labels, loss):
        """Counts a batch: ``logits`` (B, K), ``labels`` (B,), and the mean loss of its utterances."""
        self.utterances += len(labels)
        self.right += int((logits.argmax(-1) == labels).sum())
        self.losses += float(loss) * len(labels)

    @property
    def accuracy(self):
        """Percent, of all utterances alike."""
        return 100 * self.right / max(self.utterances, 1)

    @property
    def loss(self):
        """The mean over utterances."""
        return self.losses / max(self.utterances, 1)

    def numbers(self):
        """Loss, accuracy and error rate of all utterances alike; the host's loss of a stage is a mean of batches."""
        return {"loss": self.loss, "accuracy": self.accuracy, "error": 100 - self.accuracy}


def labels_of(batch):
    """The labels of a batch, Tensor (B,), int64."""
    return batch.label_encoded.data.squeeze(1)


def choice(hparams):
    """What chooses a recipe's checkpoint, lowest first: what dev splits say, or the training loss where there is none."""
    return ("valid_error", "valid_loss", "epoch") if hparams["dev_splits"] else ("train_loss", "epoch")
