"""The in-flight autoscaler: the algorithm as a pure function, and the loop that feeds it."""
