"""The one training loop: batches, losses, optimisers, checkpoints."""
