"""One file a corpus, each with the same two verbs.

``read(data_folder, split)`` gives the utterances of a split, ``prepare(data_folder,
save_folder, splits=None, **options)`` writes manifests and returns a Preparation.
"""
