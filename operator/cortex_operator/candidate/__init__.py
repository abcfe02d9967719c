"""The candidate of an API: whether it receives requests, and when it is rolled back."""
