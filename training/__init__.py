"""Fine-tunes and evaluates the target model, and drives the rounds."""
