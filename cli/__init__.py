"""The store from a terminal: `git fhir …`."""
