"""Fine-tuning: from samples and a target's weights to the weights of the next version (Sec. 3.2, 4.1)."""
