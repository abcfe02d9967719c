"""Mutation testing: `make mutants` changes the code in small ways and reports which changes no test notices."""
