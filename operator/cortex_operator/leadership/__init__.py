"""Which operator works: leader election within one installation, and installations that respect each other's APIs."""
