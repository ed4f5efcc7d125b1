"""Pages for people: what a browser gets at FHIR's own URLs. A program that asks for FHIR never meets them."""
