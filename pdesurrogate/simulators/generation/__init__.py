"""Long runs on the way from a recipe to an archive: what they ask of a simulator, restarts, logs."""
