"""What recipes share: the runner, one file a task with its Brain, checkpoints and results."""
