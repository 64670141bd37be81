"""Cuts a corpus without official splits into folds, each with utterances to train on, to choose a model by, and to test once.

A corpus names its protocols in ``Corpus.settings["folds"]``, each a :class:`Protocol` as plain values:

- ``paper``: what results are published under, for PTS-SNN (arXiv:2602.08240) after emotion2vec (arXiv:2312.15185);
- ``random``: utterances are dealt out one by one. Those who speak in a test fold speak in training too, which flatters results;
- ``speaker``: nobody who speaks in a fold's test or validation part speaks in its training part.

Which utterance falls where depends on ids, protocol and ``partition`` alone: on no order of files, no machine, and no library's
random numbers. A run's seed has no part in it.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass

from spikebrain.data.draw import draw
from spikebrain.data.manifest import DataError
from spikebrain.spelling import did_you_mean

SPLIT = "all"  # the one split of a corpus that is cut into folds


@dataclass(frozen=True)
class Protocol:
    """How folds are cut.

    by : field of Utterance whose groups are never taken apart: "session", "speaker" or "sentence"; "id" takes single utterances
    count : number of folds
    each : every group is a test fold of its own (leave one out); else groups are dealt out to ``count`` folds of nearly one size
    valid : share of the utterances outside of the test fold that validate, drawn at random; None: the next fold does
    valid_by : field whose groups are drawn for them, as many as stay within the share; "id" draws single utterances
    """

    by: str
    count: int
    each: bool = False
    valid: float | None = None
    valid_by: str = "id"

    @property
    def least(self):
        """How few folds are of use: one to test, one to train, and one to validate where that is a fold."""
        return 3 if self.valid is None else 2


@dataclass(frozen=True)
class Fold:
    """One way of cutting a corpus.

    name : of its test part: the number of the fold, or what is left out, such as "speaker-03"
    train, valid, test : ids, sorted; no id is in two of them, and the three together are all
    notes : what a reader of its results must know: classes that are not tested, voices that are heard in training
    """

    name: str
    train: tuple
    valid: tuple
    test: tuple
    notes: tuple = ()

    @property
    def digest(self):
        """SHA-256 of its ids, 16 digits: folds of equal digests are cut alike."""
        return hashlib.sha256(repr((self.train, self.valid, self.test)).encode()).hexdigest()[:16]


def make(utterances, protocols, name="paper", count=None, partition=0):
    """The folds of a corpus.

    Arguments
    ---------
    utterances : list of Utterance
        With ``speaker``, ``session`` and ``label``.
    protocols : mapping
        Name -> Protocol as plain values: ``settings["folds"]`` of a Corpus or Preparation.
    name : str
        Of the protocol.
    count : int or None
        Number of folds, where groups or utterances are dealt out; None takes the protocol's.
    partition : int
        Another number, other folds; what is left out one by one stays, but its random validation part changes.

    Returns
    -------
    tuple of Fold
        Test parts share nothing and together are all utterances.

    Raises
    ------
    DataError
        An unknown protocol, a number of folds that it does not have, too few sessions or speakers, utterances of which they are not
        known, or a fold whose training part lacks a class.
    """
    protocol = _choose(protocols, name, count)
    groups = _groups(utterances, protocol, name)
    if protocol.each:
        parts = {f"{protocol.by}-{group}": ids for group, ids in sorted(groups.items())}
    else:
        parts = {str(number): ids for number, ids in enumerate(_deal(groups, protocol.count, partition), 1)}
    absent = _absent(groups, protocol)
    known = {utterance.id: utterance for utterance in utterances}
    return tuple(_fold(known, parts, test, protocol, partition, absent) for test in parts)


def _choose(protocols, name, count):
    if name not in protocols:
        raise DataError(f"fold_protocol: {name!r} is none of {', '.join(protocols)}{did_you_mean(name, protocols)}")
    given = {**protocols[name], **({} if count is None else {"count": count})}
    protocol = Protocol(**given)
    if protocol.each and count is not None:
        raise DataError(f"fold_count: {count}: the protocol {name} has one fold a {protocol.by}: leave fold_count out")
    if protocol.count < protocol.least:
        raise DataError(f"fold_count: {protocol.count}: the protocol {name} needs {protocol.least} folds or more")
    return protocol


def _groups(utterances, protocol, name):
    """Group -> ids, after checking that there are enough of them."""
    groups, field = defaultdict(list), protocol.by
    for utterance in utterances:
        groups[getattr(utterance, field)].append(utterance.id)
    if groups.get(""):
        what = f"{len(groups[''])} of {len(utterances)} utterances have no {field}, the first is {groups[''][0]}"
        raise DataError(f"fold_protocol: {name} cuts by {field}, but {what}: use another protocol")
    wanted = protocol.least if protocol.each else protocol.count
    if len(groups) < wanted:
        kinds = "utterances" if field == "id" else f"{field}s ({', '.join(sorted(groups))})"
        repair = "restore the others" if protocol.each else "set a smaller fold_count"
        raise DataError(f"fold_protocol: {name} needs {wanted} or more, there are {len(groups)} {kinds}: {repair}, or use another protocol")
    return groups


def _deal(groups, count, partition):
    """Groups, the large ones first, each to the part that has the fewest ids: a list of lists of ids."""
    # Sizes are shrunk by up to a half at random: large groups still come early, so that parts end up nearly equal, but not always in
    # one order.
    order = sorted(groups, key=lambda group: (-len(groups[group]) * (1 - 0.5 * draw(partition, group) / 2**64), group))
    parts = [[] for _ in range(count)]
    for group in order:
        min(parts, key=len).extend(groups[group])
    return parts


def _absent(groups, protocol):
    if not protocol.each or len(groups) == protocol.count:
        return ()
    return (f"the protocol leaves out one of {protocol.count} {protocol.by}s, here there are {len(groups)}: {', '.join(sorted(groups))}",)


def _fold(known, parts, test, protocol, partition, absent):
    names = list(parts)
    if protocol.valid is None:
        valid = set(parts[names[(names.index(test) + 1) % len(names)]])
    else:
        valid = _drawn([known[name] for part, ids in parts.items() if part != test for name in ids], test, protocol, partition)
    tested = set(parts[test])
    train = known.keys() - tested - valid
    split = {"train": train, "valid": valid, "test": tested}
    notes = absent + tuple(_notes(test, {part: [known[name] for name in ids] for part, ids in split.items()}))
    return Fold(test, *(tuple(sorted(ids)) for ids in split.values()), notes)


def _drawn(others, test, protocol, partition):
    """Ids of the utterances that validate, of all ``others`` than the test fold's."""
    groups = defaultdict(list)
    for utterance in others:
        groups[getattr(utterance, protocol.valid_by)].append(utterance.id)
    wanted, valid = max(1, round(protocol.valid * len(others))), set()
    for group in sorted(groups, key=lambda group: (draw(partition, f"{test}/{group}"), group)):
        if len(valid) + len(groups[group]) <= wanted:
            valid.update(groups[group])
    return valid or set(min(groups.values(), key=len))


def _notes(name, split):
    labels = {part: {utterance.label for utterance in found} for part, found in split.items()}
    classes = sorted(set.union(*labels.values()))
    lacking = [label for label in classes if label not in labels["train"]]
    if lacking:
        what = f"fold {name}: none of its {len(split['train'])} training utterances is of {_of(lacking, classes)}"
        raise DataError(f"{what}: set another partition, or restore recordings that are missing")
    for part in ("valid", "test"):
        missing = [label for label in classes if label not in labels[part]]
        if missing:
            yield f"{part} has no utterance of {_of(missing, classes)}"
    for field in ("speaker", "sentence"):
        heard, tested = ({getattr(utterance, field) for utterance in split[part]} - {""} for part in ("train", "test"))
        if heard & tested:
            yield f"{len(heard & tested)} of the {len(tested)} {field}s of test are in train"


def _of(missing, classes):
    return f"{len(missing)} of {len(classes)} classes: {', '.join(missing)}"
