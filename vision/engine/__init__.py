"""What a run does: optimization, the loop, checkpoints, evaluation."""
