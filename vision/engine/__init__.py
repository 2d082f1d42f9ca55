"""What a run does: optimisation, the loop, checkpoints, evaluation."""
