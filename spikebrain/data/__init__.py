"""From corpora on disk to batches: manifests, preparers, tokenizers, pipelines, and synthetic twins of the corpora."""
