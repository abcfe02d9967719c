"""The models of an API: from their locations to the copies on disk and in memory."""
