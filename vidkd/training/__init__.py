"""What every training shares: run folder, epochs, going on after a kill, and the learning rate."""
