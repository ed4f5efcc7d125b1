"""FHIR's REST interface over a Store. https://hl7.org/fhir/R4/http.html"""
