"""The models of an API: their locations, the copies on disk and the loaded models in memory."""
