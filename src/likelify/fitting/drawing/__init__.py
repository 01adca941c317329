"""What a fitted model draws: samples, items brought to the latent and back, hidden parts; and the files they go to."""
