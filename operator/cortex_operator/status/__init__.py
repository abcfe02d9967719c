"""From observed objects to the status of an API: failures, conditions, the status itself and Events. Pure functions."""
